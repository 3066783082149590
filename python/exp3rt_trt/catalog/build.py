"""The job: items that the catalogue does not have yet go through the student, batch by batch."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt.catalog.compact import compact
from exp3rt_trt.catalog.header import HEADER, CatalogHeader, item_key
from exp3rt_trt.catalog.index import INDEX, DamagedIndexError, Index
from exp3rt_trt.catalog.shards import ShardReader, ShardWriter
from exp3rt_trt.engines.cache import exclusive
from exp3rt_trt.errors import CatalogError, InvalidInputError
from exp3rt_trt.inputs import as_item
from exp3rt_trt.pending import Settled, in_order

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from exp3rt_trt._core import ItemKv
    from exp3rt_trt.catalog.encoder import ItemEncoder
    from exp3rt_trt.inputs import Item
    from exp3rt_trt.jsonl import Line
    from exp3rt_trt.pending import Work
    from exp3rt_trt.tokenization import TokenIds

BATCH = 32  # lines that are committed at once
LOOK_AHEAD = 3 * BATCH  # items at work before another batch is taken in: what a kill may lose


@dataclass
class Counts:
    """What became of the items of a job.

    Args:
        kept: were there already, and their bytes are right.
        computed: went through the student; items that say the same do so once.
        repaired: of those computed, how many were there and damaged.
        dropped: are no longer among the items.
        faulty: cannot be used, or the student gave no finite numbers for them.
        index_lost: whether the index was damaged, so that everything was computed anew.
    """

    kept: int = 0
    computed: int = 0
    repaired: int = 0
    dropped: int = 0
    faulty: int = 0
    index_lost: bool = False


@dataclass
class _Batch:
    """Lines' items with their keys, and those keys of them that are to be computed, in order."""

    lines: int
    items: list[tuple[str, str, bytes]] = field(default_factory=list)  # where, item_id, key
    missing: dict[bytes, TokenIds] = field(default_factory=dict)


