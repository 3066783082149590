"""index.sqlite: which items a catalogue has, and where the bytes of each lie."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from exp3rt_trt.errors import CatalogError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

INDEX = "index.sqlite"
PAGE = 4096  # records begin at multiples of it
# Items that say the same share a record. A shard's num_bytes only grows: what was once committed is not cut
# off under a reader, and AUTOINCREMENT gives no number twice.
_SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS items (item_id TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    key BLOB PRIMARY KEY, shard INTEGER NOT NULL, offset INTEGER NOT NULL, num_tokens INTEGER NOT NULL,
    num_bytes INTEGER NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shards (shard INTEGER PRIMARY KEY AUTOINCREMENT, num_bytes INTEGER NOT NULL);
COMMIT;
CREATE TEMP TABLE seen (item_id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_FIELDS = "shard, offset, num_tokens, num_bytes, checksum"
_ITEMS = f"""
SELECT item_id, key, {_FIELDS} FROM items LEFT JOIN records USING (key) ORDER BY shard, offset
"""  # noqa: S608  (constants)
_LIVE = f"(num_bytes + {PAGE - 1}) / {PAGE} * {PAGE}"
_SPARSE = f"""
SELECT shard FROM shards
LEFT JOIN (SELECT shard, SUM({_LIVE}) AS live FROM records GROUP BY shard) USING (shard)
WHERE num_bytes > 0 AND COALESCE(live, 0) * 2 < num_bytes ORDER BY shard
"""  # noqa: S608  (constants)


class DamagedIndexError(CatalogError):
    """The index is no database any more."""


class Record(NamedTuple):
    """Where an item's keys and values lie: bytes of a shard from an offset on, and their checksum."""

    shard: int
    offset: int
    num_tokens: int
    num_bytes: int
    checksum: bytes


class Index:
    """The index of a catalogue; used from one thread at a time.

    Args:
        folder: of the catalogue.
        writable: whether it may be changed, and is made if it is not there. Otherwise nothing is written to
            it, except that a transaction which a kill left half-done is undone.

    Raises:
        DamagedIndexError: if it is damaged.
        CatalogError: if it is not there, or cannot be used for another reason.
    """

    def __init__(self, folder: Path, *, writable: bool = False) -> None:
        self.path = folder / INDEX
        mode = "rwc" if writable else "rw" if os.access(self.path, os.W_OK) else "ro"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        with self._told():
            self._db = sqlite3.connect(uri, uri=True, timeout=60, check_same_thread=False)
        try:
            with self._told():
                self._prepare(writable)
        except CatalogError:
            self._db.close()
            raise

    def _prepare(self, writable: bool) -> None:
        if not writable:
            self._db.execute("SELECT 1 FROM items, records, shards LIMIT 1")
            return
        self._db.execute("PRAGMA synchronous=FULL")
        (fault,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if fault != "ok":
            raise sqlite3.DatabaseError(fault)
        self._db.executescript(_SCHEMA)

    def find(self, key: bytes) -> Record | None:
        """Return the record of an item by the key of its tokens."""
        found = self._rows(f"SELECT {_FIELDS} FROM records WHERE key = ?", key)  # noqa: S608  (constants)
        return Record(*found[0]) if found else None

    def key_of(self, item_id: str) -> bytes | None:
        """Return the key of an item by its id, as it was when the item was last computed."""
        found = self._rows("SELECT key FROM items WHERE item_id = ?", item_id)
        return found[0][0] if found else None

    def items(self) -> list[tuple[str, bytes, Record | None]]:
        """Return all items, as their records lie: id, key, and the record unless it is missing."""
        rows = self._rows(_ITEMS)
        return [(item_id, key, Record(*at) if at[0] is not None else None) for item_id, key, *at in rows]

    def records_of(self, shard: int) -> list[tuple[bytes, Record]]:
        """Return the records of a shard with their keys, as they lie."""
        query = f"SELECT key, {_FIELDS} FROM records WHERE shard = ? ORDER BY offset"  # noqa: S608  (constants)
        return [(key, Record(*fields)) for key, *fields in self._rows(query, shard)]

    def shards(self) -> dict[int, int]:
        """Return the bytes of each shard, up to the end of its last committed record."""
        return dict(self._rows("SELECT shard, num_bytes FROM shards ORDER BY shard"))

    def sparse_shards(self) -> list[int]:
        """Return the shards less than half of whose bytes belong to items."""
        return [shard for (shard,) in self._rows(_SPARSE)]

    def totals(self) -> tuple[int, int, int]:
        """Return the number of items, of records, and of the records' bytes."""
        query = "SELECT (SELECT COUNT(*) FROM items), COUNT(*), COALESCE(SUM(num_bytes), 0) FROM records"
        items, records, size = self._rows(query)[0]
        return items, records, size

    def new_shard(self) -> int:
        """Return the number of a new shard, which no shard had before."""
        with self._change():
            return self._db.execute("INSERT INTO shards (num_bytes) VALUES (0)").lastrowid or 0

    def commit(
        self,
        records: Iterable[tuple[bytes, Record]],
        items: Iterable[tuple[str, bytes]],
        shards: Mapping[int, int],
        dropped_shard: int | None = None,
    ) -> None:
        """Note what was written, all of it or nothing.

        Args:
            records: by key; they take the place of older ones.
            items: ids and keys.
            shards: new sizes in bytes by number.
            dropped_shard: one whose records all lie elsewhere now.
        """
        with self._change():
            rows = ((key, *record) for key, record in records)
            self._db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?)", items)
            sizes = ((size, shard) for shard, size in shards.items())
            self._db.executemany("UPDATE shards SET num_bytes = ? WHERE shard = ?", sizes)
            for table in ("records", "shards"):
                self._db.execute(f"DELETE FROM {table} WHERE shard = ?", (dropped_shard,))  # noqa: S608

    def see(self, item_id: str) -> bool:
        """Note that an item is still wanted; False if it was noted before."""
        with self._told():
            return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (item_id,)).rowcount > 0

    def forget(self, item_id: str) -> None:
        """Undo `see`."""
        with self._told():
            self._db.execute("DELETE FROM seen WHERE item_id = ?", (item_id,))

    def drop_unseen(self) -> int:
        """Forget the items that were not noted, and the records that no item has; return how many items."""
        with self._change():
            query = "DELETE FROM items WHERE item_id NOT IN (SELECT item_id FROM seen)"
            dropped = self._db.execute(query).rowcount
            self._db.execute("DELETE FROM records WHERE key NOT IN (SELECT key FROM items)")
        return dropped

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        with self._told():
            return self._db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        with self._told(), self._db:
            yield

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            damaged = type(error) is sqlite3.DatabaseError  # its subclasses: locked, no space, no such table
            kind = DamagedIndexError if damaged else CatalogError
            raise kind(f"{self.path}: cannot be used: {error}") from error
