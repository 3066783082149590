"""A student's ratings against the real ones: errors, the bias baseline beside them, and how sure that is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from exp3rt_trt.distill.ratings import by_user
from exp3rt_trt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exp3rt_trt.distill.augment import AverageFit
    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.rating import RatingScale

RESAMPLES = 10_000
NO_POINTS = "[Like]\n- None\n\n[Dislike]\n- None"


def predict(engine: Path, rows: Sequence[RatingRow], scale: RatingScale, threads: int = 0) -> NDArray[Any]:
    """Return the engine's expected ratings of rows in score mode, [num_rows].

    Raises:
        EngineError: naming the row that could not be rated.
    """
    from exp3rt_trt.reranker import Reranker  # noqa: PLC0415

    expected = {}
    with Reranker.from_pretrained(engine, scale=scale, threads=threads) as reranker:
        groups = by_user(rows)
        jobs = [(group[0].user, [row.item for row in group]) for group in groups]
        for group, ranked in zip(groups, reranker.rank_many(jobs, mode="score"), strict=True):
            for item in ranked:
                if item.expected_rating is None:
                    raise EngineError(f"user {group[0].user.user_id!r}, {item.error}")
                expected[group[0].user.user_id, item.item_id] = item.expected_rating
    return np.array([expected[row.user.user_id, row.item.item_id] for row in rows])


def without_texts(rows: Sequence[RatingRow]) -> list[RatingRow]:
    """Return the rows with nothing left but the average ratings: what the profiles' words are worth."""
    return [
        replace(
            row,
            user=replace(row.user, profile=NO_POINTS),
            item=replace(
                row.item,
                description=None,
                profile=f"{NO_POINTS}\n\n[Average Rating]\n{row.item_average:.1f}",
            ),
        )
        for row in rows
    ]


def compare(rows: Sequence[RatingRow], expected: NDArray[Any], fit: AverageFit, seed: int) -> dict[str, Any]:
    """Compare a student with the bias baseline on the same rows.

    Args:
        rows: of users that neither was fitted on.
        expected: the student's ratings, [num_rows].
        fit: the baseline, from the training rows.
        seed: of the bootstrap.

    Returns:
        RMSE and MAE of both, and 95 % intervals of the differences (student minus baseline; below zero
        is better) from a bootstrap of whole users, both measured on the same resampled users.
    """
    actual = np.array([row.rating for row in rows])
    student, baseline = expected - actual, np.array([fit.predict(row) for row in rows]) - actual
    places: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.user.user_id, []).append(place)
    users, random = [np.array(rows_of) for rows_of in places.values()], np.random.default_rng(seed)
    differences = np.array(
        [_differences(student, baseline, users, random) for _ in range(RESAMPLES)]
    )  # [resamples, 2]
    low, high = np.percentile(differences, [2.5, 97.5], axis=0)
    return {
        "rows": len(rows),
        "users": len(users),
        "student": {"rmse": rmse(student), "mae": mae(student)},
        "baseline": {"rmse": rmse(baseline), "mae": mae(baseline)},
        "difference": {
            "rmse": [rmse(student) - rmse(baseline), float(low[0]), float(high[0])],
            "mae": [mae(student) - mae(baseline), float(low[1]), float(high[1])],
        },
    }


def rmse(difference: NDArray[Any]) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt((difference**2).mean()))


def mae(difference: NDArray[Any]) -> float:
    """Return the mean of the absolute values."""
    return float(np.abs(difference).mean())


def _differences(
    student: NDArray[Any], baseline: NDArray[Any], users: list[NDArray[Any]], random: np.random.Generator
) -> tuple[float, float]:
    drawn = np.concatenate([users[i] for i in random.integers(len(users), size=len(users))])
    ours, theirs = student[drawn], baseline[drawn]
    return rmse(ours) - rmse(theirs), mae(ours) - mae(theirs)
