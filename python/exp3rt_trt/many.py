"""Many users one after another, computed together."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import TYPE_CHECKING, Protocol

from exp3rt_trt.errors import Exp3rtError, InvalidInputError
from exp3rt_trt.inputs import user_id_or_none
from exp3rt_trt.pending import Settled, in_order
from exp3rt_trt.results import RankedResults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exp3rt_trt.adaptive import AdaptivePending
    from exp3rt_trt.errors import EngineError
    from exp3rt_trt.pending import Pending, Work

LOOK_AHEAD = 512  # candidates at work before another user is taken in


class Starter(Protocol):
    """Starts to rank one user's candidates."""

    def __call__(
        self, user: object, candidates: object, recover: Callable[[EngineError], RankedResults]
    ) -> Pending[RankedResults] | AdaptivePending:
        """Submit them; `recover` makes the results if the executor fails."""


def rank_in_order(
    jobs: Iterable[object],
    start: Starter,
    progress: Callable[[int, int | None], None] | None,
) -> Iterator[RankedResults]:
    """Rank many users' candidates.

    Args:
        jobs: pairs of a user and candidates, taken as they are needed.
        start: ranks one.
        progress: called after each with how many are done, and how many there are if that is known.

    Yields:
        Results in the order of the jobs; those of a job that failed have its error.
    """

    def start_job(numbered: tuple[int, object]) -> Work[RankedResults]:
        number, job = numbered
        if not isinstance(job, (tuple, list)) or len(job) != 2:
            words = f"jobs[{number}] must be a pair of user and candidates, not {type(job).__name__}"
            return Settled(RankedResults((), error=InvalidInputError(words)))
        user, candidates = job
        user_id = user_id_or_none(user)
        try:
            return start(user, candidates, lambda error: RankedResults((), user_id, error=error))
        except Exp3rtError as error:
            return Settled(RankedResults((), user_id, error=error))

    if isinstance(jobs, (str, bytes)) or not isinstance(jobs, Iterable):
        raise InvalidInputError(f"jobs must be an iterable of pairs, not {type(jobs).__name__}")
    total = len(jobs) if isinstance(jobs, Sized) else None
    for done, results in enumerate(in_order(enumerate(jobs), start_job, LOOK_AHEAD), start=1):
        if progress is not None:
            progress(done, total)
        yield results
