"""The Pipeline: a user's id in, explained recommendations out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.checks import check_whole
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.pipeline.calibration import Calibration
from exp3rt_trt.pipeline.recommendations import Recommendations, RecommendedItem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from exp3rt_trt.inputs import Id, Item, UserProfile
    from exp3rt_trt.pipeline.blend import Blend
    from exp3rt_trt.pipeline.first_stage import Candidate, FirstStage
    from exp3rt_trt.pipeline.recommendations import RecommendedStatus
    from exp3rt_trt.profile_source import ProfileSource
    from exp3rt_trt.prompts import RankingMode
    from exp3rt_trt.reranker import Reranker
    from exp3rt_trt.results import RankedItem, RankedResults


@dataclass(frozen=True)
class _Request:
    """One user's way through the stages."""

    user_id: Id
    proposed: list[Candidate]
    profile: UserProfile | None
    items: dict[Id, Item]  # of the proposed, those with text


class Pipeline:
    """Recommends in stages: the first proposes candidates, the student rates them (EXP3RT, step 3).

    The calibration that lies beside the reranker's engine is used; without one, ratings are marked so.

    Args:
        first_stage: a collaborative filter.
        reranker: the student.
        profiles: texts of users and items by id.
        blend: how CF score and rating make the order, fitted on validation data; None orders by rating.

    Raises:
        EngineError: if the calibration beside the engine is damaged, or another engine's or scale's.

    Example:
        >>> pipeline = Pipeline(first_stage, reranker, profiles)  # doctest: +SKIP
        >>> for r in pipeline.recommend("ann", k=5, mode="adaptive"):  # doctest: +SKIP
        ...     print(r.rank, r.title, r.rating, r.reasoning)
    """

    def __init__(
        self,
        first_stage: FirstStage,
        reranker: Reranker,
        profiles: ProfileSource,
        *,
        blend: Blend | None = None,
    ) -> None:
        self._first_stage = first_stage
        self._reranker = reranker
        self._profiles = profiles
        self._blend = blend
        self._calibration = Calibration.load(reranker.engine.path, reranker.scale)

    def recommend(
        self, user_id: Id, k: int = 10, n_candidates: int = 100, mode: RankingMode = "score"
    ) -> Recommendations:
        """Recommend items to a user.

        Args:
            user_id: known to the first stage and to the profiles.
            k: how many items.
            n_candidates: how many the first stage is asked for; at least k.
            mode: see `Reranker.rank`. "adaptive" reasons for those that can be among the k best by rating;
                a blend may then bring up one that was only scored.

        Returns:
            At most k items, best first. A user without a profile gets them in CF order, and an item without
            text stands behind those that were rated; each says so in its status.

        Raises:
            InvalidInputError: naming the option or the profile's field that cannot be used.
            EngineError: if the executor failed, or the Reranker is closed.
        """
        (recommendations,) = self.recommend_many([user_id], k, n_candidates, mode)
        if recommendations.error is not None:
            raise recommendations.error
        return recommendations

    def recommend_many(
        self, user_ids: Iterable[Id], k: int = 10, n_candidates: int = 100, mode: RankingMode = "score"
    ) -> Iterator[Recommendations]:
        """Recommend items to many users, computed together; arguments as for `recommend`.

        Yields:
            Recommendations in the order of the users, who are taken as they are needed. A user for whom the
            student failed has them with an `error`.

        Raises:
            InvalidInputError: naming the option that cannot be used.
        """
        check_whole("k", k, 1)
        check_whole("n_candidates", n_candidates, 1)
        if k > n_candidates:
            raise InvalidInputError(f"k must be between 1 and n_candidates ({n_candidates}), not {k}")
        ahead: deque[_Request] = deque()

        def jobs() -> Iterator[tuple[UserProfile | str, list[Item]]]:
            for user_id in user_ids:
                request = self._request(user_id, n_candidates)
                ahead.append(request)
                # One without a profile is a job without candidates, which costs nothing and keeps the order.
                yield request.profile or "none", list(request.items.values())

        for results in self._reranker.rank_many(jobs(), mode=mode, top_k=k):
            yield self._recommendations(ahead.popleft(), results, k)

    def _request(self, user_id: Id, n_candidates: int) -> _Request:
        proposed = self._first_stage.candidates(user_id, n_candidates)
        profile = self._profiles.user_profile(user_id)
        items: dict[Id, Item] = {}
        for candidate in proposed if profile is not None else ():
            item = self._profiles.item(candidate.item_id)
            if item is not None:
                items[candidate.item_id] = replace(item, item_id=candidate.item_id)
        return _Request(user_id, proposed, profile, items)

    def _recommendations(self, request: _Request, results: RankedResults, k: int) -> Recommendations:
        total = len(request.proposed)
        if results.error is not None:
            return Recommendations((), request.user_id, total, error=results.error)
        rated = {r.item_id: r for r in (*results, *results.beyond)}
        items = [
            self._item(request, candidate, rated.get(candidate.item_id)) for candidate in request.proposed
        ]
        ok = [item for item in items if item.status == "ok"]
        others = [item for item in items if item.status != "ok"]
        ordered = [*self._in_order(ok), *others][:k]
        ranked = tuple(replace(item, rank=rank) for rank, item in enumerate(ordered, start=1))
        return Recommendations(ranked, request.user_id, total, results.num_reasoned)

    def _item(self, request: _Request, candidate: Candidate, rated: RankedItem | None) -> RecommendedItem:
        item_id, score = candidate
        if rated is None:
            status, error = _why_unrated(request, item_id)
            return RecommendedItem(0, item_id, None, score, status=status, error=error)
        rating = rated.expected_rating
        if rating is not None and self._calibration is not None:
            rating = float(self._calibration.apply(rating))
        return RecommendedItem(
            rank=0,
            item_id=item_id,
            title=rated.title,
            cf_score=score,
            expected_rating=rated.expected_rating,
            rating=rating,
            calibrated=rating is not None and self._calibration is not None,
            reasoning=rated.reasoning,
            status=rated.status,
            error=rated.error,
        )

    def _in_order(self, items: list[RecommendedItem]) -> list[RecommendedItem]:
        ratings = [item.expected_rating or 0.0 for item in items]
        if self._blend is None:
            return [items[n] for n in np.argsort(-np.array(ratings), kind="stable")]
        scores = self._blend.scores([item.cf_score for item in items], ratings)
        blended = [replace(item, blend_score=float(s)) for item, s in zip(items, scores, strict=True)]
        return [blended[n] for n in np.argsort(-scores, kind="stable")]


def _why_unrated(request: _Request, item_id: Id) -> tuple[RecommendedStatus, str]:
    if request.profile is None:
        return "no_profile", f"user {request.user_id!r} has no profile; in the order of the first stage"
    return "no_text", f"item {item_id!r} has no text; in the order of the first stage, behind what was rated"
