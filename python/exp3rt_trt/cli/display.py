"""How rankings and progress look in a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exp3rt_trt.rating import RatingScale
    from exp3rt_trt.results import RankedItem, RankedResults

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 120  # where the output is no terminal


def console() -> Console:
    """Return the console of standard output."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH)


def progress_bar(unit: str) -> Progress:
    """Return a progress bar on standard error, which vanishes when it is done."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
        redirect_stdout=False,  # it would end up on standard error
        redirect_stderr=False,
    )


@contextlib.contextmanager
def paused(bar: Progress) -> Iterator[None]:
    """Take the bar away while something else is printed."""
    bar.stop()
    try:
        yield
    finally:
        bar.start()


def distribution_bar(probabilities: Sequence[float]) -> str:
    """Draw a distribution with one block per label, the most likely one full."""
    most = max(probabilities)
    return "".join(_BLOCKS[round(p / most * (len(_BLOCKS) - 1))] for p in probabilities)


def ranking_table(results: RankedResults, scale: RatingScale, title: str) -> Table:
    """Lay out a ranking.

    Args:
        results: without an error.
        scale: of its distributions.
        title: above the table.
    """
    reasons = any(item.reasoning is not None for item in results)
    words = reasons or any(item.error is not None for item in results)
    table = Table(title=Text(title), title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("title", ratio=2 if words else None)
    table.add_column("rating", justify="right", no_wrap=True)
    table.add_column(f"{scale.values[0]:g} to {scale.values[-1]:g}", no_wrap=True)
    if words:
        table.add_column("reasoning" if reasons else "note", ratio=5)
    for item in results:
        table.add_row(*_row(item)[: len(table.columns)])
    return table


def _row(item: RankedItem) -> list[Text]:
    name = Text(_name(item))
    if item.expected_rating is None or item.probabilities is None:
        return [Text("-"), name, Text(item.status), Text(""), Text(item.error or "")]
    rating, bar = Text(f"{item.expected_rating:.2f}"), Text(distribution_bar(item.probabilities.tolist()))
    return [Text(str(item.rank)), name, rating, bar, Text(item.reasoning or "")]


def _name(item: RankedItem) -> str:
    """Give the title; a plain text's beginning; the id; or what a candidate without any of them has."""
    if item.title:
        return item.title
    if isinstance(item.item, str):
        return item.item[:60]
    if item.item_id is not None:
        return str(item.item_id)
    given = item.item if isinstance(item.item, Mapping) else {}
    return str(given.get("title") or given.get("description") or "(no title)")[:60]
