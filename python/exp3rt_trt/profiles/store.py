"""What was extracted, in one SQLite file; profiles are summed up from it when they are asked for."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Literal

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.extras import require
from exp3rt_trt.inputs import Item, UserProfile
from exp3rt_trt.profiles.points import Preferences, content_words, merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from exp3rt_trt.inputs import Id
    from exp3rt_trt.profiles.reviews import Review

Choice = Literal["helpful", "similar", "newest"]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS reviews (
    hash TEXT PRIMARY KEY, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    rating REAL, helpful REAL, time REAL);
CREATE INDEX IF NOT EXISTS reviews_user ON reviews (user_id);
CREATE INDEX IF NOT EXISTS reviews_item ON reviews (item_id);
CREATE TABLE IF NOT EXISTS extractions (
    hash TEXT NOT NULL, version TEXT NOT NULL, status TEXT NOT NULL,
    likes TEXT NOT NULL, dislikes TEXT NOT NULL,
    PRIMARY KEY (hash, version));
CREATE TABLE IF NOT EXISTS items (item_id TEXT PRIMARY KEY, title TEXT, description TEXT);
CREATE TABLE IF NOT EXISTS current (one INTEGER PRIMARY KEY CHECK (one = 1), version TEXT NOT NULL);
"""
_COLUMNS = "hash, user_id, item_id, rating, helpful, time, version, status, likes, dislikes"
_EXPORT = f"SELECT {_COLUMNS} FROM reviews JOIN extractions USING (hash)"  # noqa: S608  (constants)
_IMPORT_REVIEW = "INSERT OR IGNORE INTO reviews VALUES (:hash, :user_id, :item_id, :rating, :helpful, :time)"
_IMPORT_EXTRACTION = "INSERT OR IGNORE INTO extractions VALUES (:hash, :version, :status, :likes, :dislikes)"
_ROWS = """
SELECT r.user_id, r.rating, e.likes, e.dislikes
FROM reviews r LEFT JOIN extractions e ON e.hash = r.hash AND e.version = (SELECT version FROM current)
"""


