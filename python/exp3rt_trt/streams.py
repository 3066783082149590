"""A user's candidates as they finish, each by itself."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from exp3rt_trt._core import RerankGroup
from exp3rt_trt.jobs import Job
from exp3rt_trt.results import RankedResults, beyond_top, order_by_rating

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from exp3rt_trt.pending import Pending
    from exp3rt_trt.results import RankedItem

_Part = TypeVar("_Part")


class CandidateStream:
    """Candidates under way; iterate over it for each as it finishes, then ask for the ranking.

    An iteration that ends early calls off what is not finished.

    Args:
        job: the candidates.
        start: submits a job of one candidate.

    Raises:
        InvalidInputError: if the executor can never run one of them.
        EngineError: if the executor is closed.

    Example:
        >>> stream = await reranker.stream(user, candidates, mode="reason")  # doctest: +SKIP
        >>> async for item in stream:  # doctest: +SKIP
        ...     print(item.item_id, item.expected_rating)
        >>> stream.ranking()[0].rank  # doctest: +SKIP
        1
    """

    def __init__(self, job: Job, start: Callable[[Job], Pending[RankedResults]]) -> None:
        self._job = job
        self._parts: list[Pending[RankedResults]] = []
        self._finished: list[RankedResults | None] = []
        try:
            for part in split(job):
                self._parts.append(start(part))
        except BaseException:
            self.cancel()
            raise
        self._finished = [None] * len(self._parts)

    async def __aiter__(self) -> AsyncIterator[RankedItem]:
        """Yield candidates in the order in which they finish; their rank is not known yet.

        Raises:
            EngineError: if the executor failed or was closed.
        """
        done: asyncio.Queue[int] = asyncio.Queue()
        left = 0
        for number, part in enumerate(self._parts):
            if self._finished[number] is None:
                left += 1
                _tell(part, number, done)
        try:
            while left:
                number = await done.get()
                self._finished[number] = results = self._parts[number].result()
                left -= 1
                yield replace(results[0], rank=None)
        finally:
            if left:
                self.cancel()

    def ranking(self) -> RankedResults:
        """Return all candidates in order; before the iteration's end, those that were yielded."""
        finished = [results for results in self._finished if results is not None]
        items = [results[0] for results in finished]
        computed = [results for results in finished if results.compute_s]
        queue_s = min((results.queue_s for results in computed), default=0.0)
        end_s = max((results.queue_s + results.compute_s for results in computed), default=0.0)
        return RankedResults(
            order_by_rating(items, self._job.top_k),
            self._job.user_id,
            queue_s,
            max(end_s - queue_s, 0.0),
            num_reasoned=sum(item.reasoned for item in items),
            beyond=beyond_top(items, self._job.top_k),
        )

    def cancel(self) -> None:
        """Call off what is not finished."""
        for part in self._parts:
            part.cancel()


def _tell(part: Pending[RankedResults], number: int, done: asyncio.Queue[int]) -> None:
    loop = asyncio.get_running_loop()
    if not part.futures:  # nothing to compute
        done.put_nowait(number)

    def on_done(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(done.put_nowait, number)

    for future in part.futures:  # one
        future.add_done_callback(on_done)


def split(job: Job) -> list[Job]:
    """Return a job for each candidate; their groups find the common prefix in the cache."""
    parts: list[Job] = []
    fields = _fields(job.group) if job.group is not None else {}
    suffixes = job.group.suffixes if job.group is not None else []
    items = job.group.items if job.group is not None else []
    stored = job.group.stored if job.group is not None else []
    number = 0
    for slot in job.slots:
        group = None
        if slot.status == "ok":
            group = RerankGroup(
                suffixes=_one(suffixes, number),
                items=_one(items, number),
                stored=_one(stored, number),
                **fields,  # type: ignore[arg-type]
            )
            number += 1
        parts.append(Job(job.user_id, [slot], group, job.mode, None))
    return parts


def _one(parts: Sequence[_Part], number: int) -> Sequence[_Part]:
    return parts[number : number + 1]


def _fields(group: RerankGroup) -> dict[str, object]:
    names = (
        "prefix",
        "label_tokens",
        "answer_tokens",
        "max_reasoning_tokens",
        "end_tokens",
        "timeout_s",
        "reuse_suffixes",
        "cache_salt",
        "item_position",
        "suffix_position",
    )
    return {name: getattr(group, name) for name in names}
