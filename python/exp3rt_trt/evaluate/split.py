"""Rows into parts in such a way that no user is in two of them."""

from __future__ import annotations

import hashlib
import itertools
import math
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from exp3rt_trt.inputs import Id

_Row = TypeVar("_Row")


def split_by_user(
    rows: Iterable[_Row],
    fractions: Sequence[float],
    seed: int,
    user_of: Callable[[_Row], Id] = attrgetter("user_id"),
) -> list[list[_Row]]:
    """Split rows by user.

    A user's part depends on the id, the fractions and the seed alone (a hash decides): not on the other
    users, on the rows' order or on the machine. The same user is therefore in the same part of every file,
    and stays there when rows are added. The parts are as large as the fractions say only on average.

    Args:
        rows: of any kind.
        fractions: of the users, one per part; they sum to 1.
        seed: another one gives another split.
        user_of: gives a row's user id.

    Returns:
        One list of rows per fraction, in the rows' order.

    Raises:
        InvalidInputError: if the fractions are not positive or do not sum to 1.

    Example:
        >>> rows = [("ann", 7), ("bob", 5), ("ann", 3)]
        >>> split_by_user(rows, (0.5, 0.5), seed=1, user_of=lambda row: row[0])
        [[('bob', 5)], [('ann', 7), ('ann', 3)]]
    """
    if not fractions or min(fractions) <= 0 or not math.isclose(sum(fractions), 1):
        raise InvalidInputError(f"fractions must be positive and sum to 1, but are {tuple(fractions)}")
    ends = [*itertools.accumulate(fractions[:-1]), math.inf]
    parts: list[list[_Row]] = [[] for _ in fractions]
    for row in rows:
        place = _place(user_of(row), seed)
        parts[next(part for part, end in enumerate(ends) if place < end)].append(row)
    return parts


def in_user_order(
    rows: Iterable[_Row], seed: int, user_of: Callable[[_Row], Id] = attrgetter("user_id")
) -> list[_Row]:
    """Return rows with the users in a random order, each user's rows together; its start is a sample.

    Args:
        rows: of any kind.
        seed: another one gives another order.
        user_of: gives a row's user id.
    """
    return sorted(rows, key=lambda row: (_place(user_of(row), seed), str(user_of(row))))


def _place(user: Id, seed: int) -> float:
    """Give a user's place in [0, 1)."""
    digest = hashlib.sha256(f"{seed}:{user}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
