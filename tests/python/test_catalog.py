"""Catalogues end to end: the same bits with one as without; nothing damaged or of another engine is used."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from catalog_cases import FILMS, build, contents, flip, open_
from exp3rt_trt import InvalidInputError, Item, RatingScale, Reranker
from exp3rt_trt.catalog import build_catalog, catalog_info, verify_catalog
from exp3rt_trt.errors import CatalogError
from segmented import LAYOUT, USER, film, make_segmented_engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def engine(segmented_engine: Callable[..., Path]) -> Path:
    return segmented_engine("llama", "fp32")


@pytest.fixture(scope="module")
def built(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of FILMS; copy it before you change it."""
    out = tmp_path_factory.mktemp("built") / "catalog"
    build(engine, out, FILMS)
    return out


@pytest.fixture
def catalog(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "catalog")


@pytest.fixture(scope="module")
def plain(engine: Path) -> dict[Any, Any]:
    with open_(engine) as reranker:
        return ratings(reranker)


def ratings(reranker: Reranker, films: list[Item] = FILMS, **options: Any) -> dict[Any, Any]:
    ranked = reranker.rank(USER, films, **options)
    return {r.item_id: (r.expected_rating, r.reasoning) for r in ranked}


@pytest.mark.parametrize(("dtype", "kept"), [("fp32", ""), ("fp32", "int8"), ("bf16", ""), ("bf16", "int8")])
def test_the_same_bits_with_a_catalogue_as_without(
    segmented_engine: Callable[..., Path], tmp_path: Path, dtype: str, kept: str
) -> None:
    engine, out = segmented_engine("llama", dtype), tmp_path / "catalog"
    ways: list[dict[str, Any]] = [
        {},
        {"mode": "reason"},
        {"mode": "adaptive", "top_k": 3, "uncertainty": 9.0},
    ]
    with open_(engine, item_kv_dtype=kept, max_reasoning_tokens=8) as reranker:
        expected = [ratings(reranker, **way) for way in ways]
    build(engine, out, FILMS[:9], item_kv_dtype=kept)
    with open_(
        engine, catalog=out, max_reasoning_tokens=8
    ) as reranker:  # its item_kv_dtype is the catalogue's
        assert [ratings(reranker, **way) for way in ways] == expected
        stats = reranker.stats()
    assert (stats.items_computed, stats.items_stored) == (3, 9 * 4)  # adaptive asks twice


