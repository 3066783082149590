"""Markdown tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPARED = (
    "engine",
    "dtype",
    "candidates/s",
    "ours / theirs",
    "load s",
    "peak RSS MiB",
    "max difference",
    "mean",
)
AXIS = ("axis", "range", "slope", "expected slope", "GFLOP/s along the line", "R^2")


def shown(value: float | None, digits: int = 2) -> str:
    """Return a number for people; a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def compare_table(summary: Sequence[dict[str, Any]]) -> str:
    """Return the summary of compare.py."""
    rows = [
        [
            row["name"],
            row["dtype"] or "failed",
            *(shown(row[key]) for key in ("candidates_per_s", "ours_over_theirs", "load_s")),
            shown(row["peak_rss_mib"], 0),
            shown(row["max_abs_difference"], 4),
            shown(row["mean_abs_difference"], 5),
        ]
        for row in summary
    ]
    return table(COMPARED, rows)


def axes_table(axes: Sequence[dict[str, Any]]) -> str:
    """Return the lines of scaling.py."""
    rows = []
    for axis in (each for each in axes if "fit" in each):
        line, points = axis["fit"], axis["points"]
        ends = " to ".join(str(points[i].get("model", points[i].get("size"))) for i in (0, -1))
        unit = "ms a GFLOP" if axis["axis"] == "model" else "ms"
        slopes = (f"{line[name] * 1e3:.3f} {unit}" for name in ("slope_s", "expected_slope_s"))
        rows.append([axis["axis"], ends, *slopes, shown(line["gflop_per_s"], 1), shown(line["r2"], 4)])
    return table(AXIS, rows)
