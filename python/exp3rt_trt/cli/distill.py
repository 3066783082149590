"""`exp3rt-trt distill` and `exp3rt-trt annotate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from exp3rt_trt.cli.display import console, progress_bar
from exp3rt_trt.distill.annotate import AnnotateOptions, annotate, quarantine_of
from exp3rt_trt.distill.recipe import read_recipe
from exp3rt_trt.distill.run import distill
from exp3rt_trt.distill.tasks import task_of
from exp3rt_trt.distill.teacher import Prices, Teacher

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class AnnotateCommand:
    """Options of `exp3rt-trt annotate`."""

    task: str
    model: str
    base_url: str | None
    show_rating: bool
    prices: Prices
    options: AnnotateOptions


def distill_command(path: Path) -> None:
    """Train, merge, build and evaluate a student, and print its figures."""
    made = distill(read_recipe(path), say=lambda step: typer.echo(f"step: {step}", err=True))
    out = console()
    out.print(f"validation: {_plain(made.validation)}")
    out.print(_errors(made.test))
    for name in ("adapter", "checkpoint", "engine"):
        out.print(f"{name}: {getattr(made, name)}", soft_wrap=True)


def annotate_command(rows: Path, out: Path, command: AnnotateCommand) -> None:
    """Annotate a file of rows, with a progress bar."""
    task = task_of(command.task, show_rating=command.show_rating)
    teacher = Teacher(command.model, base_url=command.base_url, prices=command.prices)
    with progress_bar(unit="rows") as bar:
        shown = bar.add_task(task.name, total=None)

        def progress(done: int, total: int) -> None:
            bar.update(shown, completed=done, total=total)

        held = annotate(task, rows, out, teacher, options=command.options, progress=progress)
    typer.echo(f"{out}: {held.written} rows; cost {held.cost:.4f}")
    if held.quarantined:
        typer.echo(f"{quarantine_of(out)}: {held.quarantined} rows could not be read", err=True)
    if held.left_out:
        typer.echo(f"{held.left_out} rows left out: the cost cap is reached", err=True)


def _errors(test: Mapping[str, Any]) -> Table:
    table = Table("test rows of", "method", "RMSE", "MAE", "Δ RMSE", "Δ MAE")
    for name, judged in test.items():
        for method in judged["methods"]:
            cells = [_interval(method["errors"][kind], "") for kind in ("rmse", "mae")]
            difference = method["difference"]
            cells += [_interval(difference[kind], "+") if difference else "" for kind in ("rmse", "mae")]
            table.add_row(name, method["name"], *cells)
    return table


def _interval(estimate: Mapping[str, float | None], sign: str) -> str:
    value, low, high = (estimate[end] for end in ("value", "low", "high"))
    return f"{value:{sign}.3f}" + (f" ({low:{sign}.3f}..{high:{sign}.3f})" if low is not None else "")


def _plain(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
