"""Users arrive at random, whether or not the engine keeps up: waiting, latency, and what is done in time.

    python benchmarks/arrivals.py --engine engines/smollm2-135m --rates 0.5,1,2,4 --json arrivals.json

An open loop: users arrive as a Poisson process (seeded), each new to the cache, with so many candidates,
and call `Reranker.arank`. *Goodput* is how many users a second had their ranking within the deadline.
Rankings are not cut off at the deadline, so that latencies tell the whole wait.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exp3rt_trt import Reranker
from measure import engine_facts
from records import host, percentile, write_record
from workloads import make_candidates, make_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.prompts import Mode


@dataclass(frozen=True)
class Load:
    """Users who arrive.

    Args:
        rate: of arrivals, users a second.
        duration_s: of the arrivals; the last ones are waited for.
        candidates: of each user.
        mode: "score" or "reason".
        deadline_s: within which a ranking is worth something.
        seed: of arrivals and texts.
    """

    rate: float
    duration_s: float
    candidates: int
    mode: Mode
    deadline_s: float
    seed: int


@dataclass(frozen=True)
class Served:
    """One user's wait, from the time of arrival that was planned."""

    latency_s: float
    queue_s: float
    ok: bool


def arrival_times(load: Load) -> list[float]:
    """Return when users arrive, in seconds from the start; at least one."""
    source = random.Random(load.seed)  # noqa: S311  (no secrets here)
    times = [source.expovariate(load.rate)]
    while times[-1] < load.duration_s:
        times.append(times[-1] + source.expovariate(load.rate))
    return times[:-1] or [0.0]


async def serve(reranker: Reranker, load: Load) -> dict[str, Any]:
    """Let users arrive, and return what became of them."""
    started = time.perf_counter()
    tasks = []
    for number, at in enumerate(arrival_times(load)):
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        tasks.append(asyncio.create_task(_one(reranker, load, number, started + at)))
    served = await asyncio.gather(*tasks)
    return summary(load, served, time.perf_counter() - started)


async def _one(reranker: Reranker, load: Load, number: int, arrived: float) -> Served:
    user = make_user(number, seed=load.seed)
    candidates = make_candidates(load.candidates, seed=load.seed * 100_000 + number)
    ranked = await reranker.arank(user, candidates, mode=load.mode)
    ok = all(item.status == "ok" for item in ranked)
    return Served(time.perf_counter() - arrived, ranked.queue_s, ok)


def summary(load: Load, served: Sequence[Served], seconds: float) -> dict[str, Any]:
    """Return rates, waits and goodput, per second of the whole run until the last result."""
    latencies = [one.latency_s for one in served]
    in_time = sum(one.ok and one.latency_s <= load.deadline_s for one in served)
    return {
        "rate": load.rate,
        "offered_users_per_s": len(served) / load.duration_s,
        "served_users_per_s": len(served) / seconds,
        "goodput_users_per_s": in_time / seconds,
        "in_time_share": in_time / len(served),
        "users": len(served),
        "failed": sum(not one.ok for one in served),
        "queue_mean_s": sum(one.queue_s for one in served) / len(served),
        "queue_p99_s": percentile([one.queue_s for one in served], 99),
        "p50_s": percentile(latencies, 50),
        "p99_s": percentile(latencies, 99),
    }


def run(reranker: Reranker, loads: Sequence[Load]) -> list[dict[str, Any]]:
    """Serve one load after another."""
    reranker.rank(make_user(0, seed=-1), make_candidates(1, seed=-1))  # the instructions are in the cache
    rows = []
    for load in loads:
        rows.append(asyncio.run(serve(reranker, load)))
        print(" ".join(f"{name}={value:.4g}" for name, value in rows[-1].items()))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", required=True)
    parser.add_argument("--rates", default="0.5,1,2,4", help="users a second, one run each")
    parser.add_argument("--duration-s", type=float, default=30)
    parser.add_argument("--candidates", type=int, default=10, help="of each user")
    parser.add_argument("--mode", choices=["score", "reason"], default="score")
    parser.add_argument("--reason-tokens", type=int, default=64, help="where reasoning is cut off")
    parser.add_argument("--deadline-s", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    loads = [
        Load(float(rate), args.duration_s, args.candidates, args.mode, args.deadline_s, args.seed + number)
        for number, rate in enumerate(args.rates.split(","))
    ]
    with Reranker.from_pretrained(
        args.engine, threads=args.threads, max_reasoning_tokens=args.reason_tokens
    ) as reranker:
        rows = run(reranker, loads)
        facts = engine_facts(reranker)
    if args.json is not None:
        settings = {
            name: getattr(args, name) for name in ("duration_s", "candidates", "mode", "deadline_s", "seed")
        }
        write_record(args.json, {"kind": "arrivals", "host": host(), **facts, **settings, "rows": rows})


if __name__ == "__main__":
    main()
