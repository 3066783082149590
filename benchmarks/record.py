"""Measures everything that docs/benchmarks.md shows, into benchmarks/results: `make bench-record`.

    python benchmarks/record.py --engine engines/smollm2-135m --workload FILE.jsonl --only vllm openvino

Every step runs other scripts in processes of their own; `--steps` repeats some alone. Sizes are for two cores
and less than 25 minutes. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
SCRATCH = Path("build/bench")
SCORE = ("--mode", "score", "--users", "2", "--candidates", "20")
REASON = ("--mode", "reason", "--users", "1", "--candidates", "16", "--reason-tokens", "128")


def steps(args: argparse.Namespace) -> dict[str, list[list[str]]]:
    """Return the commands of each step."""
    python, results = sys.executable, Path(args.results)
    ours = [python, "-c", "from exp3rt_trt.cli.app import main; main()"]
    engine, workload = ["--engine", args.engine], ["--workload", args.workload]
    exact = str(SCRATCH / "fp32")
    reference = {mode: str(SCRATCH / f"reference-{mode}.json") for mode in ("score", "reason")}

    def script(name: str, *given: str, out: str) -> list[str]:
        return [python, str(HERE / name), *engine, *given, "--json", str(results / out)]

    def compare(mode: str, sizes: Sequence[str], rounds: int) -> list[str]:
        given = [*workload, *sizes, "--rounds", str(rounds), "--reference", reference[mode]]
        given += ["--launcher", args.launcher] if args.launcher else []
        given += ["--engine", args.engine, *args.also]  # once more: the last one counts
        if args.only:
            given += ["--peers", args.peers, "--only", *args.only]
        return script("compare.py", *given, out=f"compare-{mode}.json")

    def rate(mode: str, sizes: Sequence[str]) -> list[str]:
        return [*ours, "bench", "--engine", exact, *workload, *sizes, "--json", reference[mode]]

    raw = str(SCRATCH / "latency.json")
    latency = [python, "-m", "pytest", "-q", str(HERE), "-k", "not checking", *engine]
    return {
        "reference": [
            [*ours, "build", "--model", args.model, "--dtype", "fp32", "--out", exact],
            rate("score", SCORE),
            rate("reason", REASON),
        ],
        "score": [compare("score", SCORE, args.rounds)],
        "reason": [compare("reason", REASON, max(1, args.rounds - 1))],
        "latency": [
            [*latency, f"--benchmark-json={raw}"],
            [python, str(HERE / "record_latency.py"), raw, str(results / "latency.json")],
        ],
        "arrivals": [script("arrivals.py", "--users", "24", "--candidates", "4", out="arrivals.json")],
        "scaling": [script("scaling.py", out="scaling.json")],
        "roofline": [script("roofline.py", out="roofline.json")],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the steps, and stop at the first that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", required=True)
    parser.add_argument("--also", nargs="*", default=[], help="more engines of ours, for the comparison")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="what the engine was built from")
    parser.add_argument("--workload", required=True)
    parser.add_argument("--peers", default=str(HERE / "peers" / "peers.toml"))
    parser.add_argument("--only", nargs="*", default=[], help="names of the peers to run; none by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", default=str(HERE / "results"))
    parser.add_argument("--launcher", default="", help="put before every command, e.g. 'taskset -c 0,1'")
    parser.add_argument("--steps", nargs="*", help="only these")
    args = parser.parse_args(arguments)
    if not Path(args.workload).is_file():
        raise SystemExit(f"workload {args.workload!r}: no such file; make bench-record WORKLOAD=FILE.jsonl")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    for name, commands in steps(args).items():
        if args.steps and name not in args.steps:
            continue
        started = time.perf_counter()
        for command in commands:
            launcher = [] if name in ("score", "reason") else shlex.split(args.launcher)
            subprocess.run([*launcher, *command], check=True)  # noqa: S603  (our own scripts)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
