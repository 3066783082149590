"""The methods of a report side by side: a dot for each value, a line for its interval."""

from __future__ import annotations

import math
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
    rows = [panels for panels in (_rating_panels(report), _ranking_panels(report)) if panels]
    heights = [1 + 0.32 * len(panels[0][1]) for panels in rows]
    figure = require("matplotlib.figure", "evaluate").Figure(
        figsize=(1.8 + 3 * max(map(len, rows), default=1), sum(heights) + 0.3), layout="constrained"
    )
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights) if rows else []
    for panels, (part,) in zip(rows, parts, strict=True):
        for number, (axes, (title, methods)) in enumerate(
            zip(part.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)
        ):
            _panel(axes, title, methods, named=number == 0)
    level = f"{100 * report.settings.get('level', 0.95):g} %"
    figure.supxlabel(f"lines: {level} confidence, users resampled", fontsize="small", color="dimgrey")
    with matplotlib.rc_context({"svg.hashsalt": "exp3rt_trt", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _rating_panels(report: Report) -> list[Panel]:
    if report.ratings is None:
        return []
    methods = report.ratings.methods
    return [
        ("RMSE of ratings (less is better)", [(each.name, each.errors.rmse) for each in methods]),
        ("MAE of ratings (less is better)", [(each.name, each.errors.mae) for each in methods]),
    ]


def _ranking_panels(report: Report) -> list[Panel]:
    if report.ranking is None:
        return []
    panels: list[Panel] = []
    for metric, limit in report.ranking.limit.items():
        named = [(each.name, each.metrics[metric]) for each in report.ranking.methods]
        panels.append((f"{metric} (more is better)", [*named, ("best possible order", limit)]))
    return panels


def _panel(axes: Any, title: str, methods: Sequence[tuple[str, Estimate]], *, named: bool) -> None:  # noqa: ANN401
    for place, (_, estimate) in enumerate(methods):
        if not math.isfinite(estimate.value):
            continue  # nothing was rated; the name stands alone
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
