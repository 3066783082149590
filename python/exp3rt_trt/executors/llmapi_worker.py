"""The worker process of `llmapi.LlmApiExecutor`: JSON lines in from stdin, JSON lines out.

What arrives is data: no pickle is read, and no port is opened here. What TensorRT-LLM prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from exp3rt_trt.executors.llmapi_requests import Candidate, GroupRequest, GroupRunner

if TYPE_CHECKING:
    from typing import BinaryIO

GONE = '{"close": true}'  # what the end of the lines means
LONGEST_LINE = 1 << 30  # bytes
STATISTICS_S = 5.0  # how long the first statistics are waited for


@dataclass
class _Job:
    """A group at work."""

    task: asyncio.Task[None]
    cancelled: bool = False


class Worker:
    """Runs groups until it is told to close, or nobody is there any more.

    Args:
        settings: of the engine; see `llmapi.worker_settings`.
        out: where answers go, one JSON object a line.
    """

    def __init__(self, settings: dict[str, Any], out: BinaryIO) -> None:
        self._out = out
        self._api = importlib.import_module("tensorrt_llm")
        self._settings = settings
        self._jobs: dict[int, _Job] = {}
        self._blocks: dict[str, int] = {}
        self._done = {"candidates_done": 0, "groups_done": 0, "queue_s": 0.0, "compute_s": 0.0}

    async def run(self, lines: asyncio.StreamReader) -> None:
        """Load the model, say so, and serve until the lines end or one says so."""
        llm = self._load()
        self._runner = GroupRunner(llm, self._api)
        await self._first_step()
        follower = asyncio.ensure_future(self._follow(llm))
        await asyncio.sleep(0)
        await self._first_statistics()
        self._send({"ready": {"version": self._api.__version__}, "stats": self._stats()})
        while "close" not in (message := json.loads(await lines.readline() or GONE)):
            if "submit" in message:
                self._submit(message["submit"], GroupRequest(**message["group"]))
            else:
                self._cancel(message["cancel"])
        follower.cancel()
        for job in self._jobs.values():
            job.task.cancel()
        await asyncio.gather(*(job.task for job in self._jobs.values()), return_exceptions=True)
        llm.shutdown()

    def _load(self) -> Any:  # noqa: ANN401  (tensorrt_llm.LLM)
        settings = self._settings
        cache = self._api.llmapi.KvCacheConfig(
            enable_block_reuse=True,
            free_gpu_memory_fraction=settings["kv_memory_fraction"],
            tokens_per_block=settings["tokens_per_block"],
            dtype=settings["kv_dtype"],
        )
        return self._api.LLM(
            model=settings["checkpoint"],
            skip_tokenizer_init=True,
            trust_remote_code=False,
            dtype=settings["dtype"],
            kv_cache_config=cache,
            max_batch_size=settings["max_batch_size"],
            max_num_tokens=settings["max_num_tokens"],
            max_seq_len=settings["max_seq_len"],
            enable_chunked_prefill=False,  # a chunk's logits would be taken for the prompt's
            enable_iter_perf_stats=True,
        )

    async def _first_step(self) -> None:
        """Compute something, because there are no statistics before."""
        group = GroupRequest([], [[0]], [0], [], 0, [], 0.0, "")
        candidates = [Candidate()]
        await self._runner.run(group, candidates)

    async def _first_statistics(self) -> None:
        """Wait until the KV cache's size is known; else count what one longest sequence needs, which fits."""
        end = time.monotonic() + STATISTICS_S
        while not self._blocks and time.monotonic() < end:
            await asyncio.sleep(0.01)
        if not self._blocks:
            blocks = -(-self._settings["max_seq_len"] // self._settings["tokens_per_block"])
            self._blocks = {"blocks_total": blocks, "blocks_free": blocks}

    async def _follow(self, llm: Any) -> None:  # noqa: ANN401
        """Keep the latest statistics of the KV cache."""
        while True:
            async for step in llm.get_stats_async(timeout=1):
                found = (json.loads(step) if isinstance(step, str) else step).get("kvCacheStats") or {}
                if found.get("maxNumBlocks"):
                    total, free = int(found["maxNumBlocks"]), int(found["freeNumBlocks"])
                    size = int(found.get("tokensPerBlock") or self._settings["tokens_per_block"])
                    self._blocks = {"blocks_total": total, "blocks_free": free, "block_size": size}
            await asyncio.sleep(0.05)

    def _submit(self, number: int, group: GroupRequest) -> None:
        self._jobs[number] = _Job(asyncio.ensure_future(self._serve(number, group)))

    def _cancel(self, number: int) -> None:
        job = self._jobs.get(number)
        if job is not None and not job.cancelled:
            job.cancelled = True
            job.task.cancel()

    async def _serve(self, number: int, group: GroupRequest) -> None:
        """Run a group to its end, its deadline or its cancellation, and answer once."""
        begin = time.monotonic()
        candidates = [Candidate() for _ in group.suffixes]
        work = asyncio.ensure_future(self._runner.run(group, candidates))
        left = "cancelled"
        try:
            await asyncio.wait({work}, timeout=group.timeout_s or None)
            if not work.done():
                left = "expired"
        except asyncio.CancelledError:
            if not self._jobs[number].cancelled:
                raise  # closing: nobody waits for an answer
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            self._jobs.pop(number)
        error = None if work.cancelled() else work.exception()
        if error is not None:
            self._send({"failed": number, "error": str(error) or type(error).__name__})
            return
        self._finish(number, candidates, left, time.monotonic() - begin)

    def _finish(self, number: int, candidates: list[Candidate], left: str, seconds: float) -> None:
        for candidate in candidates:
            if candidate.status == "pending":
                candidate.status, candidate.logits = left, []
            elif candidate.status == "failed":
                print(f"a candidate failed: {candidate.error}", file=sys.stderr, flush=True)  # noqa: T201
        self._done["candidates_done"] += len(candidates)
        self._done["groups_done"] += 1
        self._done["compute_s"] += seconds
        found = [{k: v for k, v in asdict(candidate).items() if k != "error"} for candidate in candidates]
        self._send({"done": number, "candidates": found, "compute_s": seconds, "stats": self._stats()})

    def _stats(self) -> dict[str, float]:
        total, free = self._blocks["blocks_total"], self._blocks["blocks_free"]
        counts = self._runner.counts
        return {
            "prompt_tokens_computed": counts.prompt_tokens_computed,
            "prompt_tokens_reused": counts.prompt_tokens_reused,
            "generated_tokens": counts.generated_tokens,
            "steps": counts.requests,
            "blocks_total": total,
            "blocks_free": free,
            "blocks_in_use": total - free,
            "block_size": self._blocks.get("block_size", self._settings["tokens_per_block"]),
            **self._done,
        }

    def _send(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.flush()


def main() -> None:
    """Serve the process that started this one."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of other packages must not come between the answers
    asyncio.run(_serve(out))


async def _serve(out: BinaryIO) -> None:
    lines = asyncio.StreamReader(limit=LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    settings = json.loads(await lines.readline())
    await Worker(settings, out).run(lines)


if __name__ == "__main__":
    main()