class ProfileStore:
    """Reviews' preferences by review, prompt version and engine; user and item profiles.

    A store is used from one thread; several processes may share the file.

    Args:
        path: the file; made if it is not there.
        choice: which reviews stand behind an item's profile first: "helpful", "newest", or "similar" to the
            user that `item` is asked for.
        max_words: of the points that are taken into an item's profile, over its reviews.

    Raises:
        InvalidInputError: if the file is no store, or an option cannot be used.
    """

    def __init__(self, path: Path, choice: Choice = "helpful", max_words: int = 400) -> None:
        if choice not in ("helpful", "similar", "newest"):
            raise InvalidInputError(f'choice must be "helpful", "similar" or "newest", not {choice!r}')
        self._choice = choice
        self._max_words = max_words
        try:
            self._db = sqlite3.connect(path, timeout=60)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise InvalidInputError(f"{path}: not usable as a store: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add_items(self, items: Iterable[Item]) -> None:
        """Keep titles and descriptions."""
        with self._db:
            rows = ((str(item.item_id), item.title, item.description) for item in items)
            self._db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", rows)

    def add_reviews(self, reviews: Iterable[Review], version: str) -> None:
        """Keep who rated what, and which version of the preferences is read from now on."""
        with self._db:
            rows = ((review_hash(r), r.user_id, r.item_id, r.rating, r.helpful, r.time) for r in reviews)
            self._db.executemany("INSERT OR IGNORE INTO reviews VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("INSERT OR REPLACE INTO current VALUES (1, ?)", (version,))

    def missing(self, reviews: Iterable[Review], version: str) -> list[Review]:
        """Return the reviews without preferences of this version, each once."""
        query = "SELECT hash FROM extractions WHERE version = ?"
        done = {key for (key,) in self._db.execute(query, (version,))}
        return list({review_hash(r): r for r in reviews if review_hash(r) not in done}.values())

    def add_extractions(self, rows: Sequence[tuple[Review, str, Preferences]], version: str) -> None:
        """Keep the status and the preferences of reviews, all or none of them."""
        values = [
            (review_hash(r), version, status, json.dumps(found.likes), json.dumps(found.dislikes))
            for r, status, found in rows
        ]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO extractions VALUES (?, ?, ?, ?, ?)", values)

    def export_parquet(self, path: Path) -> None:
        """Write all extractions with their reviews' ids, ratings and versions.

        Raises:
            Exp3rtError: without the extra `profiles`.
        """
        pyarrow, parquet = require("pyarrow", "profiles"), require("pyarrow.parquet", "profiles")
        with closing(self._db.execute(_EXPORT)) as rows:
            columns = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS.split(","))
        parquet.write_table(pyarrow.table(dict(zip(_COLUMNS.split(", "), columns, strict=True))), path)

    def import_parquet(self, path: Path) -> None:
        """Add what `export_parquet` wrote; what is there already stays.

        Raises:
            InvalidInputError: if the file is not such an export.
            Exp3rtError: without the extra `profiles`.
        """
        parquet = require("pyarrow.parquet", "profiles")
        try:
            rows = parquet.read_table(path, columns=_COLUMNS.split(", ")).to_pylist()
            with self._db:
                self._db.executemany(_IMPORT_REVIEW, rows)
                self._db.executemany(_IMPORT_EXTRACTION, rows)
                if rows:
                    self._db.execute("INSERT OR IGNORE INTO current VALUES (1, ?)", (rows[0]["version"],))
        except (OSError, ValueError, KeyError, sqlite3.Error) as error:
            raise InvalidInputError(f"{path}: not an export of a store: {error}") from error

    def statuses(self) -> dict[str, int]:
        """Return how many reviews of the current version have which status."""
        query = "SELECT status, COUNT(*) FROM extractions JOIN current USING (version) GROUP BY status"
        return dict(self._db.execute(query))

    def user_profile(self, user_id: Id) -> UserProfile | None:
        """Return what a user likes and dislikes, about five points a side; None for one without reviews."""
        rows = self._rows("WHERE r.user_id = ? ORDER BY r.time DESC, r.hash", user_id)
        if not rows:
            return None
        return UserProfile(str(_summary(rows)), user_id, _average(rows))

    def item(self, item_id: Id, user_id: Id | None = None) -> Item | None:
        """Return an item with its profile; None for one that neither a review nor the metadata knows.

        Args:
            item_id: of the item.
            user_id: for "similar", the user to whose preferences the reviews' are compared by the share of
                common content words. The user's own review never stands behind the profile then.
        """
        order = "r.time" if self._choice == "newest" else "r.helpful"
        rows = self._rows(f"WHERE r.item_id = ? ORDER BY {order} DESC, r.hash", item_id)
        query = "SELECT title, description FROM items WHERE item_id = ?"
        with closing(self._db.execute(query, (str(item_id),))) as cursor:
            known = cursor.fetchone()
        if not rows and known is None:
            return None
        if user_id is not None:
            rows = [row for row in rows if row[0] != str(user_id)]
        if self._choice == "similar" and user_id is not None:
            rows = self._by_similarity(rows, user_id)
        title, description = known or (None, None)
        average = _average(rows)
        words = "" if average is None else f"\n\n[Average Rating]\n{average:.1f}"
        return Item(item_id, title, description, f"{_summary(self._within(rows))}{words}" if rows else None)

    def _rows(self, where: str, key: Id) -> list[_Row]:
        found = self._db.execute(_ROWS + where, (str(key),))
        return [
            (user, rating, Preferences(_points(likes), _points(dislikes)))
            for user, rating, likes, dislikes in found
        ]

    def _by_similarity(self, rows: list[_Row], user_id: Id) -> list[_Row]:
        user = self.user_profile(user_id)
        wanted = content_words(user.profile) if user is not None else frozenset()

        def similarity(row: _Row) -> float:
            words = content_words(str(row[2]))
            return len(words & wanted) / max(1, len(words | wanted))

        return sorted(rows, key=similarity, reverse=True)

    def _within(self, rows: list[_Row]) -> list[_Row]:
        kept: list[_Row] = []
        left = self._max_words
        for row in rows:
            left -= len(str(row[2]).split())
            if kept and left < 0:
                break
            kept.append(row)
        return kept


_Row = tuple[str, "float | None", Preferences]


def review_hash(review: Review) -> str:
    """Return what tells a review from all others."""
    words = json.dumps([review.user_id, review.item_id, review.text, review.rating])
    return hashlib.sha256(words.encode()).hexdigest()


def _points(listed: str | None) -> tuple[str, ...]:
    return tuple(json.loads(listed)) if listed else ()


def _summary(rows: Sequence[_Row]) -> Preferences:
    return Preferences(merge([p.likes for _, _, p in rows]), merge([p.dislikes for _, _, p in rows]))


def _average(rows: Sequence[_Row]) -> float | None:
    ratings = [rating for _, rating, _ in rows if rating is not None]
    return sum(ratings) / len(ratings) if ratings else None
