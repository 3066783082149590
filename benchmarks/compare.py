"""Runs our engine and its peers alternately on one workload, and prints how they compare.

    python benchmarks/compare.py --engine engines/smollm2-135m --peers benchmarks/peers/peers.toml \
        --workload FILE.jsonl --mode score --users 2 --rounds 3 --json compare.json

Each run is a process of its own. One round is one run of ours and one of every peer; the table has medians
over the rounds. With `--reference OUT.json` (what `exp3rt-trt bench` or a peer wrote in float32 for the
same prompts) it also tells how far the expected ratings are off. The JSON file keeps every run, without
texts and ids.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exp3rt_trt.cli.bench import read_workload
from records import host, median, workload_facts, write_record
from tables import compare_table, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

MEASURED = ("candidates_per_s", "load_s", "peak_rss_mib", "max_abs_difference", "mean_abs_difference")
OURS = "exp3rt_trt"


@dataclass(frozen=True)
class Entrant:
    """A program with the command line of `exp3rt-trt bench`, and what else it is given."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def read_peers(path: Path, only: Sequence[str]) -> list[Entrant]:
    """Read peers from a TOML file; see peers/peers.toml for its fields."""
    found = []
    for peer in tomllib.loads(path.read_text(encoding="utf-8"))["peer"]:
        if only and peer["name"] not in only:
            continue
        python, model = (os.path.expandvars(Path(peer[key]).expanduser()) for key in ("python", "model"))
        script = path.parent / peer["script"]
        command = (python, str(script), "--model", model, *peer.get("args", []))
        environment = {name: os.path.expandvars(value) for name, value in peer.get("environment", {}).items()}
        found.append(Entrant(peer["name"], command, environment))
    return found


def our_engines(engines: Sequence[str]) -> list[Entrant]:
    """Return an entrant for each of our engines; the first has the package's name alone."""
    program = (sys.executable, "-c", "from exp3rt_trt.cli.app import main; main()", "bench", "--engine")
    names = [OURS, *(f"{OURS} {Path(engine).name}" for engine in engines[1:])]
    return [Entrant(name, (*program, engine)) for name, engine in zip(names, engines, strict=True)]


def shared_arguments(args: argparse.Namespace) -> list[str]:
    """Return what every entrant is given, but for the file that it writes."""
    names = ("workload", "mode", "reason_tokens", "users", "candidates", "threads")
    given = {f"--{name.replace('_', '-')}": getattr(args, name) for name in names}
    return [word for option, value in given.items() if value for word in (option, str(value))]


def run_once(
    entrant: Entrant, arguments: Sequence[str], launcher: Sequence[str], limit_s: float
) -> dict[str, Any]:
    """Run an entrant in a process of its own; return its JSON, or {"error"} if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [*launcher, *entrant.command, *arguments, "--json", str(out)]
        started = time.perf_counter()
        try:
            run = subprocess.run(  # noqa: S603  (what the user listed)
                command,
                env={**os.environ, **entrant.environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=limit_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"{entrant.name}: {error}", file=sys.stderr)
            return {"error": type(error).__name__}
        if run.returncode != 0 or not out.exists():
            print(f"{entrant.name} failed:\n{run.stderr[-2000:]}", file=sys.stderr)
            return {"error": f"exit status {run.returncode}"}
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return {**result, "process_s": time.perf_counter() - started}


def differences(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Compare expected ratings with a reference's, candidate by candidate.

    Returns:
        Largest and mean absolute difference, and in reason mode the share of candidates with the same words.

    Raises:
        ValueError: if the two did not rate the same candidates.
    """
    pairs = []
    for found, expected in zip(result["users"], reference["users"], strict=False):
        if [item["item_id"] for item in found["items"]] != [i["item_id"] for i in expected["items"]][
            : len(found["items"])
        ]:
            raise ValueError("the reference has other candidates")
        pairs += list(zip(found["items"], expected["items"], strict=False))
    if len(pairs) != sum(len(user["items"]) for user in result["users"]):
        raise ValueError("the reference has fewer candidates")
    away = [abs(one["expected_rating"] - other["expected_rating"]) for one, other in pairs]
    compared = {"max_abs_difference": max(away), "mean_abs_difference": sum(away) / len(away)}
    if pairs[0][0]["reasoning"] is not None:
        same = [one["reasoning"] == other["reasoning"] for one, other in pairs]
        compared["same_reasoning_share"] = sum(same) / len(same)
    return compared


