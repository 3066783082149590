"""Turns recorded JSON into docs/benchmarks.md and its plots.

    python benchmarks/report.py --results benchmarks/results --docs docs

Needs matplotlib (the extra [bench]). A record that is not there leaves its section out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plots
from tables import axes_table, compare_table, shown, table

if TYPE_CHECKING:
    from collections.abc import Sequence

Record = dict[str, Any]
FAULTS = ("lost", "doubled", "not_their_own", "logged_otherwise")
HEAD = """# Benchmarks

Made by `python benchmarks/report.py` of the records in [benchmarks/results](../benchmarks/results).
[benchmarks/README.md](../benchmarks/README.md) tells how; `make bench-record` repeats them.
"""


def read_records(folder: Path) -> list[Record]:
    """Read the records of a folder, by name."""
    return [
        {"file": path.stem, **json.loads(path.read_text("utf-8"))} for path in sorted(folder.glob("*.json"))
    ]


def of_kind(records: Sequence[Record], kind: str) -> list[Record]:
    """Return the records of one kind."""
    return [record for record in records if record.get("kind") == kind]


def machine(record: Record) -> str:
    """Return a line on where a record was made."""
    host = record["host"]
    facts = [
        f"{host['cores']} cores of {host['cpu']} ({', '.join(host['isa'])})",
        f"exp3rt_trt {host['exp3rt_trt']}",
    ]
    facts += (
        [f"{record['dtype']}, {record['threads']} threads, {record['isa']}"] if "threads" in record else []
    )
    return "; ".join(facts) + "."


def compare_section(record: Record) -> list[str]:
    """Tell one comparison with peers."""
    load = record["workload"]
    title = f"{record['mode'].capitalize()} mode, {load['users']} users, {load['candidates']} candidates"
    if record["reason_tokens"]:
        title += f", {record['reason_tokens']} tokens of reasoning"
    peers = {run["name"]: run["version"] for run in record["runs"] if "version" in run}
    versions = "".join(f" {name}: {version}." for name, version in peers.items())
    words = f"Medians of {record['rounds']} alternating runs of whole processes.{versions}"
    return [f"## {title}", "", f"{machine(record)} {words}", "", compare_table(record["summary"]), ""]


def latency_section(record: Record) -> list[str]:
    """Tell pytest-benchmark's groups."""
    rows = []
    for each in record["rows"]:
        info = each["extra_info"]
        tokens = f"{info['prompt_tokens_computed']:.0f} / {info['prompt_tokens_reused']:.0f}"
        cells = [each["group"], each["name"], info["candidates"], f"{info['p50_s'] * 1e3:.1f}"]
        rows.append([*cells, f"{info['p99_s'] * 1e3:.1f}", f"{info['candidates_per_s']:.1f}", tokens])
    header = [
        "group",
        "benchmark",
        "candidates",
        "p50 ms",
        "p99 ms",
        "candidates/s",
        "tokens computed / reused",
    ]
    return [
        "## Latency and throughput",
        "",
        f"{machine(record)} With few rounds, p99 is the slowest of them.",
        "",
        table(header, rows),
        "",
        "![latency](plots/latency.svg)",
        "",
    ]


def arrivals_section(record: Record) -> list[str]:
    """Tell the open loop."""
    rows = [
        [
            f"{row['rate']:.2f}",
            *(f"{row[key]:.2f}" for key in ("served_users_per_s", "goodput_users_per_s")),
            *(f"{row[key]:.3f}" for key in ("queue_mean_s", "queue_p99_s", "p50_s", "p99_s")),
        ]
        for row in record["rows"]
    ]
    header = ["users/s", "served/s", "in time/s", "queue mean s", "queue p99 s", "p50 s", "p99 s"]
    words = (
        f"{record['candidates']} candidates each, {record['mode']} mode, due in {record['deadline_s']:g} s"
    )
    return [
        "## Users who arrive at random",
        "",
        f"{machine(record)} Poisson arrivals of {record['users']} users, {words}.",
        "",
        table(header, rows),
        "",
        "![arrivals](plots/arrivals.svg)",
        "",
    ]


def load_section(record: Record) -> list[str]:
    """Tell what a server answered under load."""
    rows = [
        [
            f"{row['share']:g}",
            f"{row['rate']:.2f}",
            row["requests"],
            f"{row['admitted_per_s']:.2f}",
            row["by_status"].get("429", 0),
            *(f"{row[key] * 1e3:.0f}" for key in ("admitted_p50_s", "admitted_p99_s")),
            shown(1e3 * row["turned_away_p99_s"], 1) if "turned_away_p99_s" in row else "",
            sum(row[key] for key in FAULTS),
            f"{row['rss_growth']:.1%}",
        ]
        for row in record["rows"]
    ]
    header = [
        "load / capacity",
        "offered/s",
        "requests",
        "ranked/s",
        "turned away",
        "p50 ms",
        "p99 ms",
        "p99 ms of a 429",
        "lost, doubled or mistaken",
        "memory grown",
    ]
    title, plot = f"## Load over HTTP: {record['engine']}", f"![load](plots/{record['file']}.svg)"
    return [title, "", _served(record), "", table(header, rows), "", plot, ""]


