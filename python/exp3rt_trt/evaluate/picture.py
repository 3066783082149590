"""The methods of a report side by side: a dot for each value, a line for its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exp3rt_trt.extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exp3rt_trt.evaluate.bootstrap import Estimate
    from exp3rt_trt.evaluate.report import Report

Panel = tuple[str, list[tuple[str, "Estimate"]]]


def draw(report: Report, path: Path) -> None:
    """Write a picture of a report as SVG; the same report gives the same file.

    Args:
        report: with ratings or a ranking.
        path: file to write.
    """
    matplotlib = require("matplotlib", "evaluate")
    panels = _panels(report)
    columns = min(3, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    tallest = max((len(methods) for _, methods in panels), default=1)
    figure = require("matplotlib.figure", "evaluate").Figure(
        figsize=(1.8 + 3.1 * columns, rows * (1.1 + 0.3 * tallest)), layout="constrained"
    )
    for number, (title, methods) in enumerate(panels, start=1):
        _panel(
            figure.add_subplot(rows, columns, number),
            title,
            methods,
            named=number % columns == 1 or columns == 1,
        )
    level = f"{100 * report.settings.get('level', 0.95):g} %"
    figure.supxlabel(f"lines: {level} confidence, users resampled", fontsize="small", color="dimgrey")
    with matplotlib.rc_context({"svg.hashsalt": "exp3rt_trt", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _panels(report: Report) -> list[Panel]:
    panels: list[Panel] = []
    if report.ratings is not None:
        methods = report.ratings.methods
        panels += [
            ("RMSE of ratings (less is better)", [(each.name, each.errors.rmse) for each in methods]),
            ("MAE of ratings (less is better)", [(each.name, each.errors.mae) for each in methods]),
        ]
    if report.ranking is not None:
        for metric, limit in report.ranking.limit.items():
            named = [(each.name, each.metrics[metric]) for each in report.ranking.methods]
            panels.append((f"{metric} (more is better)", [*named, ("best possible order", limit)]))
    return panels


def _panel(axes: Any, title: str, methods: Sequence[tuple[str, Estimate]], *, named: bool) -> None:  # noqa: ANN401
    for place, (_, estimate) in enumerate(methods):
        if estimate.low is not None and estimate.high is not None:
            axes.hlines(place, estimate.low, estimate.high, color="C0", linewidth=2)
        axes.plot(estimate.value, place, "o", color="C0")
        axes.annotate(
            f"{estimate.value:.3f}",
            (estimate.value, place),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    axes.set_ylim(len(methods) - 0.5, -0.8)  # the first on top
    axes.set_yticks(range(len(methods)), [name for name, _ in methods])
    axes.tick_params(axis="y", length=0, labelleft=named)
    axes.set_title(title, fontsize="medium")
    axes.grid(axis="x", color="lightgrey", linewidth=0.5)
    axes.margins(x=0.12)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