def run_all(
    entrants: Sequence[Entrant],
    arguments: Sequence[str],
    *,
    rounds: int,
    reference: dict[str, Any] | None,
    launcher: Sequence[str],
    limit_s: float,
) -> list[dict[str, Any]]:
    """Run everyone once a round; a run's record has no texts. Who fails is not asked again."""
    runs: list[dict[str, Any]] = []
    failed: set[str] = set()
    for number in range(rounds):
        for entrant in (each for each in entrants if each.name not in failed):
            load = os.getloadavg()[0]
            if load > 1 and number == 0 and entrant is entrants[0]:
                print(f"other work is going on (load {load:.1f}): figures will be low", file=sys.stderr)
            result = run_once(entrant, arguments, launcher, limit_s)
            if "error" in result:
                failed.add(entrant.name)
            elif reference is not None:
                result.update(differences(result, reference))
            result.pop("users", None)
            runs.append({"name": entrant.name, "round": number, "load_average_before": load, **result})
            speed = result.get("candidates_per_s")
            print(f"round {number + 1}: {entrant.name}: {shown(speed)} candidates/s", file=sys.stderr)
    return runs


def summarize(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return medians by entrant, and how many times faster ours is."""
    rows = []
    for name in dict.fromkeys(run["name"] for run in runs):
        mine = [run for run in runs if run["name"] == name]
        row: dict[str, Any] = {"name": name, "runs": sum("error" not in run for run in mine)}
        row.update({key: median(run.get(key) for run in mine) for key in MEASURED})
        row["dtype"] = next((run["dtype"] for run in mine if "dtype" in run), None)
        rows.append(row)
    ours = next((row["candidates_per_s"] for row in rows if row["name"] == OURS), None)
    for row in rows:
        theirs = row["candidates_per_s"]
        row["ours_over_theirs"] = ours / theirs if ours and theirs else None
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--engine", nargs="+", required=True, help="engine directories; ratios are to the first"
    )
    parser.add_argument("--peers", type=Path, help="TOML file; without it only ours runs")
    parser.add_argument("--only", nargs="*", default=[], help="names of the peers to run; default all")
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--mode", choices=["score", "reason"], default="score")
    parser.add_argument("--users", type=int)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--reason-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="of everyone; 0 for all cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference", type=Path, help="a result in float32 for the same prompts")
    parser.add_argument("--launcher", default="", help="put before each command, e.g. 'taskset -c 0,1'")
    parser.add_argument("--limit-s", type=float, default=1800, help="when a run is given up")
    parser.add_argument("--json", type=Path, help="file for the record")
    args = parser.parse_args(arguments)
    users = list(read_workload(args.workload, args.users, args.candidates))
    entrants = [*our_engines(args.engine), *(read_peers(args.peers, args.only) if args.peers else [])]
    reference = json.loads(args.reference.read_text(encoding="utf-8")) if args.reference else None
    runs = run_all(
        entrants,
        shared_arguments(args),
        rounds=args.rounds,
        reference=reference,
        launcher=shlex.split(args.launcher),
        limit_s=args.limit_s,
    )
    rows = summarize(runs)
    print(compare_table(rows))
    if args.json is not None:
        record = {
            "kind": "compare",
            "mode": args.mode,
            "reason_tokens": args.reason_tokens if args.mode == "reason" else 0,
            "workload": workload_facts(args.workload, users),
            "rounds": args.rounds,
            "host": host(),
            "summary": rows,
            "runs": runs,
        }
        write_record(args.json, record)


if __name__ == "__main__":
    main()