def kill_section(record: Record) -> list[str]:
    """Tell what became of requests when a worker was killed."""
    columns = {
        "share": "load / capacity",
        "requests": "requests",
        "broken": "connections broken",
        "broken_within_s": "within s",
        "asked_after": "asked after",
        "ranked_after": "of them ranked",
        "turned_away_after": "turned away",
        "workers_after": "workers in the end",
    }
    rows = [[f"{row.get(name, 0):.4g}" for name in columns] for row in record["rows"]]
    words = "One of them was killed with SIGKILL in the middle."
    title = f"## A worker is killed: {record['engine']}"
    return [title, "", f"{_served(record)} {words}", "", table(list(columns.values()), rows), ""]


def _served(record: Record) -> str:
    sizes = f"{record['candidates']} candidates of {record['words']} words"
    options = f"--workers {record['workers']} {record['server_options']}".strip()
    return (
        f"{machine(record)} `exp3rt-trt serve {options}` and locust on the same cores; Poisson arrivals of "
        f"requests with {sizes}. Capacity, by a closed loop: {record['capacity_per_s']:.2f} a second."
    )


def scaling_section(record: Record) -> list[str]:
    """Tell the straight lines."""
    words = "Lines are fitted by least squares; expected is the operations' slope at the axis's best rate."
    plot = "![scaling](plots/scaling.svg)"
    return [
        "## How cost grows",
        "",
        f"{machine(record)} {words}",
        "",
        axes_table(record["axes"]),
        "",
        plot,
        "",
    ]


def roofline_section(record: Record) -> list[str]:
    """Tell the share of the machine's rate."""
    rows = [
        [
            each["mode"],
            each["candidates"],
            each["rows"],
            shown(each["gflop_per_s"], 1),
            shown(each["share_of_peak"]),
        ]
        for each in record["engine"]
    ]
    best = max(each["gflop_per_s"] for each in record["layer"])
    words = (
        f"A layer's bare products reach {best:.0f} GFLOP/s (PyTorch {record['torch']}; one thread's rate "
        f"times the threads); memory is read at {record['bandwidth_gb_per_s']:.1f} GB/s. Of reason mode, the "
        "writing alone."
    )
    found = table(("mode", "candidates", "rows of a step", "GFLOP/s", "share of the products' rate"), rows)
    plot = "![roofline](plots/roofline.svg)"
    return ["## Share of the machine", "", f"{machine(record)} {words}", "", found, "", plot, ""]


def item_length_section(record: Record) -> list[str]:
    """Tell what a pair costs when both sides are cached."""
    rows = []
    for row in record["rows"]:
        parts = ("seconds_a_pair", "attention_s", "rest_s", "python_s")
        cells = [f"{row[part] * 1e3:.3f}" for part in parts]
        rows.append(
            [row["tokens"], *cells, f"{row['item_bytes'] / 1e6:.2f}", f"{row['reading_s'] * 1e3:.3f}"]
        )
    header = [
        "tokens of the item",
        "ms a pair",
        "attention",
        "the rest of the engine",
        "Python",
        "MB",
        f"ms to read it at {record['bandwidth_gb_per_s']:.1f} GB/s",
    ]
    words = f"One user, {record['candidates']} candidates, items in memory in {record['item_dtype']}."
    lines = ["## A pair against the length of its item", "", f"{machine(record)} {words}", ""]
    return [*lines, table(header, rows), "", "![item length](plots/item_length.svg)", ""]


SECTIONS = {  # in the page's order
    "compare": compare_section,
    "latency": latency_section,
    "arrivals": arrivals_section,
    "load": load_section,
    "kill": kill_section,
    "scaling": scaling_section,
    "roofline": roofline_section,
    "item_length": item_length_section,
}


def write_report(records: Sequence[Record], docs: Path) -> None:
    """Write the page and the plots."""
    lines = [HEAD]
    (docs / "plots").mkdir(parents=True, exist_ok=True)
    for kind, section in SECTIONS.items():
        for record in of_kind(records, kind):
            lines += section(record)
            if kind in plots.PLOTS:
                plots.save(plots.PLOTS[kind](record), docs / "plots" / f"{record['file']}.svg")
    (docs / "benchmarks.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args(arguments)
    records = read_records(args.results)
    if not records:
        raise SystemExit(f"{args.results}: no records")
    write_report(records, args.docs)
    print(f"{args.docs / 'benchmarks.md'}: {len(records)} records")


if __name__ == "__main__":
    main()
