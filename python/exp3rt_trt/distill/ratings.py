"""Rating rows: read from JSONL, and split by user."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.rows import RatingRow, without_average
from exp3rt_trt.evaluate.split import split_by_user
from exp3rt_trt.inputs import Item, UserProfile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FIELDS = ("user_id", "item_id", "user_persona", "item_synopsis", "item_description", "score")


class Split(NamedTuple):
    """Rows of disjoint users."""

    train: list[RatingRow]
    validation: list[RatingRow]
    test: list[RatingRow]


def read_ratings(path: Path) -> list[RatingRow]:
    """Read rating rows in the form of the EXP3RT authors' files.

    Args:
        path: JSONL with user_id, item_id, user_persona ([Like], [Dislike], [Average Rating]), item_synopsis
            (the same of an item), item_description and score.

    Returns:
        A row for each line.

    Raises:
        InvalidInputError: naming the line and the field that is missing or has no average rating.
    """
    with path.open(encoding="utf-8") as file:
        lines = [(f"{path}:{number}", line) for number, line in enumerate(file, start=1) if line.strip()]
    rows = []
    for where, line in lines:
        try:
            given = json.loads(line)
        except ValueError as error:
            raise InvalidInputError(f"{where}: {error}") from None
        rows.append(parse_row(given, where))
    return rows


def parse_row(given: object, where: str) -> RatingRow:
    """Return the row that an object of such a file says; `where` names it in messages."""
    if not isinstance(given, dict):
        raise InvalidInputError(f"{where}: not an object")
    missing = [name for name in _FIELDS if name not in given]
    if missing:
        raise InvalidInputError(f"{where}: missing: {', '.join(missing)}")
    texts = {name: str(given[name]) for name in _FIELDS}
    profile, user_average = _cut_average(texts["user_persona"], f"{where}: user_persona")
    _, item_average = _cut_average(texts["item_synopsis"], f"{where}: item_synopsis")
    try:
        rating = float(texts["score"])
    except ValueError:
        raise InvalidInputError(f"{where}: score must be a number, not {texts['score']!r}") from None
    return RatingRow(
        UserProfile(profile, texts["user_id"], user_average),
        Item(texts["item_id"], description=texts["item_description"], profile=texts["item_synopsis"]),
        rating,
        item_average,
    )


def split_rows(rows: Sequence[RatingRow], seed: int, validation_share: float, test_share: float) -> Split:
    """Split rows so that no user is in two parts; a user's part depends on the seed and the id alone.

    Args:
        rows: of any users.
        seed: another seed, another split.
        validation_share: of the users, 0..1.
        test_share: of the users, 0..1.
    """
    shares = (1 - validation_share - test_share, validation_share, test_share)
    return Split(*split_by_user(rows, shares, seed))


def by_user(rows: Sequence[RatingRow]) -> list[list[RatingRow]]:
    """Return the rows of each user, users in order of first appearance."""
    groups: dict[object, list[RatingRow]] = {}
    for row in rows:
        groups.setdefault(row.user.user_id, []).append(row)
    return list(groups.values())


def _cut_average(text: str, where: str) -> tuple[str, float]:
    profile, average = without_average(text)
    if average is None:
        raise InvalidInputError(f"{where}: no [Average Rating] with a number at its end")
    return profile, average
