"""How much the collaborative filter counts, and how much the student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

STEPS = 20  # of the grid


@dataclass(frozen=True)
class Blend:
    """A weighted mean of CF score and expected rating, each standardised within the user's list.

    Args:
        weight: of the expected rating, 0 (CF alone) to 1 (the student alone). Fit it; do not guess it.

    Raises:
        InvalidInputError: if the weight is outside.

    Example:
        >>> Blend(0.5).scores([3.0, 1.0], [2.0, 4.0]).tolist()
        [0.0, 0.0]
    """

    weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InvalidInputError(f"weight must be between 0 and 1, not {self.weight}")

    @classmethod
    def fit(
        cls,
        cf_scores: Sequence[ArrayLike],
        expected_ratings: Sequence[ArrayLike],
        relevances: Sequence[ArrayLike],
        *,
        k: int = 10,
    ) -> Blend:
        """Take the weight of the best mean NDCG@k on validation users, from a grid of steps of 0.05.

        Args:
            cf_scores: one array [num_candidates] a user.
            expected_ratings: likewise.
            relevances: likewise; at least 0, and 0 for what is not relevant. A user without a relevant
                candidate says nothing and is left out.
            k: where the lists are cut.

        Returns:
            The blend; of equal weights the one nearest to CF alone.

        Raises:
            InvalidInputError: if the arrays do not fit together, or no user has a relevant candidate.
        """
        if not len(cf_scores) == len(expected_ratings) == len(relevances):
            raise InvalidInputError("cf_scores, expected_ratings and relevances must be of as many users")
        users = []
        for number, lists in enumerate(zip(cf_scores, expected_ratings, relevances, strict=True)):
            cf, rating, relevance = (np.asarray(values, dtype=np.float64) for values in lists)
            if not cf.shape == rating.shape == relevance.shape or cf.ndim != 1:
                raise InvalidInputError(
                    f"user {number}: {cf.shape}, {rating.shape} and {relevance.shape} differ"
                )
            if relevance.any():
                users.append((cf, rating, relevance))
        if not users:
            raise InvalidInputError("relevances: no user has a relevant candidate")
        grid = [cls(step / STEPS) for step in range(STEPS + 1)]
        values = [np.mean([_ndcg(b.scores(cf, r), rel, k) for cf, r, rel in users]) for b in grid]
        return grid[int(np.argmax(values))]

    def scores(self, cf_scores: ArrayLike, expected_ratings: ArrayLike) -> NDArray[np.float64]:
        """Return the blended scores of one user's candidates.

        Args:
            cf_scores: [num_candidates].
            expected_ratings: [num_candidates].

        Returns:
            Scores, float64 [num_candidates], of mean 0; comparable within this list only.
        """
        cf, rating = _standardised(cf_scores), _standardised(expected_ratings)
        return (1 - self.weight) * cf + self.weight * rating


def _standardised(values: ArrayLike) -> NDArray[np.float64]:
    """To mean 0 and deviation 1; a list of equals says nothing, and is all 0."""
    v = np.asarray(values, dtype=np.float64)
    if v.size == 0:
        return v
    spread = v.std()
    centred: NDArray[np.float64] = v - v.mean()
    return centred / spread if spread > 1e-12 * max(1.0, float(np.abs(v).max())) else np.zeros_like(v)


def _ndcg(scores: NDArray[np.float64], relevance: NDArray[np.float64], k: int) -> float:
    """Järvelin and Kekäläinen (2002), with linear gain; equal scores in the list's own order."""
    discounts = 1 / np.log2(np.arange(2, min(k, len(scores)) + 2))
    order = np.argsort(-scores, kind="stable")[:k]
    best = np.sort(relevance)[::-1][:k]
    return float((relevance[order] @ discounts) / (best @ discounts))
