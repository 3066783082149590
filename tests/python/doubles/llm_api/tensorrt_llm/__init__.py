"""A double of TensorRT-LLM 1.3's LLM API, as far as the worker uses it: deterministic logits, on the CPU.

Environment variables make it misbehave: DOUBLE_JOURNAL (a file: one JSON line a request), DOUBLE_STEP_S
(seconds a token takes), DOUBLE_FAIL_TOKEN (prompts with this token fail), DOUBLE_DIE_TOKEN (they end the
process), DOUBLE_ERROR_TOKEN (they end with an error that is not raised), DOUBLE_GARBAGE_TOKEN (they write
into every pipe of the process), DOUBLE_LOAD_ERROR (words of an error at loading), DOUBLE_NO_STATISTICS.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorrt_llm import llmapi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from numpy.typing import NDArray

__version__ = "1.3.0"
__all__ = ["LLM", "SamplingParams", "llmapi"]

STEP_S = float(os.environ.get("DOUBLE_STEP_S", "0"))
FAIL_TOKEN = int(os.environ.get("DOUBLE_FAIL_TOKEN", "-1"))
ERROR_TOKEN = int(os.environ.get("DOUBLE_ERROR_TOKEN", "-1"))
GARBAGE_TOKEN = int(os.environ.get("DOUBLE_GARBAGE_TOKEN", "-1"))
DIE_TOKEN = int(os.environ.get("DOUBLE_DIE_TOKEN", "-1"))
BLOCKS = 4096


@dataclass(kw_only=True)
class SamplingParams:
    """The fields that the worker sets; others are refused, as the real one refuses what it does not know."""

    end_id: int
    pad_id: int
    max_tokens: int
    stop_token_ids: list[int] | None = None
    temperature: float | None = None
    top_k: int | None = None
    detokenize: bool = True
    add_special_tokens: bool = True
    logits_processor: Any = None


@dataclass
class CompletionOutput:
    token_ids: list[int] = field(default_factory=list)


class RequestOutput:
    """A request under way."""

    def __init__(self, llm: LLM, prompt: list[int], sampling: SamplingParams) -> None:
        self.outputs = [CompletionOutput()]
        self.cached_tokens = 0
        self.error: str | None = None
        self._llm, self._prompt, self._sampling = llm, prompt, sampling
        self._task = asyncio.ensure_future(self._run())

    async def aresult(self) -> RequestOutput:
        await asyncio.shield(self._task)
        return self

    def abort(self) -> None:
        self._llm.journal({"aborted": self._prompt})
        self._task.cancel()

    async def _run(self) -> None:
        if DIE_TOKEN in self._prompt:
            os.write(2, b"CUDA error: an illegal memory access was encountered\n")
            os._exit(9)
        if GARBAGE_TOKEN in self._prompt:
            write_into_pipes()
        if ERROR_TOKEN in self._prompt:
            self.error = "the double was told to end with an error"
            return
        if FAIL_TOKEN in self._prompt:
            raise RuntimeError("the double was asked to fail")
        self.cached_tokens = self._llm.reuse(self._prompt)
        tokens = list(self._prompt)
        ends = {self._sampling.end_id, *(self._sampling.stop_token_ids or [])}
        for _ in range(self._sampling.max_tokens):
            await asyncio.sleep(STEP_S)
            logits = self._llm.logits(tokens)
            if self._sampling.logits_processor is not None:
                self._sampling.logits_processor(1, logits.reshape(1, 1, -1), [tokens], None, None)
            tokens = [*tokens, int(logits.argmax())]
            self.outputs[0].token_ids.append(tokens[-1])
            if tokens[-1] in ends:
                break
        self._llm.remember(self._prompt)


def write_into_pipes() -> None:
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):  # closed, or an end that is read from
            if number > 2 and stat.S_ISFIFO(os.fstat(number).st_mode):
                os.write(number, b"garbage\n")


class LLM:
    """Its logits depend on all tokens and their order."""

    def __init__(self, model: str, **options: Any) -> None:
        expected = {
            "skip_tokenizer_init",
            "trust_remote_code",
            "dtype",
            "kv_cache_config",
            "max_batch_size",
            "max_num_tokens",
            "max_seq_len",
            "enable_chunked_prefill",
            "enable_iter_perf_stats",
        }
        if set(options) - expected:
            raise ValueError(f"LLM got invalid argument: {sorted(set(options) - expected)[0]}")
        if "DOUBLE_LOAD_ERROR" in os.environ:
            raise RuntimeError(os.environ["DOUBLE_LOAD_ERROR"])
        print("this print must not come between the answers", flush=True)  # noqa: T201
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        self._vocab = int(config["vocab_size"])
        self._block = options["kv_cache_config"].tokens_per_block
        self._cached: set[tuple[int, ...]] = set()
        self._steps: list[dict[str, Any]] = []
        self.journal({"options": {k: v for k, v in options.items() if k != "kv_cache_config"}})

    def generate_async(
        self,
        inputs: list[int],
        sampling_params: SamplingParams,
        *,
        kv_cache_retention_config: llmapi.KvCacheRetentionConfig,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        kept = [(r.start, r.end, r.priority) for r in kv_cache_retention_config.token_range_retention_configs]
        self.journal(
            {
                "prompt": inputs,
                "max_tokens": sampling_params.max_tokens,
                "retention": kept,
                "cache_salt": cache_salt,
            }
        )
        return RequestOutput(self, list(inputs), sampling_params)

    async def get_stats_async(self, timeout: float) -> AsyncIterator[dict[str, Any]]:  # noqa: ARG002
        steps, self._steps = self._steps, []
        for step in steps:
            yield step

    def shutdown(self) -> None:
        self.journal({"shutdown": True})

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        random = np.random.default_rng(tokens)
        return random.standard_normal(self._vocab).astype(np.float32)

    def reuse(self, prompt: list[int]) -> int:
        """How many tokens of a prompt lie in whole blocks that an earlier one left behind."""
        cut = (len(prompt) - 1) // self._block * self._block
        while cut and tuple(prompt[:cut]) not in self._cached:
            cut -= self._block
        return cut

    def remember(self, prompt: list[int]) -> None:
        self._cached |= {tuple(prompt[:cut]) for cut in range(self._block, len(prompt), self._block)}
        if "DOUBLE_NO_STATISTICS" not in os.environ:
            free = BLOCKS - len(self._cached)
            found = {"maxNumBlocks": BLOCKS, "freeNumBlocks": free, "tokensPerBlock": self._block}
            self._steps.append({"kvCacheStats": found})

    @staticmethod
    def journal(entry: dict[str, Any]) -> None:
        if "DOUBLE_JOURNAL" in os.environ:
            with Path(os.environ["DOUBLE_JOURNAL"]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
