"""Users arrive at random, whether or not the engine keeps up: waiting, latency, and what is done in time.

    python benchmarks/arrivals.py --engine engines/smollm2-135m --json arrivals.json

An open loop: users arrive as a Poisson process (seeded), each new to the cache, with so many candidates, and
call `Reranker.arank`. Rates are shares of what the engine does with many users at once, or given (`--rates`);
above that the queue grows as long as users come. *Goodput* is how many users a second had their ranking
before the deadline. Rankings are not cut off there, so that latencies tell the whole wait.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from dataclasses import dataclass, replace
from itertools import accumulate
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
        users: who arrive; the last ones are waited for.
        candidates: of each user.
        mode: "score" or "reason".
        deadline_s: within which a ranking is worth something.
        seed: of arrivals and texts.
    """

    rate: float
    users: int
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
    """Return when users arrive, in seconds from the start."""
    source = random.Random(load.seed)  # noqa: S311  (no secrets here)
    return list(accumulate(source.expovariate(load.rate) for _ in range(load.users)))


async def serve(reranker: Reranker, load: Load) -> dict[str, Any]:
    """Let users arrive, and return what became of them."""
    started = time.perf_counter()
    tasks = []
    times = arrival_times(load)
    for number, at in enumerate(times):
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        tasks.append(asyncio.create_task(_one(reranker, load, number, started + at)))
    served = await asyncio.gather(*tasks)
    return summary(load, served, times[-1], time.perf_counter() - started)


async def _one(reranker: Reranker, load: Load, number: int, arrived: float) -> Served:
    user = make_user(number, seed=load.seed)
    candidates = make_candidates(load.candidates, seed=load.seed * 100_000 + number)
    ranked = await reranker.arank(user, candidates, mode=load.mode)
    ok = all(item.status == "ok" for item in ranked)
    return Served(time.perf_counter() - arrived, ranked.queue_s, ok)


def summary(load: Load, served: Sequence[Served], arriving_s: float, seconds: float) -> dict[str, Any]:
    """Return rates, waits and goodput; the latter per second until the last result."""
    latencies = [one.latency_s for one in served]
    in_time = sum(one.ok and one.latency_s <= load.deadline_s for one in served)
    return {
        "rate": load.rate,
        "offered_users_per_s": len(served) / arriving_s,
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


def capacity(reranker: Reranker, load: Load) -> float:
    """Return how many users a second the engine serves when all are there at once."""
    jobs = [
        (make_user(number, seed=-load.seed - 1), make_candidates(load.candidates, seed=-number - 1))
        for number in range(load.users)
    ]
    started = time.perf_counter()
    for _ in reranker.rank_many(jobs, mode=load.mode):
        pass
    return load.users / (time.perf_counter() - started)


def run(reranker: Reranker, loads: Sequence[Load]) -> list[dict[str, Any]]:
    """Serve one load after another."""
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
    parser.add_argument("--rates", help="users a second, one run each")
    parser.add_argument("--shares", default="0.3,0.6,0.9,1.2", help="instead: shares of the most it does")
    parser.add_argument("--users", type=int, default=30, help="of each run")
    parser.add_argument("--candidates", type=int, default=10, help="of each user")
    parser.add_argument("--mode", choices=["score", "reason"], default="score")
    parser.add_argument("--reason-tokens", type=int, default=64, help="where reasoning is cut off")
    parser.add_argument("--deadline-s", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    one = Load(1.0, args.users, args.candidates, args.mode, args.deadline_s, args.seed)
    with Reranker.from_pretrained(
        args.engine, threads=args.threads, max_reasoning_tokens=args.reason_tokens
    ) as reranker:
        reranker.rank(make_user(0, seed=-1), make_candidates(1, seed=-1))  # the instructions are in the cache
        most = capacity(reranker, one)
        rates = args.rates.split(",") if args.rates else [float(s) * most for s in args.shares.split(",")]
        loads = [replace(one, rate=float(rate), seed=args.seed + n) for n, rate in enumerate(rates)]
        rows = run(reranker, loads)
        facts = engine_facts(reranker)
    if args.json is not None:
        settings = {
            name: getattr(args, name) for name in ("users", "candidates", "mode", "deadline_s", "seed")
        }
        write_record(
            args.json,
            {
                "kind": "arrivals",
                "host": host(),
                **facts,
                **settings,
                "capacity_users_per_s": most,
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
