"""Groups over TensorRT-LLM's Python LLM API (1.3 and newer, PyTorch backend), in a worker process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass, fields, replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from exp3rt_trt.errors import EngineError
from exp3rt_trt.executors.checks import check_group
from exp3rt_trt.executors.results import CandidateOutcome, GroupOutcome
from exp3rt_trt.stats import RerankerStats

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exp3rt_trt._core import RerankGroup
    from exp3rt_trt.executors import GroupResult

    OnDone = Callable[[GroupResult | None, str | None], None]

_log = logging.getLogger(__name__)
WORKER = "exp3rt_trt.executors.llmapi_worker"
LAST_WORDS = 12  # lines of the worker's stderr that an error quotes
CLOSE_S = 20.0  # how long the worker may take to end by itself
# The label reader must be called in the worker itself; nothing is sent home.
ENVIRONMENT = {"TLLM_WORKER_USE_SINGLE_PROCESS": "1", "TRTLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class LlmApiOptions:
    """What the worker gives to tensorrt_llm.LLM.

    Args:
        checkpoint: a Hugging Face directory.
        vocab_size: of the model.
        dtype: "bf16" or "fp32".
        kv_dtype: of keys and values, as TensorRT-LLM names it; "auto" for the model's.
        max_batch_size: sequences in one step.
        max_num_tokens: tokens in one step; at least max_seq_len, because prompts are not cut into chunks.
        max_seq_len: tokens of a sequence.
        tokens_per_block: of the KV cache.
        kv_memory_fraction: of the GPU's memory beside the weights.
    """

    checkpoint: Path
    vocab_size: int
    dtype: str = "bf16"
    kv_dtype: str = "auto"
    max_batch_size: int = 256
    max_num_tokens: int = 8192
    max_seq_len: int = 2048
    tokens_per_block: int = 32
    kv_memory_fraction: float = 0.85


def worker_settings(options: LlmApiOptions) -> dict[str, Any]:
    """Make the first line that the worker reads."""
    names = ["kv_dtype", "max_batch_size", "max_seq_len", "tokens_per_block", "kv_memory_fraction"]
    return {
        "checkpoint": str(options.checkpoint),
        "dtype": DTYPES[options.dtype],
        "max_num_tokens": max(options.max_num_tokens, options.max_seq_len),
        **{name: getattr(options, name) for name in names},
    }


class LlmApiExecutor:
    """An executor (see `executors.Executor`) whose work another process does.

    Requests and answers are JSON lines in pipes: no pickle, no port. When the worker dies, all who wait get
    an error with its last words.

    Args:
        options: of the worker.

    Raises:
        EngineError: if the worker cannot start or cannot load the model; the message has its last words.
    """

    threads = 0  # of the CPU, for computing

    def __init__(self, options: LlmApiOptions) -> None:
        self._options = options
        self._writing = threading.Lock()  # apart, so that answers are read while a write waits for the worker
        self._lock = threading.Lock()  # of what follows; never held while a callback runs
        self._waiting: dict[int, OnDone] = {}
        self._next_id = 1
        self._end: str | None = None  # why there is no more work
        self._ready = threading.Event()
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._stats = _no_stats(options.tokens_per_block)
        self.isa = "tensorrt_llm"
        self._process = subprocess.Popen(  # noqa: S603  (fixed)
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
        )
        self._readers = [threading.Thread(target=each, daemon=True) for each in (self._read, self._listen)]
        for reader in self._readers:
            reader.start()
        self._send(worker_settings(options))
        self._ready.wait()
        why = self._why()
        if why is not None:
            self.close()
            raise EngineError(f"{options.checkpoint}: {why}")

    def submit(self, group: RerankGroup, on_done: OnDone, /) -> int:
        """Start a group; see `executors.Executor`."""
        check_group(group, self._options.vocab_size, self._options.max_seq_len)
        message = {
            "prefix": group.prefix,
            "suffixes": group.suffixes,
            "label_tokens": group.label_tokens,
            "answer_tokens": group.answer_tokens,
            "max_reasoning_tokens": group.max_reasoning_tokens,
            "end_tokens": group.end_tokens,
            "timeout_s": group.timeout_s,
            "cache_salt": group.cache_salt,
        }
        with self._lock:
            if self._end is not None:
                raise RuntimeError(self._end)
            number = self._next_id
            self._next_id += 1
            self._waiting[number] = on_done
        self._send({"submit": number, "group": message})
        return number

    def cancel(self, group_id: int, /) -> None:
        """Call off what is not finished of a group."""
        self._send({"cancel": group_id})

    def stats(self) -> RerankerStats:
        """Count what was done, as of the last finished group."""
        with self._lock:
            return self._stats

    def close(self) -> None:
        """End the worker; groups without a result get an error. May be called twice."""
        self._finish("the executor was closed")
        self._send({"close": True})
        try:
            self._process.wait(timeout=CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            if reader is not threading.current_thread():
                reader.join()
        with self._writing:
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                with contextlib.suppress(BrokenPipeError):  # what was not sent
                    _pipe(pipe).close()

    def _why(self) -> str | None:
        """Say why there is no more work."""
        with self._lock:
            return self._end

    def _send(self, message: dict[str, Any]) -> None:
        """Write a line; a worker that is gone is noticed by the one who reads from it."""
        pipe = _pipe(self._process.stdin)
        with (
            self._writing,
            contextlib.suppress(BrokenPipeError, ValueError),
        ):  # a ValueError says that the pipe is closed
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()

    def _read(self) -> None:
        """Hand out the worker's answers until there are no more."""
        try:
            for line in _pipe(self._process.stdout):
                self._take(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:  # not the worker's own words
            self._process.kill()
            self._finish(f"an answer of the worker process cannot be read: {error!r}")
        self._readers[1].join()  # the last words
        code = self._process.wait()
        words = "\n".join(self._words)
        self._finish(f"the worker process ended with {code}; its last words:\n{words}")
        self._ready.set()

    def _listen(self) -> None:
        for line in _pipe(self._process.stderr):
            words = line.decode(errors="replace").rstrip()
            self._words.append(words)
            _log.debug("worker %d: %s", self._process.pid, words)

    def _take(self, message: dict[str, Any]) -> None:
        with self._lock:
            if "stats" in message:
                self._stats = replace(self._stats, **message["stats"])
            on_done = self._waiting.pop(message.get("done", message.get("failed", 0)), None)
        if "ready" in message:
            self.isa = f"tensorrt_llm {message['ready']['version']}"
            self._ready.set()
        elif on_done is None:
            pass  # closed in the meantime; it has its error
        elif "failed" in message:
            on_done(None, message["error"])
        else:
            on_done(_outcome(message), None)

    def _finish(self, why: str) -> None:
        """Give an error to all who wait; the first reason stays."""
        with self._lock:
            self._end = self._end or why
            left, self._waiting = self._waiting, {}
        for on_done in left.values():
            on_done(None, why)


def _outcome(message: dict[str, Any]) -> GroupOutcome:
    candidates = [
        CandidateOutcome(each["status"], np.array(each["logits"], np.float32), each["reasoning"])
        for each in message["candidates"]
    ]
    return GroupOutcome(candidates, 0.0, message["compute_s"])


def _no_stats(block_size: int) -> RerankerStats:
    return RerankerStats(**{**{each.name: 0 for each in fields(RerankerStats)}, "block_size": block_size})


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise EngineError("the worker process was started without its pipes")
    return pipe
