"""Files of reviews and of items, with the field names that people have."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.extras import require
from exp3rt_trt.inputs import Item
from exp3rt_trt.jsonl import Line, read_lines

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

# Ours, Amazon 2023 (which has both asins), Amazon 2014; RecBole's atomic files have ours, and movie_title.
NAMES: Mapping[str, tuple[str, ...]] = {
    "user_id": ("user_id", "reviewerID"),
    "item_id": ("item_id", "parent_asin", "asin"),
    "text": ("reviewText", "text", "review"),
    "rating": ("rating", "overall", "score"),
    "helpful": ("helpful_vote", "helpful"),
    "time": ("timestamp", "unixReviewTime"),
    "title": ("title", "name", "movie_title"),
    "description": ("description", "plot"),
}


@dataclass(frozen=True)
class Review:
    """One review; without text it counts for the average ratings only.

    Args:
        user_id: who wrote it.
        item_id: of what.
        text: its words; may be empty.
        rating: None if not known.
        helpful: how many found it helpful.
        time: of writing, in any unit; the newest is the highest.
    """

    user_id: str
    item_id: str
    text: str
    rating: float | None = None
    helpful: float = 0
    time: float = 0


@dataclass(frozen=True)
class ReviewFile:
    """The usable reviews of a file, and in words what is wrong with the other rows."""

    reviews: Sequence[Review]
    faults: Sequence[str]


def read_reviews(path: str | os.PathLike[str], highest_rating: float | None = None) -> ReviewFile:
    """Read .jsonl, .csv, .parquet, or RecBole's .inter.

    Args:
        path: the file.
        highest_rating: of the reviews' scale; a rating outside 1 to this is a fault. None for any rating.

    Raises:
        InvalidInputError: if the file cannot be read, or is of another kind.
        Exp3rtError: for Parquet without the extra `profiles`.
    """
    reviews, faults = [], []
    for row in _rows(path):
        try:
            if row.error is not None:
                raise row.error
            reviews.append(_review(row.value, highest_rating))
        except InvalidInputError as error:  # noqa: PERF203  (of this row alone)
            faults.append(f"{row.where}: {error}")
    return ReviewFile(reviews, faults)


def read_items(path: str | os.PathLike[str]) -> tuple[Sequence[Item], Sequence[str]]:
    """Read titles and descriptions; formats and errors as `read_reviews`, RecBole's .item among them."""
    items, faults = [], []
    for row in _rows(path):
        try:
            if row.error is not None:
                raise row.error
            title, description = (_words(row.value, name) or None for name in ("title", "description"))
            items.append(Item(_identity(row.value, "item_id"), title, description))
        except InvalidInputError as error:  # noqa: PERF203  (of this row alone)
            faults.append(f"{row.where}: {error}")
    return items, faults


def _rows(given: str | os.PathLike[str]) -> Iterator[Line]:
    path = Path(given)
    kind = path.suffix.lower()
    if kind in (".jsonl", ".json"):
        return read_lines(str(path))
    if kind == ".parquet":
        return _parquet(path)
    if kind in (".csv", ".inter", ".item"):
        return _table(path, "," if kind == ".csv" else "\t")
    raise InvalidInputError(f"{path}: unknown kind {kind!r}; known: .jsonl, .csv, .parquet, .inter, .item")


def _table(path: Path, delimiter: str) -> Iterator[Line]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if delimiter == ",":
                reader = csv.reader(file)
            else:  # atomic files do not quote
                reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
            names = [name.partition(":")[0].strip() for name in next(reader, [])]  # atomic: name:type
            for values in reader:
                wrong = len(values) != len(names)
                words = f"{len(values)} fields where the header has {len(names)}"
                error = InvalidInputError(words) if wrong else None
                row = dict(zip(names, values, strict=False))
                yield Line(f"{path}:{reader.line_num}", reader.line_num, row, error)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from error


def _parquet(path: Path) -> Iterator[Line]:
    parquet = require("pyarrow.parquet", "profiles")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InvalidInputError(f"{path}: cannot be read: {error}") from error
    for number, row in enumerate(rows, start=1):
        yield Line(f"{path}:{number}", number, row, None)


def _review(row: Mapping[str, Any], highest_rating: float | None) -> Review:
    rating = _number(row, "rating")
    if rating is not None and highest_rating is not None and not 1 <= rating <= highest_rating:
        raise InvalidInputError(f"rating must be from 1 to {highest_rating:g}, not {rating:g}")
    return Review(
        _identity(row, "user_id"),
        _identity(row, "item_id"),
        _words(row, "text"),
        rating,
        _number(row, "helpful") or 0,
        _number(row, "time") or 0,
    )


def _given(row: Mapping[str, Any], field: str) -> object:
    found = (row[name] for name in NAMES[field] if row.get(name) not in (None, ""))
    return next(found, None)


def _identity(row: Mapping[str, Any], field: str) -> str:
    value = _given(row, field)
    if not isinstance(value, (str, int)):
        raise InvalidInputError(f"{field} is missing (one of {', '.join(NAMES[field])})")
    return str(value)


def _words(row: Mapping[str, Any], field: str) -> str:
    value = _given(row, field)
    if isinstance(value, list):  # Amazon's descriptions
        value = " ".join(map(str, value))
    if value is not None and not isinstance(value, str):
        raise InvalidInputError(f"{field} must be text, not {type(value).__name__}")
    return (value or "").strip()


def _number(row: Mapping[str, Any], field: str) -> float | None:
    value = _given(row, field)
    if isinstance(value, list) and value:  # Amazon 2014: helpful [votes for, votes]
        value = value[0]
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInputError(f"{field} must be a finite number, not {value!r}")
    return number
