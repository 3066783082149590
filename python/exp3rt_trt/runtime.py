"""An executor and its life: made for an engine, closed once, never used in a forked child."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import TYPE_CHECKING, TypeVar

from exp3rt_trt.checks import check_whole
from exp3rt_trt.errors import EngineError, InvalidInputError
from exp3rt_trt.executors.choice import CpuOptions, open_executor
from exp3rt_trt.pending import Pending
from exp3rt_trt.stats import RerankerStats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exp3rt_trt._core import RerankGroup
    from exp3rt_trt.engines.engine import Engine
    from exp3rt_trt.executors import Executor, GroupResult

MOST_MIB = 1 << 24  # 16 TiB: what is beyond is a slip
_Output = TypeVar("_Output")
_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


class Runtime:
    """Runs groups on an engine.

    Args:
        engine: an opened engine.
        options: of a CPU engine's executor.

    Raises:
        InvalidInputError: naming the option that is out of range.
        EngineError: if the engine cannot run.
    """

    def __init__(self, engine: Engine, options: CpuOptions) -> None:
        check_whole("threads", options.threads, 0, max(64, 4 * (os.cpu_count() or 1)))
        check_whole("kv_cache_mib", options.kv_cache_mib, 1, MOST_MIB)
        check_whole("max_batch_tokens", options.max_batch_tokens, 0)
        check_whole("item_cache_mib", options.item_cache_mib, 1, MOST_MIB)
        if options.item_kv_dtype not in ("", "int8"):
            raise InvalidInputError(f'item_kv_dtype must be "int8" or "", not {options.item_kv_dtype!r}')
        executor = open_executor(engine, options)
        self.threads = int(getattr(executor, "threads", 0))  # of the CPU
        self.isa = str(getattr(executor, "isa", engine.manifest.target.kind))
        self.item_kv_dtype = options.item_kv_dtype
        self.item_format = str(getattr(executor, "item_format", ""))  # of the CPU
        self._executor: Executor | None = executor
        self._last_stats = executor.stats()
        self._pid = os.getpid()
        _executors.add(executor)
        # Also at the interpreter's exit, while the executor's thread can still call back.
        self._close = weakref.finalize(self, _close, executor, self._pid)

    def start(
        self,
        groups: Sequence[RerankGroup],
        finish: Callable[[list[GroupResult]], _Output],
        recover: Callable[[EngineError], _Output] | None = None,
    ) -> Pending[_Output]:
        """Submit groups; see `Pending`."""
        self.check_process()
        executor = self._executor
        if executor is None:
            raise EngineError("the Reranker is closed")
        return Pending(executor, groups, finish, recover)

    def stats(self) -> RerankerStats:
        """Return the executor's counters; the last ones if it is closed."""
        self.check_process()
        executor = self._executor
        return RerankerStats.of(executor.stats() if executor is not None else self._last_stats)

    def close(self) -> None:
        """End the executor and let go of it; may be called twice."""
        executor, self._executor = self._executor, None
        if executor is not None:
            self._close()
            if os.getpid() == self._pid:
                self._last_stats = executor.stats()

    def check_process(self) -> None:
        """Refuse to be used in a forked process.

        Raises:
            EngineError: in a process other than that of the executor.
        """
        if os.getpid() != self._pid:
            raise EngineError(
                f"this Reranker belongs to process {self._pid}, and its threads do not exist in the forked "
                f"process {os.getpid()}: make a Reranker after the fork, or start processes by spawn"
            )


def _close(executor: Executor, pid: int) -> None:
    if os.getpid() == pid:
        executor.close()


def _keep_in_child() -> None:
    # To destroy an executor is to wait for its thread, which a forked child does not have: it is never
    # destroyed.
    for executor in list(_executors):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(executor))


os.register_at_fork(after_in_child=_keep_in_child)