def test_what_is_new_changed_gone_or_said_twice(engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    counts, _ = build(engine, out, FILMS)
    assert (counts.kept, counts.computed, counts.dropped) == (0, 12, 0)
    before = contents(out)
    counts, _ = build(engine, out, FILMS)
    assert (counts.kept, counts.computed, counts.dropped) == (12, 0, 0)
    assert contents(out) == before
    changed = Item(3, "Film 3", "is another one now")
    twin = Item("twin", FILMS[5].title, FILMS[5].description)
    twins = [Item(name, "New", "and twice") for name in ("a", "b")]
    counts, faults = build(engine, out, [*FILMS[:3], changed, *FILMS[4:10], twin, *twins])
    assert (counts.kept, counts.computed, counts.dropped, faults) == (10, 2, 2, [])
    info = catalog_info(out)
    assert (info.items, info.records) == (13, 11)
    with open_(engine, catalog=out) as reranker:
        ratings(reranker, [*FILMS, changed, twin, *twins])
        assert reranker.stats().items_computed == 3  # the two that are gone, and film 3 as it was
    assert list(verify_catalog(out)) == []


def test_a_faulty_item_is_named_by_its_line_and_nothing_else_is_lost(engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    build(engine, out, FILMS[:4])
    long = Item(2, "Film 2", film(150).description)
    lines = [FILMS[0], "{", '{"item_id": 7}', FILMS[1], FILMS[0], long, '{"title": "x"}', FILMS[3], FILMS[4]]
    counts, faults = build(engine, out, lines)
    assert (counts.kept, counts.computed, counts.dropped, counts.faulty) == (3, 1, 1, 5)
    for fault, words in zip(
        faults,
        (
            ":2: not valid JSON",
            ":3: item: title, description and profile are all empty",
            ":5: item_id 0 is that of an earlier line already",
            ":7: item.item_id is missing",
            ":6: item_id 2: the item: ",
        ),
        strict=True,
    ):
        assert words in fault
    assert catalog_info(out).items == 4
    with open_(engine) as reranker, pytest.raises(InvalidInputError, match="no item can be used"):
        build_catalog(out, [], reranker.item_encoder())
    assert catalog_info(out).items == 4


def test_another_engines_catalogue_is_refused(
    built: Path, segmented_engine: Callable[..., Path], tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    engine = segmented_engine("llama", "fp32")
    twin = tmp_path / "elsewhere"
    make_segmented_engine(tiny_checkpoint("llama"), twin, "fp32", replace(LAYOUT, item_position=901))
    for path, options, words in (
        (segmented_engine("qwen2", "fp32"), {}, "engine: its items were computed with another engine"),
        (twin, {}, "engine: "),
        (engine, {"scale": RatingScale.one_to_ten()}, "instructions: its items were computed behind other"),
        (engine, {"item_kv_dtype": "int8"}, "item_format: .*fp32 packed for fp32.* there, .*int8 packed"),
    ):
        with pytest.raises(CatalogError, match=rf"catalog.json: {words}"):
            open_(path, catalog=built, **options)
        with pytest.raises(CatalogError, match=words):
            build(path, built, FILMS, **options)
    with pytest.raises(CatalogError, match=r"no catalog.json: not a catalogue"):
        open_(engine, catalog=tmp_path)
    assert list(verify_catalog(built)) == []


def test_a_causal_students_engine_has_no_catalogue(
    built: Path, tiny_engine: Callable[[str, str], Path]
) -> None:
    with pytest.raises(InvalidInputError, match=r"read items without their user; .* attention is causal"):
        open_(tiny_engine("llama", "fp32"), catalog=built)


def test_a_folder_of_something_else_is_left_alone(engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "one.jpg").touch()
    with pytest.raises(CatalogError, match=r"holds one.jpg and no catalog.json"):
        build(engine, out, FILMS)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "catalog.json").write_text("{", encoding="utf-8")
    with pytest.raises(CatalogError, match=r"catalog.json: cannot be read"):
        build(engine, tmp_path / "torn", FILMS)


def _flip_a_byte(catalog: Path) -> None:
    flip(catalog / "items-00001.kv", place(catalog, 4) + 100)


def _cut_the_file(catalog: Path) -> None:
    with (catalog / "items-00001.kv").open("r+b") as file:
        file.truncate(place(catalog, 9) - 100)


def _lose_the_file(catalog: Path) -> None:
    (catalog / "items-00001.kv").unlink()


def _swap_rows(catalog: Path) -> None:
    one, other = place(catalog, 4), place(catalog, 5)
    with sqlite3.connect(catalog / "index.sqlite") as db:
        for now, then in ((one, -1), (other, one), (-1, other)):
            db.execute("UPDATE records SET offset = ? WHERE offset = ?", (then, now))
    db.close()


def _lengthen_a_row(catalog: Path) -> None:
    with sqlite3.connect(catalog / "index.sqlite") as db:
        db.execute("UPDATE records SET num_tokens = num_tokens + 1 WHERE offset = ?", (place(catalog, 4),))
    db.close()


def place(catalog: Path, number: int) -> int:
    """Gives the offset of a record."""
    with sqlite3.connect(catalog / "index.sqlite") as db:
        offsets = [offset for (offset,) in db.execute("SELECT offset FROM records ORDER BY offset")]
    db.close()
    return int(offsets[number])


@pytest.mark.parametrize(
    "case",
    [
        (_flip_a_byte, {4}),
        (_cut_the_file, {8, 9, 10, 11}),
        (_lose_the_file, set(range(12))),
        (_swap_rows, {4, 5}),
        (_lengthen_a_row, {4}),
    ],
)
def test_a_damaged_item_is_computed_named_and_repaired(
    engine: Path,
    catalog: Path,
    plain: dict[Any, Any],
    caplog: pytest.LogCaptureFixture,
    case: tuple[Callable[[Path], None], set[int]],
) -> None:
    damage, items = case
    damage(catalog)
    with caplog.at_level(logging.WARNING), open_(engine, catalog=catalog) as reranker:
        assert ratings(reranker) == plain
        assert ratings(reranker) == plain
        stats = reranker.stats()
        assert reranker.catalog is not None
        assert reranker.catalog.num_damaged == len(items)
    assert (stats.items_computed, stats.items_stored) == (len(items), 2 * (12 - len(items)))
    assert len(caplog.records) == 1
    assert "catalog verify" in caplog.text
    named = {int(damaged.item_id) for damaged in verify_catalog(catalog)}
    assert named == items
    counts, _ = build(engine, catalog, FILMS)
    assert (counts.kept, counts.computed, counts.repaired) == (12 - len(items), len(items), len(items))
    assert list(verify_catalog(catalog)) == []
    with open_(engine, catalog=catalog) as reranker:
        assert ratings(reranker) == plain
        assert reranker.stats().items_computed == 0


def test_a_damaged_index_is_told_and_built_anew(engine: Path, catalog: Path, plain: dict[Any, Any]) -> None:
    whole = contents(catalog)
    with (catalog / "index.sqlite").open("r+b") as file:
        file.write(b"torn" * 1024)
    with pytest.raises(CatalogError, match=r"index.sqlite: cannot be used"):
        open_(engine, catalog=catalog)
    with pytest.raises(CatalogError, match=r"index.sqlite: cannot be used"):
        list(verify_catalog(catalog))
    counts, _ = build(engine, catalog, FILMS)
    assert (counts.kept, counts.computed, counts.index_lost) == (0, 12, True)
    assert contents(catalog) == whole
    with open_(engine, catalog=catalog) as reranker:
        assert ratings(reranker) == plain


def test_it_is_read_while_it_changes(engine: Path, catalog: Path, plain: dict[Any, Any]) -> None:
    new = [Item(number, f"New {number}", "about the sea") for number in range(100, 140)]
    with open_(engine) as reranker:
        plainly = ratings(reranker, new)
    with open_(engine, catalog=catalog) as reranker:
        assert ratings(reranker) == plain
        build(engine, catalog, [*FILMS[1:], *new])
        assert ratings(reranker, new) == plainly
        build(engine, catalog, new[:2])  # more than half is waste now: the shard goes
        assert not (catalog / "items-00001.kv").exists()
        assert ratings(reranker, new) == plainly
        assert reranker.stats().items_computed == 38
        assert reranker.catalog is not None
        assert reranker.catalog.num_damaged == 0


def test_one_writer_at_a_time(engine: Path, tmp_path: Path) -> None:
    import fcntl

    from exp3rt_trt.jsonl import Line

    out = tmp_path / "catalog"
    tried: list[str] = []

    def try_lock(_: int) -> None:
        with (out / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                tried.append("free")
            except BlockingIOError:
                tried.append("held")

    with open_(engine) as reranker:
        line = Line("x:1", 1, {"item_id": 1, "title": "A film"}, None)
        build_catalog(out, [line], reranker.item_encoder(), progress=try_lock)
    try_lock(0)
    assert tried == ["held", "free"]


def test_a_closed_reranker_lets_go_of_it(engine: Path, catalog: Path) -> None:
    reranker = open_(engine, catalog=catalog)
    assert reranker.catalog is not None
    group = reranker.item_encoder().tokens([FILMS[0]])
    assert reranker.catalog.find(group[0]) is not None
    reranker.close()
    reranker.close()
    assert reranker.catalog.find(group[0]) is None


def test_a_stream_reads_the_catalogue_too(engine: Path, built: Path) -> None:
    with open_(engine, catalog=built) as reranker:

        async def main() -> int:
            return len([item async for item in await reranker.stream(USER, FILMS)])

        assert asyncio.run(main()) == len(FILMS)
        assert reranker.stats().items_stored == len(FILMS)
        assert reranker.stats().items_computed == 0