def build_catalog(
    path: str | os.PathLike[str],
    lines: Iterable[Line],
    encoder: ItemEncoder,
    *,
    on_fault: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Counts:
    """Make a catalogue, or bring one up to date: what is there and right is kept, the rest is computed.

    A kill at any moment loses what was not committed, at most `LOOK_AHEAD` items.

    Args:
        path: the folder; made if it is not there. Another process that builds it is waited for.
        lines: of items, as `jsonl.read_lines` gives them; fields as those of `Item`. A faulty one is left
            out; of two with the same id, the second is faulty.
        encoder: computes; `Reranker.item_encoder` gives one.
        on_fault: called with each fault, in words that begin with its place.
        progress: called after each batch with the number of lines that are done.

    Returns:
        What became of them.

    Raises:
        CatalogError: if the folder belongs to another engine, or cannot be written.
        InvalidInputError: if not one line can be used; nothing is dropped then.
        EngineError: if the executor failed; what was committed before stays.

    Example:
        >>> with Reranker.from_pretrained(engine) as reranker:  # doctest: +SKIP
        ...     build_catalog("catalog", read_lines("items.jsonl"), reranker.item_encoder())
    """
    folder = Path(path)
    with exclusive(folder / ".lock", advice=""):
        _prepare(folder, encoder.header)
        index, lost = _open_index(folder)
        with index:
            job = _Job(index, ShardWriter(folder, index), ShardReader(folder), encoder, on_fault)
            job.counts.index_lost = lost
            return job.run(iter(lines), progress)


def _prepare(folder: Path, header: CatalogHeader) -> None:
    if (folder / HEADER).exists():
        CatalogHeader.load(folder).check(folder, header)
        return
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if others:
        raise CatalogError(
            f"{folder}: holds {others[0]} and no {HEADER}: not a catalogue; give another folder"
        )
    try:
        header.save(folder)
    except OSError as error:
        raise CatalogError(f"{folder}: cannot be written: {error}") from error


def _open_index(folder: Path) -> tuple[Index, bool]:
    """Opens the index, a new one in place of one that is damaged."""
    try:
        return Index(folder, writable=True), False
    except DamagedIndexError:
        for name in (INDEX, f"{INDEX}-journal"):
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
        return Index(folder, writable=True), True


class _Job:
    def __init__(
        self,
        index: Index,
        writer: ShardWriter,
        reader: ShardReader,
        encoder: ItemEncoder,
        on_fault: Callable[[str], None] | None,
    ) -> None:
        self.counts = Counts()
        self._index = index
        self._writer = writer
        self._reader = reader
        self._encoder = encoder
        self._on_fault = on_fault
        self._kept: set[bytes] = set()  # keys whose records were there and right
        self._started: set[bytes] = set()  # those that are computed, were, or could not be
        self._made: set[bytes] = set()  # those that were

    def run(self, lines: Iterator[Line], progress: Callable[[int], None] | None) -> Counts:
        done = 0
        batches = iter(lambda: list(islice(lines, BATCH)), [])
        for batch, computed in in_order(batches, self._start, LOOK_AHEAD):
            self._commit(batch, computed)
            done += batch.lines
            if progress is not None:
                progress(done)
        if not self._kept and not self._made:
            raise InvalidInputError("no item can be used; the catalogue is left as it was")
        self.counts.dropped = self._index.drop_unseen()
        compact(self._index, self._writer, self._reader)
        return self.counts

    def _start(self, lines: Sequence[Line]) -> Work[tuple[_Batch, list[ItemKv | None]]]:
        batch = _Batch(len(lines))
        found = [(line.where, item) for line in lines if (item := self._item(line)) is not None]
        tokens = self._encoder.tokens([item for _, item in found])
        for (where, item), segment in zip(found, tokens, strict=True):
            self._add(batch, where, item, segment)
        if not batch.missing:
            return Settled((batch, []))
        return self._encoder.start(list(batch.missing.values()), lambda computed: (batch, computed))

    def _item(self, line: Line) -> Item | None:
        try:
            if line.error is not None:
                raise line.error
            item = as_item(line.value, line.number, "item")
        except InvalidInputError as error:
            self._tell(line.where, str(error))
            return None
        if not self._index.see(_id(item)):
            self._tell(line.where, f"item_id {_id(item)} is that of an earlier line already")
            return None
        return item

    def _add(self, batch: _Batch, where: str, item: Item, tokens: TokenIds) -> None:
        excess = self._encoder.excess(tokens)
        if excess is not None:
            self._reject(where, _id(item), excess)
            return
        key = item_key(tokens)
        batch.items.append((where, _id(item), key))
        if self._is_here(key):
            self.counts.kept += 1
        elif key not in self._started:
            self._started.add(key)
            batch.missing[key] = tokens

    def _is_here(self, key: bytes) -> bool:
        if key in self._kept:
            return True
        record = self._index.find(key) if key not in self._started else None
        if record is None:
            return False
        if self._reader.intact(key, record):
            self._kept.add(key)
            return True
        self.counts.repaired += 1
        return False

    def _commit(self, batch: _Batch, computed: Sequence[ItemKv | None]) -> None:
        made = [(key, kv) for key, kv in zip(batch.missing, computed, strict=True) if kv is not None]
        records = [(key, self._writer.append(key, kv)) for key, kv in made]
        self._made.update(key for key, _ in made)
        items = []
        for where, item_id, key in batch.items:
            if key not in self._kept and key not in self._made:
                self._reject(where, item_id, "the model gave no finite number for this item")
            elif self._index.key_of(item_id) != key:
                items.append((item_id, key))
        if records or items:
            self._index.commit(records, items, self._writer.sync())
        self.counts.computed += len(records)

    def _reject(self, where: str, item_id: str, words: str) -> None:
        self._index.forget(item_id)
        self._tell(where, f"item_id {item_id}: {words}")

    def _tell(self, where: str, words: str) -> None:
        self.counts.faulty += 1
        if self._on_fault is not None:
            self._on_fault(f"{where}: {words}")


def _id(item: Item) -> str:
    """An id as the index has it: as JSON, which tells 1 from "1"."""
    return json.dumps(item.item_id)
