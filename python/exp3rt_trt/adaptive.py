"""Adaptive ranking: score all candidates, then reason for those that can still be among the best."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.errors import EngineError
from exp3rt_trt.rating import expected_rating
from exp3rt_trt.results import RankedResults, beyond_top, order_by_rating

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from exp3rt_trt.pending import Pending
    from exp3rt_trt.rating import RatingScale
    from exp3rt_trt.results import RankedItem


def can_enter(
    probabilities: ArrayLike, values: Sequence[float], top_k: int, uncertainty: float
) -> NDArray[np.bool_]:
    """Say which candidates can still be among the best when they are rated better.

    Each rating is taken to lie within `uncertainty` standard deviations of its label distribution around the
    expected rating. A candidate is out when k others are better even at the lower ends of theirs: the rule by
    which arms are rejected in the identification of the k best (Kalyanakrishnan et al., 2012, LUCB).

    Args:
        probabilities: of the labels, [num_candidates, num_labels].
        values: the rating of each label, [num_labels].
        top_k: how many are the best.
        uncertainty: half the width of the interval, in standard deviations.

    Returns:
        For each candidate whether it can, [num_candidates]; at least top_k can, if there are so many.
    """
    mean = expected_rating(probabilities, values)
    mean_square = expected_rating(probabilities, np.square(values))
    width = uncertainty * np.sqrt(np.maximum(mean_square - mean**2, 0.0))
    if top_k >= len(mean):
        return np.ones(len(mean), dtype=np.bool_)
    threshold = np.sort(mean - width)[-top_k]
    entering: NDArray[np.bool_] = mean + width >= threshold
    return entering


class AdaptivePending:
    """A job that is scored, then reasoned for in part; stands where a `Pending` does.

    The second stage is submitted as soon as the first is there, from the executor's thread, so that it finds
    what the scoring left in the cache, and runs beside other users' work.

    Args:
        score: the first stage.
        reason: submits the second, given the scored candidates; None if none is to be reasoned.
        top_k: how many rated candidates to return.
        recover: makes the ranking if the executor fails; without it, the error is raised.
    """

    def __init__(
        self,
        score: Pending[RankedResults],
        reason: Callable[[RankedResults], Pending[RankedResults] | None],
        top_k: int | None,
        recover: Callable[[EngineError], RankedResults] | None,
    ) -> None:
        self.num_candidates = score.num_candidates
        self._score = score
        self._reason = reason
        self._top_k = top_k
        self._recover = recover
        self._lock = threading.Lock()
        self._cancelled = False
        self._second: Future[Pending[RankedResults] | None] = Future()
        if not score.futures:
            self._go_on(None)
        for future in score.futures:  # one
            future.add_done_callback(self._go_on)

    def done(self) -> bool:
        """Return whether `result` would not wait."""
        if not self._second.done():
            return False
        second = None if self._second.exception() else self._second.result()
        return second is None or second.done()

    def result(self) -> RankedResults:
        """Wait for the ranking.

        Raises:
            EngineError: if the executor failed or was closed.
        """
        try:
            second = self._second.result()
            reasoned = second.result() if second is not None else None
            return merged(self._score.result(), reasoned, self._top_k)
        except EngineError as error:
            self.cancel()
            if self._recover is None:
                raise
            return self._recover(error)
        except BaseException:
            self.cancel()
            raise

    async def wait(self) -> RankedResults:
        """As `result`, without blocking the event loop; if the task is cancelled, so are the groups."""
        try:
            second = await asyncio.shield(asyncio.wrap_future(self._second))
            if second is not None:
                await second.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        except EngineError:
            pass  # `result` tells
        return self.result()

    def cancel(self) -> None:
        """Call off what is not finished."""
        with self._lock:
            self._cancelled = True
        self._score.cancel()
        if self._second.done() and not self._second.exception():
            second = self._second.result()
            if second is not None:
                second.cancel()

    def _go_on(self, _: object) -> None:
        try:
            with self._lock:
                second = None if self._cancelled else self._reason(self._score.result())
                self._second.set_result(second)
        except BaseException as error:  # for whoever waits: nobody hears it in the executor's thread
            self._second.set_exception(error)


def contenders(scored: RankedResults, scale: RatingScale, top_k: int, uncertainty: float) -> list[RankedItem]:
    """Return the scored candidates that are worth reasoning for; see `can_enter`."""
    rated = [item for item in scored if item.probabilities is not None]
    if not rated:
        return []
    entering = can_enter([item.probabilities for item in rated], scale.values, top_k, uncertainty)  # type: ignore[arg-type]
    return [item for item, enters in zip(rated, entering, strict=True) if enters]


def merged(scored: RankedResults, reasoned: RankedResults | None, top_k: int | None) -> RankedResults:
    """Put both stages together: each candidate by its last rating, reasoned or scored.

    The two are ratings on one scale and are compared as they are. A candidate whose reasoning did not come to
    an end (too long, cancelled, expired) keeps the rating of its score.
    """
    last = {r.item_id: r for r in reasoned or () if r.status == "ok"}
    items = [
        replace(last[r.item_id], item=r.item) if r.item_id in last and r.status == "ok" else r for r in scored
    ]
    queue_s, compute_s = scored.queue_s, scored.compute_s
    if reasoned is not None:
        queue_s, compute_s = queue_s + reasoned.queue_s, compute_s + reasoned.compute_s
    return RankedResults(
        order_by_rating(items, top_k),
        scored.user_id,
        queue_s,
        compute_s,
        num_reasoned=len(last),
        beyond=beyond_top(items, top_k),
    )
