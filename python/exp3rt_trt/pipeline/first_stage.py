"""The first stage: which candidates a collaborative filter proposes to a user."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, SupportsIndex

import numpy as np

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from exp3rt_trt.inputs import Id

PADDING = -1


class Candidate(NamedTuple):
    """An item that a first stage proposes, and its score there: higher is better, in any unit."""

    item_id: Id
    score: float


class FirstStage(Protocol):
    """Proposes candidates to users."""

    def candidates(self, user_id: Id, n: int) -> list[Candidate]:
        """Return at most n candidates, best first; none for a user that the stage does not know."""


class ArrayFirstStage:
    """Candidates that RecBole or a model of one's own has computed already.

    Args:
        ids: of the items, int [num_users, n], or names if `item_ids` is left out; each once in a row, but
            for -1, which is padding.
        scores: float [num_users, n]; those of padding are not read.
        user_ids: of the rows; their numbers if left out.
        item_ids: the id of each item number; the numbers themselves if left out.

    Raises:
        InvalidInputError: if the arrays do not fit together, naming the row and column.

    Example:
        >>> stage = ArrayFirstStage([[7, 3, -1]], [[0.9, 0.4, 0.0]])
        >>> stage.candidates(0, 10)
        [Candidate(item_id=7, score=0.9), Candidate(item_id=3, score=0.4)]
    """

    def __init__(
        self,
        ids: ArrayLike,
        scores: ArrayLike,
        *,
        user_ids: Sequence[Id] | None = None,
        item_ids: Sequence[Id] | None = None,
    ) -> None:
        self._ids = _table("ids", ids)
        if self._ids.dtype.kind == "U":
            self._ids = np.asarray(ids, dtype=object)  # keeps the padding beside names a number
        self._scores = _table("scores", scores, np.float64)
        if self._ids.ndim != 2 or self._ids.shape != self._scores.shape:
            raise InvalidInputError(
                f"ids and scores must both be [num_users, n], not {self._ids.shape} and {self._scores.shape}"
            )
        users: Sequence[Id] = range(len(self._ids)) if user_ids is None else user_ids
        if len(users) != len(self._ids):
            raise InvalidInputError(f"user_ids: {len(users)} for {len(self._ids)} rows of ids")
        self._rows = {user_id: row for row, user_id in enumerate(users)}
        if len(self._rows) != len(users):
            raise InvalidInputError("user_ids must differ")
        self._item_ids = item_ids
        self._check(num_items=None if item_ids is None else len(item_ids))
        if item_ids is not None and (again := _repeated(item_ids)) is not None:
            raise InvalidInputError(f"item_ids must differ, but {again!r} is there twice")
        for row, numbers in enumerate(self._ids):
            if (again := _repeated(numbers[numbers != PADDING].tolist())) is not None:
                raise InvalidInputError(f"ids[{row}] has item {self._item_id(again)!r} twice")

    def candidates(self, user_id: Id, n: int) -> list[Candidate]:
        """Return at most n candidates, best first; none for a user without a row."""
        row = self._rows.get(user_id)
        if row is None:
            return []
        found = [
            Candidate(self._item_id(item), score)
            for item, score in zip(self._ids[row].tolist(), self._scores[row].tolist(), strict=True)
            if item != PADDING
        ]
        return sorted(found, key=lambda candidate: -candidate.score)[:n]  # stable

    def _item_id(self, number: Any) -> Id:  # noqa: ANN401  (a name, or a place in item_ids)
        item_id: Id = number if self._item_ids is None else self._item_ids[number]
        return item_id

    def _check(self, num_items: int | None) -> None:
        if self._ids.dtype.kind not in "iu":
            self._check_kinds(names=num_items is None)
        real = self._ids != PADDING
        faulty = real & ~np.isfinite(self._scores)
        if faulty.any():
            row, column = np.argwhere(faulty)[0]
            raise InvalidInputError(f"scores[{row}, {column}] is not finite")
        if num_items is None:
            return
        outside = real & ((self._ids < 0) | (self._ids >= num_items))
        if outside.any():
            row, column = np.argwhere(outside)[0]
            number = self._ids[row, column]
            raise InvalidInputError(f"ids[{row}, {column}] is {number}, and there are {num_items} item_ids")

    def _check_kinds(self, *, names: bool) -> None:
        kinds = (str, SupportsIndex) if names else SupportsIndex
        for row, items in enumerate(self._ids.tolist()):
            for column, item in enumerate(items):
                if not isinstance(item, kinds):
                    wanted = "a whole number or a name" if names else "the place of an item in item_ids"
                    raise InvalidInputError(f"ids[{row}, {column}] must be {wanted}, not {item!r}")


def _table(name: str, values: ArrayLike, dtype: type | None = None) -> NDArray[Any]:
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        words = "with shorter rows filled up" if dtype else f"with shorter rows filled up with {PADDING}"
        raise InvalidInputError(f"{name} must be [num_users, n], {words}: {error}") from error


def _repeated(ids: Sequence[Id]) -> Id | None:
    """An id that is there more than once."""
    if len(set(ids)) == len(ids):
        return None
    return Counter(ids).most_common(1)[0][0]
