"""Serves an engine, finds how many requests a second it answers, and offers it shares of that by locust.

    python benchmarks/load/run.py --engine engines/smollm2-135m-imdb --json benchmarks/results/load.json

A closed loop finds the capacity; then every share is an open loop of Poisson arrivals. Of every request it is
checked, in what locust saw and in the server's log, that it got one answer, and its own. With `--kill`, one
of the workers is killed in the middle of each share. Needs locust (the extra [bench]).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from answers import broken, faults, summary  # noqa: E402
from asking import Asking  # noqa: E402
from records import host, write_record  # noqa: E402
from server import Memory, Server  # noqa: E402
from shapes import SHAPES, make_engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = ("connections", "candidates", "words", "profile_words", "workers", "server_options")


def measure(args: argparse.Namespace, asking: Asking, server: Server) -> dict[str, Any]:
    """Return the capacity, and a row for each share."""
    asking.ask(server.address, args.warm_up, args.busy)
    closed = summary(asking.ask(server.address, args.warm_up, args.busy))
    if set(closed["by_status"]) != {"200"}:
        raise SystemExit(f"the closed loop got {closed['by_status']}; --busy {args.busy} is too many")
    capacity = closed["admitted_per_s"]
    _tell({"closed loop": args.busy, **closed})
    rows = []
    for share in (float(share) for share in args.shares.split(",")):
        rows.append({"share": share, "rate": share * capacity})
        rows[-1] |= offer(args, asking, server, share * capacity)
        _tell(rows[-1])
    return {"capacity_per_s": capacity, "closed": {"connections": args.busy, **closed}, "rows": rows}


def offer(args: argparse.Namespace, asking: Asking, server: Server, rate: float) -> dict[str, Any]:
    """Offer requests at a rate; return what became of them, and of the server."""
    pids = server.pids()
    kill_after_s = args.requests / rate / 2

    def kill() -> None:
        time.sleep(kill_after_s)
        os.kill(pids[0], signal.SIGKILL)

    with nullcontext() if args.kill else Memory(pids) as memory:
        given = (server.address, args.requests, args.connections, rate)
        rows = asking.ask(*given, kill if args.kill else None)
    row = {**summary(rows), **faults(rows, server.lines("request"))}
    if memory is None:
        return {**row, **broken(rows), "workers_after": len(server.pids())}
    first, most = memory.samples[0], max(memory.samples)
    return {**row, "rss_first_mib": first, "rss_most_mib": most, "rss_growth": most / first - 1}


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve, ask, print, record."""
    args = _options(arguments)
    engine = args.engine
    if args.random:
        out = Path("build/bench") / f"random-{args.random}"
        engine = make_engine(SHAPES[args.random], args.engine, out, "bf16")
    with tempfile.TemporaryDirectory() as folder:
        asking = Asking(args.candidates, args.words, args.profile_words, Path(folder))
        given = ["--workers", str(args.workers), *args.server_options.split()]
        with Server(engine, Path(folder) / "log", given) as server:
            found = measure(args, asking, server)
    if args.json is not None:
        record = {"kind": "kill" if args.kill else "load", "host": host(), "engine": engine.name}
        record |= {name: getattr(args, name) for name in SIZES}
        write_record(args.json, record | found)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--random", choices=SHAPES, help="serve random weights of this shape instead")
    parser.add_argument("--shares", default="0.2,0.4,0.6,0.8,1,1.2,1.5,2", help="of the capacity")
    parser.add_argument("--requests", type=int, default=200, help="of each share")
    parser.add_argument("--warm-up", type=int, default=100, help="requests of each of two closed loops")
    parser.add_argument("--busy", type=int, default=8, help="connections of a closed loop")
    parser.add_argument("--connections", type=int, default=200, help="of an open loop: most under way")
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--words", type=int, default=30, help="of a candidate")
    parser.add_argument("--profile-words", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kill", action="store_true", help="kill a worker in the middle of each share")
    parser.add_argument("--server-options", default="", help="more of exp3rt-trt serve, in one string")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def _tell(row: dict[str, Any]) -> None:
    print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    main()
