"""A catalogue as a Reranker reads it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt.catalog.header import CatalogHeader, item_key
from exp3rt_trt.catalog.index import Index
from exp3rt_trt.catalog.shards import ShardReader, checksum, shard_path
from exp3rt_trt.errors import CatalogError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from exp3rt_trt._core import ItemKv
    from exp3rt_trt.catalog.index import Record

_log = logging.getLogger(__name__)


class Catalog:
    """Keys and values of items on disk, mapped into memory as they are asked for.

    Thread-safe. It may be read while `build_catalog` changes it; what was handed out stays as it is.

    Args:
        path: the folder.
        expected: what items would be computed with here.

    Raises:
        CatalogError: if the folder is no catalogue, or was computed with something else, which is named.
    """

    def __init__(self, path: str | os.PathLike[str], expected: CatalogHeader) -> None:
        self.path = Path(path)
        CatalogHeader.load(self.path).check(self.path, expected)
        self._index: Index | None = Index(self.path)
        self._shards = ShardReader(self.path)
        self._lock = threading.Lock()  # of all that is above and below
        self._intact: set[tuple[int, int]] = set()  # shard and offset of records whose checksum was right
        self._damaged: set[tuple[int, int]] = set()

    @property
    def num_damaged(self) -> int:
        """Items that were asked for and whose bytes are damaged; they are computed anew each time."""
        return len(self._damaged)

    def find(self, tokens: Sequence[int]) -> ItemKv | None:
        """Return the keys and values of an item, whose checksum is compared when it is first asked for.

        Args:
            tokens: ids of the item's segment.

        Returns:
            A view of the mapped file; None if the catalogue does not have the item, its bytes are damaged, or
            the catalogue is closed.
        """
        key = item_key(tokens)
        try:
            record = self._find(key)
            while record is not None:
                item = self._read(key, record)
                if item is not None:
                    return item
                moved = self._find(key)  # a build may have moved it meanwhile
                if moved == record:
                    self._tell_damage(record[:2], f"{shard_path(self.path, record.shard)} is damaged")
                    return None
                record = moved
        except CatalogError as error:
            self._tell_damage((-1, -1), str(error))
        return None

    def close(self) -> None:
        """Let go of the files; what was handed out stays mapped. May be called twice."""
        with self._lock:
            index, self._index = self._index, None
            if index is not None:
                index.close()

    def _find(self, key: bytes) -> Record | None:
        with self._lock:
            return self._index.find(key) if self._index is not None else None

    def _read(self, key: bytes, record: Record) -> ItemKv | None:
        place = record[:2]
        with self._lock:
            item = self._shards.read(record) if place not in self._damaged else None
            if item is None or place in self._intact:
                return item
        if checksum(key, item) != record.checksum:
            return None
        with self._lock:
            self._intact.add(place)
        return item

    def _tell_damage(self, place: tuple[int, int], words: str) -> None:
        with self._lock:
            first = not self._damaged
            self._damaged.add(place)
        if first:
            _log.warning(
                "%s; such items are computed anew each time: `exp3rt-trt catalog verify` names them, "
                "`exp3rt-trt catalog build` repairs them",
                words,
            )
