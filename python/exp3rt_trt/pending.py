"""Groups that an executor is working on."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from exp3rt_trt.errors import EngineError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from exp3rt_trt._core import RerankGroup
    from exp3rt_trt.executors import Executor, GroupResult

_Input = TypeVar("_Input")
_Output = TypeVar("_Output")
_Done_co = TypeVar("_Done_co", covariant=True)


class Work(Protocol[_Done_co]):
    """What is under way and has an output in the end."""

    @property
    def num_candidates(self) -> int:
        """How many candidates are at work."""

    def done(self) -> bool:
        """Return whether `result` would not wait."""

    def result(self) -> _Done_co:
        """Wait for the output."""

    def cancel(self) -> None:
        """Call off what is not finished."""


class Pending(Generic[_Output]):
    """Submitted groups, and what to make of their results.

    Args:
        executor: gets the groups at once.
        groups: any number, none included.
        finish: makes the output of the results, in the order of the groups; runs in the caller's thread.
        recover: makes the output if there are no results; without it, the error is raised.

    Raises:
        InvalidInputError: if the executor can never run one of them.
        EngineError: if the executor is closed.
    """

    def __init__(
        self,
        executor: Executor,
        groups: Sequence[RerankGroup],
        finish: Callable[[list[GroupResult]], _Output],
        recover: Callable[[EngineError], _Output] | None = None,
    ) -> None:
        self._executor = executor
        self._finish = finish
        self._recover = recover
        self.num_candidates = sum(len(group.suffixes or group.items) for group in groups)
        self._ids: list[int] = []
        self.futures: list[Future[GroupResult]] = []
        try:
            for group in groups:
                self._submit(group)
        except BaseException:
            self.cancel()
            raise

    def done(self) -> bool:
        """Return whether `result` would not wait."""
        return all(future.done() for future in self.futures)

    def result(self) -> _Output:
        """Wait for the output.

        Raises:
            EngineError: if the executor failed or was closed.
        """
        try:
            return self._finish([future.result() for future in self.futures])
        except EngineError as error:
            self.cancel()
            if self._recover is None:
                raise
            return self._recover(error)
        except BaseException:
            self.cancel()
            raise

    async def wait(self) -> _Output:
        """As `result`, without blocking the event loop; if the task is cancelled, so are the groups."""
        try:
            await asyncio.gather(*map(asyncio.wrap_future, self.futures))
        except asyncio.CancelledError:
            self.cancel()
            raise
        except EngineError:
            pass  # `result` tells
        return self.result()

    def cancel(self) -> None:
        """Call off what is not finished; those who wait get results with candidates of status cancelled."""
        for group_id in self._ids:
            self._executor.cancel(group_id)

    def _submit(self, group: RerankGroup) -> None:
        future: Future[GroupResult] = Future()
        future.set_running_or_notify_cancel()  # from now on only the executor ends it

        def on_done(result: GroupResult | None, error: str | None) -> None:
            if result is None:
                future.set_exception(EngineError(error or "the executor gave neither a result nor an error"))
            else:
                future.set_result(result)

        try:
            self._ids.append(self._executor.submit(group, on_done))
        except ValueError as error:
            raise InvalidInputError(str(error)) from error
        except RuntimeError as error:
            raise EngineError(str(error)) from error
        self.futures.append(future)


@dataclass(frozen=True)
class Settled(Generic[_Output]):
    """What needs no work: an output that is there already."""

    output: _Output
    num_candidates = 0

    def done(self) -> bool:
        """Return True."""
        return True

    def result(self) -> _Output:
        """Return the output."""
        return self.output

    def cancel(self) -> None:
        """Do nothing."""


def in_order(
    inputs: Iterable[_Input],
    start: Callable[[_Input], Work[_Output]],
    max_candidates: int,
) -> Iterator[_Output]:
    """Start inputs ahead of the one whose output is waited for, so that they are computed together.

    Args:
        inputs: taken as they are needed.
        start: submits one.
        max_candidates: most candidates at work before another input is taken; two inputs always may be.

    Yields:
        Outputs in the order of the inputs.

    Raises:
        Exception: what `inputs` raised, after the outputs of those before.
    """
    source = iter(inputs)
    ahead: deque[Work[_Output]] = deque()
    fault: Exception | None = None
    exhausted = False
    try:
        while True:
            while not exhausted and not (ahead and ahead[0].done()):
                if len(ahead) >= 2 and sum(pending.num_candidates for pending in ahead) >= max_candidates:
                    break
                try:
                    for taken in source:
                        ahead.append(start(taken))
                        break
                    else:
                        exhausted = True
                except Exception as error:  # raised when those before are out
                    fault, exhausted = error, True
            if not ahead:
                break
            yield ahead[0].result()
            ahead.popleft()
    finally:
        for pending in ahead:
            pending.cancel()
    if fault is not None:
        raise fault
