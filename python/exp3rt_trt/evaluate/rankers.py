"""Methods that rank: each is a function from a user and item ids to scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np

from exp3rt_trt.evaluate.ranking import K
from exp3rt_trt.pipeline.blend import Blend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from exp3rt_trt.evaluate.ranking import CandidateList, ListScores
    from exp3rt_trt.evaluate.texts import Texts
    from exp3rt_trt.inputs import Id
    from exp3rt_trt.prompts import RankingMode
    from exp3rt_trt.reranker import Reranker


class Ranker(Protocol):
    """Scores a user's candidates."""

    def __call__(self, user_id: Id, item_ids: Sequence[Id], /) -> NDArray[np.float64]:
        """Return scores, [num_items], the best item's highest; NaN where there is none."""


class StudentRanking:
    """Ranks by the student's expected rating.

    Args:
        reranker: on the scale of the ratings.
        texts: of users and items; without a user's profile or any text of an item there is no score.
        mode: see `Reranker.rank`; "adaptive" reasons for what can be among the first ten.
        progress: called after each list.
    """

    def __init__(
        self, reranker: Reranker, texts: Texts, mode: RankingMode, progress: Callable[[], None] | None = None
    ) -> None:
        self._reranker = reranker
        self._texts = texts
        self._mode = mode
        self._progress = progress
        self.num_reasoned = 0  # candidates, over all lists

    def __call__(self, user_id: Id, item_ids: Sequence[Id], /) -> NDArray[np.float64]:
        """Return scores, [num_items]."""
        user = self._texts.user_profile(user_id)
        items = [item for item in map(self._texts.item, item_ids) if item is not None]
        scores: dict[Id, float | None] = {}
        if user is not None and user.profile and items:
            ranked = self._reranker.rank(user, items, mode=self._mode, top_k=K)
            scores = {item.item_id: item.expected_rating for item in (*ranked, *ranked.beyond)}
            self.num_reasoned += ranked.num_reasoned
        if self._progress is not None:
            self._progress()
        found = [scores.get(item) for item in item_ids]
        return np.array([math.nan if score is None else score for score in found])


def score_lists(lists: Sequence[CandidateList], ranker: Ranker) -> ListScores:
    """Return a ranker's scores of the candidates of every list, [num_candidates] each."""
    return [ranker(each.user_id, each.item_ids) for each in lists]


def fit_blend(lists: Sequence[CandidateList], cf: ListScores, student: ListScores) -> Blend:
    """Fit the weight of a blend on validation users: those whose rankings are not measured.

    Raises:
        InvalidInputError: if no list has a right item.
    """
    relevances = [[item in each.positives for item in each.item_ids] for each in lists]
    known = [np.isfinite(scores) for scores in student]
    cf, student, right = (
        [np.asarray(values)[kept] for values, kept in zip(lists_of, known, strict=True)]
        for lists_of in (cf, student, relevances)
    )
    return Blend.fit(cf, student, right, k=K)


def blended(blend: Blend, cf: ListScores, student: ListScores) -> ListScores:
    """Return the blend's scores; a candidate that the student did not score has none, as in a Pipeline."""
    found = []
    for by_cf, by_student in zip(cf, student, strict=True):
        known = np.isfinite(by_student)
        scores = np.full(len(by_student), np.nan)
        scores[known] = blend.scores(by_cf[known], by_student[known])
        found.append(scores)
    return found
