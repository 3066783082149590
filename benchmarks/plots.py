"""The plots of report.py: each takes a record and returns a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

Record = dict[str, Any]
AXES = {"model": "GFLOP of the job", "prefix": "prefix tokens", "written": "reasoning tokens"}
mpl.rcParams["svg.hashsalt"] = "exp3rt_trt"  # the same record gives the same file


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, without the time."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def latency(record: Record) -> Figure:
    """Plot p50 and p99 of one user against candidates, for a cold and a warm prefix."""
    figure, axes = _figure("candidates of one user", "ms")
    for name, colour in (("warm_prefix", "C0"), ("cold_prefix", "C1")):
        rows = [each["extra_info"] for each in record["rows"] if each["name"].startswith(f"test_{name}[")]
        x = [info["candidates"] for info in rows]
        for key, style in (("p50_s", "-o"), ("p99_s", "--^")):
            label = f"{name.replace('_', ' ')}, {key[:3]}"
            axes.plot(x, [info[key] * 1e3 for info in rows], style, color=colour, label=label)
    axes.legend()
    return figure


def arrivals(record: Record) -> Figure:
    """Plot latency, time in queue and goodput against the rate of arrivals."""
    figure, axes = _figure("arriving users a second", "s")
    x = [row["rate"] for row in record["rows"]]
    for key, label in (("p99_s", "p99"), ("p50_s", "p50"), ("queue_mean_s", "mean time in queue")):
        axes.plot(x, [row[key] for row in record["rows"]], "-o", label=label)
    axes.axhline(record["deadline_s"], color="grey", linestyle=":", label="deadline")
    right = axes.twinx()
    right.plot(x, [row["goodput_users_per_s"] for row in record["rows"]], "--s", color="C3", label="goodput")
    right.set_ylabel("users in time, a second")
    right.set_ylim(bottom=0)
    lines = [*axes.get_lines(), *right.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines])
    return figure


def load(record: Record) -> Figure:
    """Plot latency of what was ranked and of what was turned away, and rankings a second, against load."""
    figure, axes = _figure("requests offered a second", "s")
    rows = record["rows"]
    x = [row["rate"] for row in rows]
    for key, colour in (("p50", "C0"), ("p99", "C1")):
        axes.plot(x, [row[f"admitted_{key}_s"] for row in rows], "-o", color=colour, label=key)
    away = [(row["rate"], row["turned_away_p99_s"]) for row in rows if "turned_away_p99_s" in row]
    if away:
        axes.plot(*zip(*away, strict=True), "-o", color="C2", label="turned away, p99")
    axes.set_yscale("log")
    axes.axvline(record["capacity_per_s"], color="grey", linestyle=":", label="capacity")
    right = axes.twinx()
    right.plot(x, [row["admitted_per_s"] for row in rows], "--s", color="C3", label="ranked a second")
    right.set_ylabel("requests ranked a second")
    right.set_ylim(bottom=0)
    lines = [*axes.get_lines(), *right.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="center right", fontsize="small")
    return figure


def scaling(record: Record) -> Figure:
    """Plot time against each size, the fitted line, and dotted the operations at the best point's rate."""
    found = [axis for axis in record["axes"] if "fit" in axis]
    figure = Figure(figsize=(8, 2.8 * -(-len(found) // 2)))
    for number, axis in enumerate(found, start=1):
        axes = figure.add_subplot(-(-len(found) // 2), 2, number)
        x = [_position(axis, point) for point in axis["points"]]
        axes.plot(x, [point["seconds"] for point in axis["points"]], "o")
        best = max(point["gflop_per_s"] for point in axis["points"])
        axes.plot(x, [point["gflop"] / best for point in axis["points"]], ":", color="grey")
        ends = [min(x), max(x)]
        axes.plot(ends, [axis["fit"]["intercept_s"] + axis["fit"]["slope_s"] * end for end in ends], "-")
        for at, point in zip(x, axis["points"], strict=True):
            if "model" in point:
                axes.annotate(point["model"], (at, point["seconds"]), (6, -8), textcoords="offset points")
        axes.set_xlabel(AXES.get(axis["axis"], axis["axis"]))
        axes.set_ylabel("s")
        axes.set_title(f"R² = {axis['fit']['r2']:.4f}", fontsize="medium")
    return figure


def roofline(record: Record) -> Figure:
    """Plot rates against the rows that meet a matrix together, under the two roofs."""
    figure, axes = _figure("rows that meet a matrix together", "GFLOP/s")
    layer = record["layer"]
    axes.loglog(
        [e["rows"] for e in layer],
        [e["gflop_per_s"] for e in layer],
        "-",
        color="grey",
        label="bare products",
    )
    rows = [each["rows"] for each in layer]
    roof = [2 * count / record["weight_bytes"] * record["bandwidth_gb_per_s"] for count in rows]
    best = max(each["gflop_per_s"] for each in layer)
    under = [(count, rate) for count, rate in zip(rows, roof, strict=True) if rate < 2 * best]
    axes.plot(
        *zip(*under, strict=True) if under else ([], []), ":", color="grey", label="weights read from memory"
    )
    for mode, marker in (("score", "o"), ("reason", "s")):
        points = [each for each in record["engine"] if each["mode"] == mode and each["gflop_per_s"]]
        axes.plot(
            [e["rows"] for e in points], [e["gflop_per_s"] for e in points], marker, label=f"{mode} mode"
        )
    axes.legend()
    return figure


def item_length(record: Record) -> Figure:
    """Plot a pair's time against the tokens of its item, its parts, and what reading the item takes."""
    figure, axes = _figure("tokens of the item", "ms a pair")
    tokens = [row["tokens"] for row in record["rows"]]
    axes.plot(tokens, [row["seconds_a_pair"] * 1e3 for row in record["rows"]], "-o", label="a pair")
    for part, label in (
        ("attention_s", "attention"),
        ("rest_s", "rest of the engine"),
        ("python_s", "Python"),
    ):
        axes.plot(tokens, [row[part] * 1e3 for row in record["rows"]], "-", label=label)
    reading = [row["reading_s"] * 1e3 for row in record["rows"]]
    label = f"its item read at {record['bandwidth_gb_per_s']:.1f} GB/s"
    axes.plot(tokens, reading, ":", color="grey", label=label)
    axes.legend()
    return figure


PLOTS: dict[str, Callable[[Record], Figure]] = {
    "latency": latency,
    "arrivals": arrivals,
    "load": load,
    "scaling": scaling,
    "roofline": roofline,
    "item_length": item_length,
}


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3.6))
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _position(axis: Record, point: Record) -> float:
    if axis["axis"] == "model":
        return float(point["gflop"])
    return float(point["prefix_tokens"] if axis["axis"] == "prefix" else point["size"])
