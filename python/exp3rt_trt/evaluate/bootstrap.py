"""Confidence intervals by the bootstrap, with users as the units that are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from exp3rt_trt.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its confidence interval; None for both where fewer than two users were seen."""

    value: float
    low: float | None = None
    high: float | None = None

    def excludes_zero(self) -> bool:
        """Return whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


# A number made of sums over users, [..., num_users] each; it takes `axis`, the one to sum along.
Statistic: TypeAlias = "Callable[..., Any]"


def mean(total: NDArray[np.float64], count: NDArray[np.float64], axis: int = -1) -> Any:  # noqa: ANN401
    """Return sum / count."""
    return total.sum(axis) / count.sum(axis)


def root_mean(total: NDArray[np.float64], count: NDArray[np.float64], axis: int = -1) -> Any:  # noqa: ANN401
    """Return sqrt(sum / count)."""
    return np.sqrt(mean(total, count, axis=axis))


def mean_difference(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], count: NDArray[np.float64], axis: int = -1
) -> Any:  # noqa: ANN401
    """Return the difference of two means over the same rows."""
    return mean(ours, count, axis=axis) - mean(theirs, count, axis=axis)


def root_mean_difference(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], count: NDArray[np.float64], axis: int = -1
) -> Any:  # noqa: ANN401
    """Return the difference of two root means over the same rows."""
    return root_mean(ours, count, axis=axis) - root_mean(theirs, count, axis=axis)


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals from resampled users.

    Rows of one user are not independent: who rates high does so everywhere. Therefore users are drawn with
    replacement, each with all of its rows (cluster bootstrap: Field and Welsh, "Bootstrapping clustered
    data", JRSS B 69, 2007). A difference is computed anew in every draw, on the same users for both sides.

    Args:
        seed: of the draws.
        resamples: number of draws.
        level: share of intervals that hold the true value.

    Example:
        >>> Bootstrap(seed=0).estimate(mean, ["ann", "ann", "bob"], [1.0, 2.0, 6.0]).value
        3.0
    """

    seed: int
    resamples: int = 2000
    level: float = 0.95

    def estimate(self, statistic: Statistic, users: Sequence[object], *values: ArrayLike) -> Estimate:
        """Estimate a statistic of rows.

        Args:
            statistic: gets the sums of each of `values` over every user, and the number of rows.
            users: of each row, [num_rows].
            values: numbers of each row, [num_rows] each.

        Returns:
            The value, NaN without rows, and its interval.
        """
        if not users:
            return Estimate(math.nan)
        number = {user: place for place, user in enumerate(dict.fromkeys(users))}
        of_row = np.array([number[user] for user in users])
        sums = np.zeros((len(values) + 1, len(number)))
        for row, each in enumerate((*values, np.ones(len(of_row)))):
            np.add.at(sums[row], of_row, np.asarray(each, dtype=np.float64))
        return self.of_sums(statistic, *sums)

    def of_sums(self, statistic: Statistic, *sums: NDArray[np.float64]) -> Estimate:
        """Estimate a statistic of sums over users, [num_users] each.

        The last is what the statistic divides by; users with nothing there are left out.
        """
        kept = sums[-1] > 0
        sums = tuple(each[kept] for each in sums)
        if not kept.any():
            return Estimate(math.nan)
        value = float(statistic(*sums))
        if kept.sum() < 2:
            return Estimate(value)
        interval = (
            require("scipy.stats", "evaluate")
            .bootstrap(
                sums,
                statistic,
                n_resamples=self.resamples,
                batch=max(1, 2_000_000 // len(sums[0])),  # bounds the memory of the draws
                vectorized=True,
                paired=True,
                confidence_level=self.level,
                method="percentile",
                rng=np.random.default_rng(self.seed),
            )
            .confidence_interval
        )
        return Estimate(value, float(interval.low), float(interval.high))
