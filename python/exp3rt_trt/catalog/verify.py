"""What a catalogue holds, and whether all of it is as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.catalog.header import CatalogHeader
from exp3rt_trt.catalog.index import Index
from exp3rt_trt.catalog.shards import ShardReader, shard_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class CatalogInfo:
    """What a catalogue holds.

    Args:
        header: what its items were computed with.
        items: number of items.
        records: number of different ones among them.
        record_bytes: of these.
        file_bytes: of the shards; what goes beyond record_bytes is padding, or waste of items that changed.
        shards: number of files.
    """

    header: CatalogHeader
    items: int
    records: int
    record_bytes: int
    file_bytes: int
    shards: int


@dataclass(frozen=True)
class Damage:
    """An item whose bytes are not there or not those that were written.

    Args:
        item_id: as JSON.
        words: where, and what is wrong.
    """

    item_id: str
    words: str


def catalog_info(folder: Path) -> CatalogInfo:
    """Read what a catalogue says about itself.

    Raises:
        CatalogError: if the folder is no catalogue, or its index is damaged.
    """
    header = CatalogHeader.load(folder)
    with Index(folder) as index:
        items, records, record_bytes = index.totals()
        shards = index.shards()
    return CatalogInfo(header, items, records, record_bytes, sum(shards.values()), len(shards))


def verify_catalog(folder: Path, progress: Callable[[int, int], None] | None = None) -> Iterator[Damage]:
    """Read every item and compare its checksum; needs no engine.

    Args:
        folder: of the catalogue.
        progress: called after each item with how many are done, and how many there are.

    Yields:
        The damaged items, in the order in which they lie.

    Raises:
        CatalogError: if the folder is no catalogue, or its index is damaged.
    """
    CatalogHeader.load(folder)
    with Index(folder) as index:
        rows = index.items()
    reader = ShardReader(folder)
    for done, (item_id, key, record) in enumerate(rows, start=1):
        if record is None:
            yield Damage(item_id, "its keys and values are missing")
        elif not reader.intact(key, record):
            where = f"{shard_path(folder, record.shard)}: {record.num_bytes} bytes at {record.offset}"
            yield Damage(item_id, f"{where} are not those that were written")
        if progress is not None:
            progress(done, len(rows))
