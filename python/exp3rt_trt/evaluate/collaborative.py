"""Collaborative filtering alone: who interacted with what, and no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.predictors import Failure, Predictions
from exp3rt_trt.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exp3rt_trt.evaluate.predictors import Predictor
    from exp3rt_trt.evaluate.ranking import Ranker
    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.inputs import Id

FACTORS, ITERATIONS, REGULARIZATION = 32, 20, 0.05

Interactions = dict["Id", list["Id"]]


def read_interactions(folder: Path, name: str) -> Interactions:
    """Read who interacted with what, in the layout that LightGCN's data sets have.

    Args:
        folder: with train.txt and test.txt, lines of `user item item ...` in numbers; user_list.txt and
            item_list.txt, if they are there, have lines of `id number` under a heading.
        name: "train.txt" or "test.txt".

    Returns:
        The items of each user, without repetitions, by the ids of the lists.

    Raises:
        InvalidInputError: naming file and line.
    """
    users, items = _ids(folder / "user_list.txt"), _ids(folder / "item_list.txt")
    found: dict[Id, dict[Id, None]] = {}
    for where, (user, *rest) in _lines(folder / name):
        of_user = found.setdefault(_id(users, user, f"{where}: user"), {})
        of_user.update((_id(items, item, f"{where}: item"), None) for item in rest)
    return {user: list(of_user) for user, of_user in found.items()}


@dataclass(frozen=True, eq=False)
class CollaborativeFilter:
    """Factors of users and items; a score is their product.

    Args:
        users: row of each user in its factors.
        items: row of each item in its factors.
        user_factors: float32 [num_users, num_factors].
        item_factors: float32 [num_items, num_factors].
        seen: what each user has interacted with.
    """

    users: Mapping[Id, int]
    items: Mapping[Id, int]
    user_factors: NDArray[np.float32]
    item_factors: NDArray[np.float32]
    seen: Interactions

    def scores(self, user_id: Id, item_ids: Sequence[Id]) -> NDArray[np.float64]:
        """Return scores, float64 [num_items]; NaN for a user or an item without interactions."""
        scores = np.full(len(item_ids), np.nan)
        if user_id in self.users:
            known = [place for place, item in enumerate(item_ids) if item in self.items]
            factors = self.item_factors[[self.items[item_ids[place]] for place in known]]
            scores[known] = factors @ self.user_factors[self.users[user_id]]
        return scores

    def top(self, user_id: Id, count: int) -> list[Id]:
        """Return the best items that the user has not interacted with, best first."""
        ids = [item for item in self.items if item not in set(self.seen.get(user_id, ()))]
        scores = self.scores(user_id, ids)
        return [
            ids[place] for place in np.argsort(-scores, kind="stable")[:count] if np.isfinite(scores[place])
        ]


def fit_als(interactions: Interactions, seed: int) -> CollaborativeFilter:
    """Fit implicit-feedback ALS (Hu, Koren and Volinsky, ICDM 2008) by the library `implicit`.

    Args:
        interactions: to fit on.
        seed: of the first factors; one thread computes, so that the same seed gives the same factors.
    """
    sparse = require("scipy.sparse", "evaluate")
    users = {user: row for row, user in enumerate(interactions)}
    items = {
        item: row for row, item in enumerate(dict.fromkeys(i for each in interactions.values() for i in each))
    }
    pairs = np.array([(users[user], items[item]) for user, each in interactions.items() for item in each])
    ones = np.ones(len(pairs), dtype=np.float32)
    matrix = sparse.csr_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(len(users), len(items)))
    limits = require("threadpoolctl", "pipeline").threadpool_limits
    library = require("implicit.cpu.als", "pipeline")
    with limits(1, "blas"):  # implicit asks for it
        als = library.AlternatingLeastSquares(
            factors=FACTORS,
            iterations=ITERATIONS,
            regularization=REGULARIZATION,
            random_state=seed,
            num_threads=1,
        )
        als.fit(matrix, show_progress=False)
    return CollaborativeFilter(users, items, als.user_factors, als.item_factors, interactions)


def collaborative_rating(model: CollaborativeFilter, fit: Sequence[RatingRow]) -> Predictor:
    """Return what maps the scores of CF to ratings, by a line fitted on rows.

    Raises:
        InvalidInputError: if fewer than two fitting rows have a score.
    """

    def scores(rows: Sequence[RatingRow]) -> NDArray[np.float64]:
        return np.array([model.scores(row.user_id, [row.item.item_id])[0] for row in rows])

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


def collaborative_ranking(model: CollaborativeFilter) -> Ranker:
    """Return what ranks by the scores of CF."""
    return model.scores


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from error
    lines = enumerate(text.splitlines(), start=1)
    return [(f"{path}:{number}", line.split()) for number, line in lines if line.strip()]


def _ids(path: Path) -> dict[str, str] | None:
    """Read a list of ids by number; None if there is no such file."""
    if not path.exists():
        return None
    found = {}
    for where, fields in _lines(path)[1:]:  # below the heading
        if len(fields) != 2:
            raise InvalidInputError(f"{where}: must be an id and a number, not {' '.join(fields)!r}")
        found[fields[1]] = fields[0]
    return found


def _id(ids: Mapping[str, str] | None, number: str, where: str) -> str:
    if ids is not None and number not in ids:
        raise InvalidInputError(f"{where} {number} is not in the list of ids")
    return number if ids is None else ids[number]
