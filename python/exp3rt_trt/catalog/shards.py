"""items-00001.kv, ...: the bytes of items. Shards only grow; a record begins at a multiple of 4096 bytes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import xxhash

from exp3rt_trt import _core
from exp3rt_trt.catalog.index import PAGE, Record
from exp3rt_trt.engines.staging import sync
from exp3rt_trt.errors import CatalogError

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt._core import ItemKv
    from exp3rt_trt.catalog.index import Index

SHARD_BYTES = 1 << 30  # from which size on another shard is begun
_NAME = re.compile(r"items-(\d{5,})\.kv")


def shard_path(folder: Path, shard: int) -> Path:
    """Name a shard's file."""
    return folder / f"items-{shard:05}.kv"


def checksum(key: bytes, item: ItemKv) -> bytes:
    """Return XXH3 over an item's bytes, seeded with its key and length: those of no other pass for them."""
    seed = (int.from_bytes(key[:8], "little") + item.num_tokens) % 2**64
    return xxhash.xxh3_64_digest(memoryview(item), seed=seed)  # type: ignore[arg-type]  # it is a buffer


class ShardReader:
    """Maps shards into memory when they are first read; not thread-safe.

    Args:
        folder: of the catalogue.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, _core.MappedFile] = {}

    def read(self, record: Record) -> ItemKv | None:
        """Return an item's bytes, unchecked; None if they are not there. They keep their file mapped."""
        try:
            end = record.offset + record.num_bytes
            file = self._files.get(record.shard)
            if file is None or file.size < end:  # it has grown since
                file = self._map(record.shard)
            return file.item(record.offset, record.num_bytes, record.num_tokens)
        except (RuntimeError, ValueError, TypeError, OverflowError):  # the last two: a damaged row
            return None

    def intact(self, key: bytes, record: Record) -> bool:
        """Return whether an item's bytes are those that were written."""
        item = self.read(record)
        return item is not None and checksum(key, item) == record.checksum

    def _map(self, shard: int) -> _core.MappedFile:
        kept = {n: file for n, file in self._files.items() if shard_path(self._folder, n).exists()}
        self._files = kept  # without those that a build removed since
        self._files[shard] = _core.MappedFile(str(shard_path(self._folder, shard)))
        return self._files[shard]


class ShardWriter:
    """Appends to the first shard that is not full, which is the last one with bytes, and then begins another.

    What lies behind the last committed record, which a kill left there, is cut off first.

    Args:
        folder: of the catalogue.
        index: of the catalogue; its caller commits what was written.
        shard_bytes: from which size on a shard is full.

    Raises:
        CatalogError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, index: Index, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._index = index
        self._shard_bytes = shard_bytes
        self._shards = index.shards()
        self._changed: dict[int, int] = {}  # sizes of shards that were written to since the last sync
        try:
            self._recover()
        except OSError as error:
            raise CatalogError(f"{folder}: cannot be written: {error}") from error

    def append(self, key: bytes, item: ItemKv) -> Record:
        """Write an item's bytes; they are there for good after `sync`.

        Raises:
            CatalogError: if they cannot be written.
        """
        shard = self._current()
        offset = -(-self._shards[shard] // PAGE) * PAGE
        path = shard_path(self._folder, shard)
        try:
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(memoryview(item))  # type: ignore[arg-type]  # an ItemKv is a buffer
        except OSError as error:
            raise CatalogError(f"{path}: cannot be written: {error}") from error
        self._shards[shard] = self._changed[shard] = offset + item.num_bytes
        return Record(shard, offset, item.num_tokens, item.num_bytes, checksum(key, item))

    def sync(self) -> dict[int, int]:
        """Flush what was written to the disk; return the new sizes of the shards by number."""
        for shard in self._changed:
            path = shard_path(self._folder, shard)
            try:
                with path.open("r+b") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                raise CatalogError(f"{path}: cannot be written: {error}") from error
        changed, self._changed = self._changed, {}
        return changed

    def leave(self, shard: int) -> None:
        """Write no more to a shard."""
        del self._shards[shard]

    def remove(self, shard: int) -> None:
        """Remove a shard that the index no longer names; whoever has it mapped keeps it."""
        shard_path(self._folder, shard).unlink(missing_ok=True)

    def _current(self) -> int:
        for shard, size in sorted(self._shards.items()):
            if size < self._shard_bytes:
                return shard
        shard = self._index.new_shard()
        path = shard_path(self._folder, shard)
        try:
            path.touch()
            sync(self._folder)
        except OSError as error:
            raise CatalogError(f"{path}: cannot be written: {error}") from error
        self._shards[shard] = 0
        return shard

    def _recover(self) -> None:
        for path in self._folder.iterdir():
            name = _NAME.fullmatch(path.name)
            if name is not None and int(name[1]) not in self._shards:
                path.unlink()
        for shard, size in self._shards.items():
            path = shard_path(self._folder, shard)
            path.touch()  # a lost one: its items are found damaged
            if path.stat().st_size > size:
                os.truncate(path, size)
