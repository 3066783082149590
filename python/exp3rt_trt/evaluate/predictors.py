"""Methods that predict ratings: each is a function from rows to predictions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from exp3rt_trt.errors import Exp3rtError, InvalidInputError
from exp3rt_trt.pipeline.calibration import Calibration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.inputs import UserProfile
    from exp3rt_trt.prompts import Mode
    from exp3rt_trt.reranker import Reranker
    from exp3rt_trt.results import RankedResults


@dataclass(frozen=True)
class Failure:
    """Why a row has no prediction: a short status, and words."""

    status: str
    words: str


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a method says of some rows.

    Args:
        ratings: float64 [num_rows]; NaN where there is none.
        failures: of the rows without a rating, by the row's number.
        reasonings: [num_rows], if the method writes any.
    """

    ratings: NDArray[np.float64]
    failures: Mapping[int, Failure] = field(default_factory=dict)
    reasonings: Sequence[str | None] | None = None

    @property
    def rated(self) -> NDArray[np.bool_]:
        """Which rows have a rating, [num_rows]."""
        return np.isfinite(self.ratings)

    def failure_counts(self) -> dict[str, int]:
        """Return how many rows failed, by status; a number that is not finite without words is `failed`."""
        counts = Counter(failure.status for failure in self.failures.values())
        counts["failed"] += int((~self.rated).sum()) - sum(counts.values())
        return {status: count for status, count in sorted(counts.items()) if count}


class Predictor(Protocol):
    """Predicts the ratings of rows without reading `row.rating`."""

    def __call__(self, rows: Sequence[RatingRow], /) -> Predictions:
        """Return predictions in the order of the rows."""


def global_mean(fit: Sequence[RatingRow]) -> Predictor:
    """Return what predicts the mean rating of the fitting rows for every row."""
    mean = float(np.mean([row.rating for row in fit]))
    return lambda rows: Predictions(np.full(len(rows), mean))


def has_averages(rows: Sequence[RatingRow]) -> bool:
    """Return whether any row knows an average rating of its user or item."""
    return bool(np.isfinite(_averages(rows)).any())


def user_item_bias(fit: Sequence[RatingRow]) -> Predictor:
    """Return least squares on a constant, the user's average rating and the item's.

    An average that a row lacks is taken to be the mean of that average over the fitting rows.

    Raises:
        InvalidInputError: if no fitting row has an average.
    """
    averages = _averages(fit)
    if not has_averages(fit):
        raise InvalidInputError(
            "the bias baseline needs [Average Rating] in the profiles of the fitting rows"
        )
    known = ~np.isnan(averages)
    usual = np.array(
        [averages[known[:, side], side].mean() if known[:, side].any() else 0.0 for side in (0, 1)]
    )

    def features(averages: NDArray[np.float64]) -> NDArray[np.float64]:  # [num_rows, 3]
        filled = np.where(np.isnan(averages), usual, averages)
        return np.column_stack([np.ones(len(filled)), filled])

    ratings = np.array([row.rating for row in fit])
    weights = np.linalg.lstsq(features(averages), ratings, rcond=None)[0]
    return lambda rows: Predictions(features(_averages(rows)) @ weights)


def student(
    reranker: Reranker, mode: Mode, progress: Callable[[int, int | None], None] | None = None
) -> Predictor:
    """Return the student's expected rating; in reason mode with its reasoning.

    Args:
        reranker: on the scale of the ratings.
        mode: see `Reranker.rank`.
        progress: see `Reranker.rank_many`.
    """

    def predict(rows: Sequence[RatingRow], /) -> Predictions:
        of_user: dict[UserProfile, list[int]] = {}
        for number, row in enumerate(rows):
            of_user.setdefault(row.user, []).append(number)
        # The row's number stands for the item's id: a user may have rated an item twice.
        jobs = [
            (user, [replace(rows[number].item, item_id=number) for number in numbers])
            for user, numbers in of_user.items()
        ]
        ranked = reranker.rank_many(jobs, mode=mode, progress=progress)
        return _gather(rows, zip(of_user.values(), ranked, strict=True))

    return predict


def calibrated(predictions: Predictions, of_fit: Predictions, fit: Sequence[RatingRow]) -> Predictions:
    """Return predictions that went through an isotonic calibration.

    Args:
        predictions: of any rows.
        of_fit: the same method's predictions of the fitting rows.
        fit: the fitting rows, with the real ratings.

    Raises:
        InvalidInputError: if the method rated fewer than four of the fitting rows.
    """
    ratings = np.array([row.rating for row in fit])
    made = Calibration.fit(of_fit.ratings[of_fit.rated], ratings[of_fit.rated])
    return replace(predictions, ratings=made.apply(predictions.ratings))


def _gather(rows: Sequence[RatingRow], ranked: zip[tuple[list[int], RankedResults]]) -> Predictions:
    ratings = np.full(len(rows), np.nan)
    failures: dict[int, Failure] = {}
    reasonings: list[str | None] = [None] * len(rows)
    for numbers, results in ranked:
        if results.error is not None:
            failures |= {number: _failure(rows[number], "invalid", results.error) for number in numbers}
            continue
        for item in results:
            number = int(item.item_id)  # type: ignore[arg-type]
            if item.expected_rating is None:
                failures[number] = _failure(rows[number], item.status, item.error)
            else:
                ratings[number], reasonings[number] = item.expected_rating, item.reasoning
    return Predictions(ratings, failures, reasonings)


def _failure(row: RatingRow, status: str, words: Exp3rtError | str | None) -> Failure:
    return Failure(status, f"{row.where}: {words}")


def _averages(rows: Sequence[RatingRow]) -> NDArray[np.float64]:  # [num_rows, 2]; NaN where not known
    pairs = [(row.user.average_rating, row.item_average) for row in rows]
    return np.array(pairs, dtype=np.float64).reshape(len(rows), 2)
