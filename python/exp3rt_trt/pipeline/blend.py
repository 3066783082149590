"""How much the collaborative filter counts, and how much the student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.checks import check_whole
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
            cf_scores: one array [num_candidates] a user; finite.
            expected_ratings: likewise. Leave out the candidates that could not be rated.
            relevances: likewise; at least 0, and 0 for what is not relevant. A user without a relevant
                candidate says nothing and is left out.
            k: where the lists are cut.

        Returns:
            The blend; of equal weights the one nearest to CF alone.

        Raises:
            InvalidInputError: if the arrays do not fit together, a value cannot be used, or no user has a
                relevant candidate.
        """
        check_whole("k", k, 1)
        if not len(cf_scores) == len(expected_ratings) == len(relevances):
            raise InvalidInputError("cf_scores, expected_ratings and relevances must be of as many users")
        users = []
        for number, lists in enumerate(zip(cf_scores, expected_ratings, relevances, strict=True)):
            names = (f"{name}[{number}]" for name in ("cf_scores", "expected_ratings", "relevances"))
            cf, rating, relevance = _fitting(dict(zip(names, lists, strict=True)))
            if (relevance < 0).any():
                place = int(np.argmax(relevance < 0))
                value = relevance[place]
                raise InvalidInputError(f"relevances[{number}][{place}] must be at least 0, not {value}")
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
            cf_scores: [num_candidates]; finite.
            expected_ratings: [num_candidates]; leave out the candidates that could not be rated.

        Returns:
            Scores, float64 [num_candidates], of mean 0; comparable within this list only.

        Raises:
            InvalidInputError: if the two do not fit together, or naming the value that is not finite.
        """
        cf, rating = _fitting({"cf_scores": cf_scores, "expected_ratings": expected_ratings})
        return (1 - self.weight) * _standardised(cf) + self.weight * _standardised(rating)


def _fitting(lists: dict[str, ArrayLike]) -> list[NDArray[np.float64]]:
    """The lists of one user's candidates as arrays of one length, finite, by their names."""
    arrays = [_array(name, values) for name, values in lists.items()]
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise InvalidInputError(f"{', '.join(lists)} must all be [num_candidates], not {shapes}")
    for name, array in zip(lists, arrays, strict=True):
        faulty = np.flatnonzero(~np.isfinite(array))
        if faulty.size:
            raise InvalidInputError(f"{name}[{faulty[0]}] must be finite, not {array[faulty[0]]}")
    return arrays


def _array(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name} must be numbers, [num_candidates]: {error}") from error


def _standardised(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """To mean 0 and deviation 1; a list of equals says nothing, and is all 0."""
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
