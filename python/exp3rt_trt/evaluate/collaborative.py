"""Collaborative filtering alone: who interacted with what, and no text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.predictors import Failure, Predictions
from exp3rt_trt.pipeline.implicit_stage import ImplicitFirstStage

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from exp3rt_trt.evaluate.interactions import Interactions
    from exp3rt_trt.evaluate.predictors import Predictor
    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.inputs import Id


def fit_als(
    interactions: Interactions, seed: int, eligible: Collection[Id] | None = None
) -> ImplicitFirstStage:
    """Fit implicit-feedback ALS; one thread computes, so that the same seed gives the same factors.

    Args:
        interactions: to fit on.
        seed: of the first factors.
        eligible: the items that may be proposed; None for all.
    """
    pairs = [(user, item) for user, items in interactions.items() for item in items]
    return ImplicitFirstStage(
        pairs, eligible=eligible, seed=seed, factors=32, iterations=20, regularization=0.05, num_threads=1
    )


def collaborative_rating(stage: ImplicitFirstStage, fit: Sequence[RatingRow]) -> Predictor:
    """Return what maps the scores of CF to ratings, by a line fitted on rows.

    Raises:
        InvalidInputError: if fewer than two fitting rows have a score.
    """

    def scores(rows: Sequence[RatingRow]) -> NDArray[np.float64]:
        return np.array([stage.scores(row.user_id, [row.item.item_id])[0] for row in rows])

    x, y = scores(fit), np.array([row.rating for row in fit])
    known = np.isfinite(x)
    if known.sum() < 2:
        raise InvalidInputError("fewer than two fitting rows have a user and an item of the interactions")
    slope, constant = np.linalg.lstsq(
        np.column_stack([x[known], np.ones(known.sum())]), y[known], rcond=None
    )[0]

    def predict(rows: Sequence[RatingRow], /) -> Predictions:
        ratings = slope * scores(rows) + constant
        missing = np.flatnonzero(np.isnan(ratings)).tolist()
        words = "user or item has no interactions"
        failures = {n: Failure("unknown", f"{rows[n].where}: {words}") for n in missing}
        return Predictions(ratings, failures)

    return predict
