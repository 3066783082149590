"""Gives space back: shards of which little is still wanted are written anew without the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exp3rt_trt.catalog.shards import checksum

if TYPE_CHECKING:
    from exp3rt_trt.catalog.index import Index
    from exp3rt_trt.catalog.shards import ShardReader, ShardWriter


def compact(index: Index, writer: ShardWriter, reader: ShardReader) -> None:
    """Append the records of shards that are more than half waste elsewhere, and remove these shards.

    So a catalogue takes at most about twice the space of its items, and a byte is moved at most once for a
    byte that is given back. A kill in between leaves a shard where it is, or a file that the next build
    removes. Damaged records are left out: their items are missing, and the next build computes them.
    """
    sparse = index.sparse_shards()
    for shard in sparse:
        writer.leave(shard)
    for shard in sparse:
        moved = []
        for key, record in index.records_of(shard):
            item = reader.read(record)
            if item is not None and checksum(key, item) == record.checksum:
                moved.append((key, writer.append(key, item)))
        index.commit(moved, (), writer.sync(), dropped_shard=shard)
        writer.remove(shard)
