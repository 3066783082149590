"""`exp3rt-trt catalog build`, `info` and `verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from exp3rt_trt.catalog import CatalogHeader, build_catalog, catalog_info, verify_catalog
from exp3rt_trt.catalog.header import HEADER
from exp3rt_trt.cli.display import console, paused, progress_bar
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.jsonl import read_lines
from exp3rt_trt.reranker import Reranker

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.catalog import Counts
    from exp3rt_trt.rating import RatingScale


def build_command(
    items: Path, engine: str, out: Path, *, scale: RatingScale, item_kv_dtype: str, threads: int
) -> None:
    """Build a catalogue; a faulty line is named on standard error, and the others go on.

    Raises:
        InvalidInputError: if the file cannot be read, or the engine is not a segmented student's.
        CatalogError: if the folder belongs to another engine, or cannot be written.
        typer.Exit: with code 1 if a line was faulty.
    """
    total = _count_lines(items)
    if not item_kv_dtype and (out / HEADER).exists():
        item_kv_dtype = CatalogHeader.load(out).item_kv_dtype
    with (
        Reranker.from_pretrained(
            engine, scale=scale, threads=threads, item_kv_dtype=item_kv_dtype
        ) as reranker,
        progress_bar("items") as bar,
    ):
        task = bar.add_task("Computing", total=total)

        def tell(words: str) -> None:
            with paused(bar):
                typer.echo(words, err=True)

        counts = build_catalog(
            out,
            read_lines(str(items)),
            reranker.item_encoder(),
            on_fault=tell,
            progress=lambda done: bar.update(task, completed=done),
        )
    typer.echo(_words(counts))
    if counts.faulty:
        raise typer.Exit(1)


def info_command(folder: Path) -> None:
    """Print what a catalogue holds.

    Raises:
        CatalogError: if the folder is no catalogue.
    """
    info = catalog_info(folder)
    header = info.header
    average = info.record_bytes / max(info.records, 1) / 1024
    rows = (
        ("items", f"{info.items}, {info.records} of them different"),
        ("bytes", f"{_mib(info.record_bytes)} of items, {average:.0f} KiB each on average"),
        ("on disk", f"{_mib(info.file_bytes)} in {info.shards} files"),
        ("format", f"{header.item_format}, at position {header.item_position}"),
        ("engine", header.engine),
        ("instructions", header.instructions),
    )
    table = Table(title=Text(str(folder)), show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, Text(value))
    console().print(table)


def verify_command(folder: Path) -> None:
    """Read every item; the damaged ones are named on standard error.

    Raises:
        CatalogError: if the folder is no catalogue.
        typer.Exit: with code 1 if an item is damaged.
    """
    damaged = 0
    with progress_bar("items") as bar:
        task = bar.add_task("Reading", total=None)
        for damage in verify_catalog(folder, lambda done, all_: bar.update(task, completed=done, total=all_)):
            damaged += 1
            with paused(bar):
                typer.echo(f"item_id {damage.item_id}: {damage.words}", err=True)
    items = catalog_info(folder).items
    typer.echo(f"{items} items, {damaged} damaged" if damaged else f"verified: all {items} items")
    if damaged:
        raise typer.Exit(1)


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be read: {error.strerror}") from error


def _words(counts: Counts) -> str:
    lost = "; the index was damaged, so nothing could be kept" if counts.index_lost else ""
    return (
        f"{counts.kept} kept, {counts.computed} computed ({counts.repaired} of them were damaged), "
        f"{counts.dropped} dropped, {counts.faulty} faulty{lost}"
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
