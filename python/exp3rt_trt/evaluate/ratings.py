"""How far predicted ratings are from the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.bootstrap import (
    Bootstrap,
    Estimate,
    mean,
    mean_difference,
    root_mean,
    root_mean_difference,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from exp3rt_trt.evaluate.predictors import Predictions
    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.inputs import Id

COLD_BELOW = 5


@dataclass(frozen=True)
class Errors:
    """Root mean squared and mean absolute error over some rows; both NaN without rows."""

    rows: int
    rmse: Estimate
    mae: Estimate


@dataclass(frozen=True)
class RatedMethod:
    """One method's errors.

    Args:
        name: of the method.
        failures: rows without a prediction, by status; no error counts them.
        errors: over the rows that it rated.
        cold: the same for users of whom little was known; None without such rows.
        warm: the same for the others.
        difference: its errors minus the baseline's over the rows that both rated; None for the baseline.
    """

    name: str
    failures: Mapping[str, int]
    errors: Errors
    cold: Errors | None
    warm: Errors | None
    difference: Errors | None


@dataclass(frozen=True)
class RatingTable:
    """All methods on the same rows.

    Args:
        rows: how many were measured.
        users: whose they are.
        cold_below: a user is cold with fewer known ratings than this.
        cold_rows: rows of cold users.
        baseline: name of the method that the others are compared with.
        methods: in the order given.
    """

    rows: int
    users: int
    cold_below: int
    cold_rows: int
    baseline: str
    methods: Sequence[RatedMethod]


def measure_ratings(
    rows: Sequence[RatingRow],
    predictions: Mapping[str, Predictions],
    *,
    baseline: str,
    known: Mapping[Id, Collection[Id]],
    cold_below: int = COLD_BELOW,
    bootstrap: Bootstrap | None = None,
) -> RatingTable:
    """Compare predictions with the ratings of rows.

    Args:
        rows: with the real ratings.
        predictions: of every method, in the order of the rows.
        baseline: the method that the others are compared with.
        known: items of which each user's ratings or interactions were known before.
        cold_below: users with fewer known items are cold.
        bootstrap: of the intervals; None for the default with seed 0.

    Raises:
        InvalidInputError: if there is no such baseline.

    Example:
        >>> table = measure_ratings(rows, {"mean": global_mean(fit)(rows)}, baseline="mean",
        ...                         known={})  # doctest: +SKIP
    """
    if baseline not in predictions:
        raise InvalidInputError(f"no method {baseline!r} to compare with; there are {', '.join(predictions)}")
    measure = _Measure(rows, bootstrap or Bootstrap(seed=0))
    cold = np.array([len(known.get(row.user_id, ())) < cold_below for row in rows])
    against = measure.deviations(predictions[baseline])

    def method(name: str) -> RatedMethod:
        ours = measure.deviations(predictions[name])
        return RatedMethod(
            name=name,
            failures=predictions[name].failure_counts(),
            errors=measure.errors(ours),
            cold=measure.errors(ours, cold) if cold.any() else None,
            warm=measure.errors(ours, ~cold) if not cold.all() else None,
            difference=None if name == baseline else measure.difference(ours, against),
        )

    methods = [method(name) for name in predictions]
    return RatingTable(len(rows), len(set(measure.users)), cold_below, int(cold.sum()), baseline, methods)


class _Measure:
    """Errors of any predictions over the same rows."""

    def __init__(self, rows: Sequence[RatingRow], bootstrap: Bootstrap) -> None:
        self.users = [row.user_id for row in rows]
        self._ratings = np.array([row.rating for row in rows])
        self._bootstrap = bootstrap

    def deviations(self, predictions: Predictions) -> NDArray[np.float64]:
        """Return predicted minus real ratings, [num_rows]; NaN where there is no prediction."""
        return np.where(predictions.rated, predictions.ratings - self._ratings, np.nan)

    def errors(self, of: NDArray[np.float64], among: NDArray[np.bool_] | None = None) -> Errors:
        kept = np.isfinite(of) if among is None else np.isfinite(of) & among
        users, of = self._users(kept), of[kept]
        return Errors(
            len(of),
            self._bootstrap.estimate(root_mean, users, of**2),
            self._bootstrap.estimate(mean, users, np.abs(of)),
        )

    def difference(self, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Errors:
        kept = np.isfinite(ours) & np.isfinite(theirs)
        users, ours, theirs = self._users(kept), ours[kept], theirs[kept]
        return Errors(
            len(ours),
            self._bootstrap.estimate(root_mean_difference, users, ours**2, theirs**2),
            self._bootstrap.estimate(mean_difference, users, np.abs(ours), np.abs(theirs)),
        )

    def _users(self, kept: NDArray[np.bool_]) -> list[Id]:
        return [user for user, keep in zip(self.users, kept, strict=True) if keep]
