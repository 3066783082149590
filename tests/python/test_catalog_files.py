"""Shards and index below a catalogue, with random bytes for items: what a kill leaves, what is given back."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from exp3rt_trt import _core
from exp3rt_trt.catalog.compact import compact
from exp3rt_trt.catalog.header import CatalogHeader, item_key
from exp3rt_trt.catalog.index import PAGE, DamagedIndexError, Index
from exp3rt_trt.catalog.shards import ShardReader, ShardWriter, checksum, shard_path
from exp3rt_trt.errors import CatalogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from exp3rt_trt._core import ItemKv

SHARD_BYTES = 3 * PAGE
HEADER = CatalogHeader("e", "i", 900, "int8 packed for bf16", "int8")


@pytest.fixture
def item(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], ItemKv]:
    """Gives an item of random bytes by number; sizes differ, some are whole pages."""
    folder = tmp_path_factory.mktemp("bytes")

    def make(number: int) -> ItemKv:
        size = (1000, PAGE, 5000)[number % 3]
        path = folder / str(number)
        path.write_bytes(np.random.default_rng(number).bytes(size))
        return _core.MappedFile(str(path)).item(0, size, number + 1)

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "catalog").mkdir()
    return tmp_path / "catalog"


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    with Index(folder, writable=True) as made:
        yield made


def key(number: int) -> bytes:
    return item_key([number])


def write(index: Index, writer: ShardWriter, items: Sequence[tuple[int, ItemKv]]) -> None:
    records = [(key(number), writer.append(key(number), kv)) for number, kv in items]
    index.commit(records, [(str(number), key(number)) for number, _ in items], writer.sync())


def read(index: Index, reader: ShardReader, number: int) -> bytes | None:
    record = index.find(key(number))
    found = reader.read(record) if record is not None and reader.intact(key(number), record) else None
    return bytes(memoryview(found)) if found is not None else None  # type: ignore[arg-type]


def test_what_was_committed_is_read_from_whole_pages_of_shards(
    folder: Path, index: Index, item: Callable[[int], ItemKv]
) -> None:
    writer = ShardWriter(folder, index, SHARD_BYTES)
    for first in range(0, 12, 3):
        write(index, writer, [(number, item(number)) for number in range(first, first + 3)])
    reader = ShardReader(folder)
    for number in range(12):
        assert read(index, reader, number) == bytes(memoryview(item(number)))  # type: ignore[arg-type]
        record = index.find(key(number))
        assert record is not None
        assert record.offset % PAGE == 0
        assert record.num_tokens == number + 1
    sizes = index.shards()
    assert list(sizes) == [1, 2, 3, 4]
    assert all(size >= SHARD_BYTES for size in sizes.values())
    assert {shard: shard_path(folder, shard).stat().st_size for shard in sizes} == sizes


@pytest.mark.parametrize("shard_bytes", [SHARD_BYTES, 1 << 30])
@pytest.mark.parametrize("synced", [False, True])
def test_what_was_not_committed_is_cut_off_and_written_again_as_it_was(
    folder: Path, index: Index, item: Callable[[int], ItemKv], shard_bytes: int, synced: bool
) -> None:
    writer = ShardWriter(folder, index, shard_bytes)
    write(index, writer, [(number, item(number)) for number in range(4)])
    held = ShardReader(folder)
    first = index.find(key(0))
    assert first is not None
    kept = held.read(first)
    for number in range(4, 9):  # another process, killed before its commit
        writer.append(key(number), item(number))
    if synced:
        writer.sync()
    left = {path.name: path.read_bytes() for path in folder.glob("*.kv")}
    writer = ShardWriter(folder, index, shard_bytes)
    sizes = {shard: shard_path(folder, shard).stat().st_size for shard in index.shards()}
    assert sizes == index.shards()
    assert bytes(memoryview(kept)) == bytes(memoryview(item(0)))  # type: ignore[arg-type]
    write(index, writer, [(number, item(number)) for number in range(4, 9)])
    assert {path.name: path.read_bytes() for path in folder.glob("*.kv")} == left
    assert all(read(index, ShardReader(folder), number) is not None for number in range(9))


def test_a_file_that_the_index_does_not_name_is_removed(folder: Path, index: Index) -> None:
    shard_path(folder, 7).write_bytes(b"left by a kill")
    (folder / "notes.txt").touch()
    ShardWriter(folder, index)
    assert sorted(path.name for path in folder.iterdir()) == ["index.sqlite", "notes.txt"]


def test_waste_is_given_back_and_numbers_are_not_used_twice(
    folder: Path, index: Index, item: Callable[[int], ItemKv]
) -> None:
    writer = ShardWriter(folder, index, SHARD_BYTES)
    write(index, writer, [(number, item(number)) for number in range(12)])
    reader = ShardReader(folder)
    records = [index.find(key(number)) for number in range(12)]
    shards = [record.shard for record in records if record is not None]
    held = [reader.read(record) for record in records if record is not None]
    kept = [number for number in range(12) if shards[number] not in (1, 4)] + [0]
    for number in kept:
        index.see(str(number))
    assert index.drop_unseen() == 12 - len(kept)
    compact(index, writer, reader)
    remaining = sorted(path.name for path in folder.glob("*.kv"))
    assert remaining == ["items-00002.kv", "items-00003.kv", "items-00005.kv"]
    assert index.shards()[5] == item(0).num_bytes
    for number in range(12):
        expected = bytes(memoryview(item(number)))  # type: ignore[arg-type]
        assert read(index, reader, number) == (expected if number in kept else None)
        assert bytes(memoryview(held[number])) == expected  # type: ignore[arg-type]
    assert index.sparse_shards() == []
    with Index(folder, writable=True) as again:
        write(again, ShardWriter(folder, again, PAGE), [(20, item(20)), (21, item(21))])
        assert list(again.shards()) == [2, 3, 5, 6]


def test_damaged_bytes_are_not_moved_as_if_they_were_right(
    folder: Path, index: Index, item: Callable[[int], ItemKv]
) -> None:
    writer = ShardWriter(folder, index, 1 << 30)
    write(index, writer, [(number, item(number)) for number in range(9)])
    index.see("0")
    index.see("1")
    index.drop_unseen()
    record = index.find(key(1))
    assert record is not None
    with shard_path(folder, record.shard).open("r+b") as file:
        file.seek(record.offset)
        file.write(b"torn")
    compact(index, writer, ShardReader(folder))
    assert index.find(key(0)) is not None
    assert index.find(key(1)) is None
    assert [(item_id, found is None) for item_id, _, found in index.items()] == [("1", True), ("0", False)]


def test_a_checksum_is_of_bytes_key_and_length(item: Callable[[int], ItemKv], tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(bytes(100))
    file = _core.MappedFile(str(tmp_path / "bytes"))
    cases = itertools.product((1, 2), (99, 100), (5, 6))
    sums = [checksum(key(number), file.item(0, size, tokens)) for number, size, tokens in cases]
    assert len(set(sums)) == 8
    assert checksum(key(1), file.item(0, 99, 5)) == sums[0]
    assert checksum(key(3), item(3)) != checksum(key(3), item(6))


def test_an_index_that_is_no_database_is_told_from_one_that_is_missing(folder: Path) -> None:
    with pytest.raises(CatalogError, match=r"index.sqlite: cannot be used") as caught:
        Index(folder)
    assert not isinstance(caught.value, DamagedIndexError)
    (folder / "index.sqlite").write_bytes(b"no database, but long enough to be looked at" * 100)
    for writable in (False, True):
        with pytest.raises(DamagedIndexError, match=r"index.sqlite"):
            Index(folder, writable=writable)


def test_an_index_that_may_not_be_written_is_read(
    folder: Path, index: Index, item: Callable[[int], ItemKv], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(index, ShardWriter(folder, index), [(1, item(1))])
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with Index(folder) as reading:
        assert read(reading, ShardReader(folder), 1) is not None
        with pytest.raises(CatalogError, match="readonly"):
            reading.new_shard()


def test_a_header_is_written_at_once_and_checked_field_by_field(folder: Path) -> None:
    HEADER.save(folder)
    assert CatalogHeader.load(folder) == HEADER
    assert [path.name for path in folder.iterdir()] == ["catalog.json"]
    for text, words in (
        ("[]", "must be an object, not list"),
        ("{", "cannot be read"),
        ('{"engine": 5}', "engine must be of type str, not 5"),
    ):
        (folder / "catalog.json").write_text(text, encoding="utf-8")
        with pytest.raises(CatalogError, match=rf"catalog.json: {words}"):
            CatalogHeader.load(folder)
