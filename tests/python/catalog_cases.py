"""Items, files of them and damage, for all tests of catalogues."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from exp3rt_trt import Reranker
from exp3rt_trt.catalog import Counts, build_catalog
from exp3rt_trt.jsonl import read_lines
from segmented import film

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from exp3rt_trt import Item

FILMS = [film(number) for number in range(12)]


def open_(engine: Path, **options: Any) -> Reranker:
    return Reranker.from_pretrained(engine, **{"threads": 1, "kv_cache_mib": 64, **options})


def write_items(path: Path, items: Iterable[Item | str]) -> Path:
    """Writes items, and texts as they are, a line each."""
    lines = [
        item
        if isinstance(item, str)
        else json.dumps({"item_id": item.item_id, "title": item.title, "description": item.description})
        for item in items
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def build(engine: Path, out: Path, items: Iterable[Item | str], **options: Any) -> tuple[Counts, list[str]]:
    """Builds a catalogue; gives the counts and the faults."""
    faults: list[str] = []
    lines = read_lines(str(write_items(out.with_name(f"{out.name}.jsonl"), items)))
    with open_(engine, **options) as reranker:
        counts = build_catalog(out, lines, reranker.item_encoder(), on_fault=faults.append)
        assert reranker.stats().items_computed == counts.computed
    return counts, faults


def flip(path: Path, offset: int) -> None:
    """Flips a bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def contents(folder: Path) -> dict[str, bytes]:
    """Gives the bytes of a catalogue's items."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.kv"))}
