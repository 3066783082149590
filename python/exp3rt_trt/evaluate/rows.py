"""Rating rows: what a user gave an item, and the texts that were known before."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.inputs import Item, UserProfile
from exp3rt_trt.jsonl import Line, read_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exp3rt_trt.inputs import Id
    from exp3rt_trt.rating import RatingScale

# The names that a field has in files; the first is ours.
NAMES: Mapping[str, tuple[str, ...]] = {
    "user_id": ("user_id",),
    "item_id": ("item_id",),
    "rating": ("rating", "score"),
    "user_profile": ("user_profile", "user_persona"),
    "item_profile": ("item_profile", "item_synopsis"),
    "item_description": ("item_description",),
    "title": ("title",),
}
_AVERAGE = re.compile(r"\s*\[Average Rating\]\s*(\d+(?:\.\d+)?)\s*\Z")


@dataclass(frozen=True)
class RatingRow:
    """One rating, and what the student may know of user and item.

    Args:
        user: with an id; the profile is empty if there is none.
        item: with an id; its profile ends with the average rating, where the file has one.
        rating: what the user gave, on the scale's values.
        item_average: mean of the item's ratings; None if not known.
        where: file and line, for messages.
    """

    user: UserProfile
    item: Item
    rating: float
    item_average: float | None = None
    where: str = ""

    @property
    def user_id(self) -> Id:
        """Return the user's id."""
        assert self.user.user_id is not None  # noqa: S101  (whoever makes a row gives it one)
        return self.user.user_id


@dataclass(frozen=True)
class RatingFile:
    """The usable rows of a file, and in words what is wrong with the others."""

    path: str
    rows: Sequence[RatingRow]
    faults: Sequence[str]


def read_ratings(path: str, scale: RatingScale) -> RatingFile:
    """Read rating rows; a faulty one is told of, and the others are read.

    A line has user_id, item_id and rating (or score: a number, or a string of one), and any of user_profile
    (or user_persona), item_profile (or item_synopsis), item_description and title. A section
    "[Average Rating]" at the end of a profile is read as a number.

    Args:
        path: JSONL.
        scale: a rating outside of its values is a fault.

    Raises:
        InvalidInputError: if the file cannot be read, or has no usable row.

    Example:
        >>> read_ratings("ratings.jsonl", RatingScale.one_to_ten()).rows[0].rating  # doctest: +SKIP
        9.0
    """
    rows, faults = [], []
    for line in read_lines(path):
        try:
            rows.append(_row(line, scale))
        except InvalidInputError as error:  # noqa: PERF203  (a fault stays that of its line)
            faults.append(f"{line.where}: {error}")
    if not rows:
        raise InvalidInputError(
            f"{path}: no usable row" + (f"; the first fault: {faults[0]}" if faults else "")
        )
    return RatingFile(path, rows, faults)


def _row(line: Line, scale: RatingScale) -> RatingRow:
    if line.error is not None:
        raise line.error
    return row_of(line.value, scale, line.where)


def row_of(fields: Mapping[str, Any], scale: RatingScale, where: str = "") -> RatingRow:
    """Return the row that a line's fields describe; see `read_ratings`.

    Raises:
        InvalidInputError: naming the field.
    """
    profile = text_of(fields, "item_profile")
    return RatingRow(
        user=user_of(fields),
        item=item_of(fields),
        rating=_rating(fields, scale),
        item_average=without_average(profile or "")[1],
        where=where,
    )


def user_of(fields: Mapping[str, Any]) -> UserProfile:
    """Return the user of a line; without a text, its profile is empty."""
    profile, average = without_average(text_of(fields, "user_profile") or "")
    return UserProfile(profile, identity_of(fields, "user_id"), average)


def item_of(fields: Mapping[str, Any]) -> Item:
    """Return the item of a line."""
    return Item(
        identity_of(fields, "item_id"),
        title=text_of(fields, "title"),
        description=text_of(fields, "item_description"),
        profile=text_of(fields, "item_profile"),
    )


def without_average(profile: str) -> tuple[str, float | None]:
    """Split a profile into its text and the number under "[Average Rating]" at its end."""
    found = _AVERAGE.search(profile)
    if found is None:
        return profile.strip(), None
    return profile[: found.start()].strip(), float(found[1])


def with_average(profile: str, average: float | None) -> str:
    """Put a profile together from what `without_average` returned."""
    section = "" if average is None else f"[Average Rating]\n{average}"
    return "\n\n".join(part for part in (profile, section) if part)


def text_of(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a text by our name of its field; None if it is missing or empty.

    Raises:
        InvalidInputError: naming the field as it is in the file.
    """
    for key in NAMES[name]:
        value = fields.get(key)
        if value is not None:
            if not isinstance(value, str):
                raise InvalidInputError(f"{key!r} must be a string, not {type(value).__name__}")
            return value.strip() or None
    return None


def identity_of(fields: Mapping[str, Any], name: str) -> Id:
    """Return an id as text, so that 7 in one file is "7" in another.

    Raises:
        InvalidInputError: naming the field.
    """
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InvalidInputError(f"{name!r} must be a string or an integer, not {value!r}")
    return str(value)


def _rating(fields: Mapping[str, Any], scale: RatingScale) -> float:
    key = next((key for key in NAMES["rating"] if fields.get(key) is not None), None)
    if key is None:
        raise InvalidInputError("'rating' is missing")
    try:
        rating = float(fields[key])
    except (TypeError, ValueError):
        raise InvalidInputError(f"{key!r} must be a number, not {fields[key]!r}") from None
    low, high = scale.values[0], scale.values[-1]
    if isinstance(fields[key], bool) or not math.isfinite(rating) or not low <= rating <= high:
        raise InvalidInputError(f"{key!r} must be from {low:g} to {high:g}, not {fields[key]!r}")
    return rating
