"""Users who come back to replicas on Ray Serve, by session and by Ray's own choice, beside a simulation.

    python benchmarks/routing.py --engine engines/smollm2-135m --json routing.json

The same visits, open loop, go to two applications of real replicas one after the other. The hit rate is the
share of users' prefix tokens that replicas found in their caches, from the counters of each replica's
Reranker. The simulation (routing_simulation.py) plays the same visits at the speed that those counters tell,
with several seeds of the ring and of the choices.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from exp3rt_trt import Reranker
from records import host, percentile, write_record
from routing_simulation import Fleet, simulate
from routing_trace import Cost, Trace, costs_of, hit_rate, make_trace, visit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.serve.handle import DeploymentHandle

SEEDS = range(20)


def replay(handle: DeploymentHandle, trace: Trace) -> dict[str, Any]:
    """Send a trace to replicas and return what they computed, by their own counters.

    The replicas have seen one visit each before, so that the instructions are in their caches.
    """
    nobody = visit_of(max(trace.users) + 1, trace.candidates)
    handle.broadcast("rank", *nobody).results()
    before = _stats(handle)
    latencies = asyncio.run(_send(handle, trace))
    after = _stats(handle)

    def grown(name: str) -> list[float]:
        return [after[replica][name] - before[replica][name] for replica in after]

    return {
        "prompt_tokens_computed": sum(grown("prompt_tokens_computed")),
        "compute_s": sum(grown("compute_s")),
        "visits_by_replica": sorted(grown("groups_done")),
        "blocks_total": next(iter(after.values()))["blocks_total"],
        "latencies_s": latencies,
    }


def _stats(handle: DeploymentHandle) -> dict[str, dict[str, Any]]:
    return {each["replica"]: each for each in handle.broadcast("stats").results()}


async def _send(handle: DeploymentHandle, trace: Trace) -> list[float]:
    start = time.monotonic()

    async def visit(at_s: float, user: int) -> float:
        planned = start + at_s
        await asyncio.sleep(planned - time.monotonic())
        session = handle.options(session_id=f"user {user}")
        await session.rank.remote(*visit_of(user, trace.candidates))
        return time.monotonic() - planned

    return await asyncio.gather(*map(visit, trace.at_s, trace.users))


def simulated(trace: Trace, costs: dict[int, Cost], fleet: Fleet) -> dict[str, Any]:
    """Return what the simulation says, over all seeds."""
    runs = [simulate(trace, costs, fleet, seed) for seed in SEEDS]
    rates = [hit_rate(trace, costs, sum(visit.tokens for visit in run)) for run in runs]
    waits = [percentile([visit.latency_s for visit in run], 95) for run in runs]
    return {
        "hit_rate": mean(rates),
        "least_hit_rate": min(rates),
        "most_hit_rate": max(rates),
        "latency_p95_s": mean(waits),
        "elsewhere": mean(sum(visit.elsewhere for visit in run) for run in runs),
    }


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Play one trace on both kinds of routing, on replicas and in the simulation."""
    from exp3rt_trt.integrations.ray_serve import application  # noqa: PLC0415  (heavy)
    from ray import serve  # noqa: PLC0415

    trace = make_trace(
        users=options.users,
        visits=options.visits,
        rate=options.rate,
        skew=options.skew,
        candidates=options.candidates,
        seed=options.seed,
    )
    with Reranker.from_pretrained(options.engine, threads=1) as reranker:
        costs, instructions = costs_of(reranker, trace)
        block_size = reranker.stats().block_size
    rows = []
    for patience in (*options.patience, None):
        app = application(
            options.engine,
            replicas=options.replicas,
            threads=1,
            max_ongoing_requests=options.max_ongoing,
            patience=patience,
            options={"kv_cache_mib": options.kv_cache_mib},
        )
        name = f"patience-{patience}"
        run = replay(serve.run(app, name=name, route_prefix=f"/{name}"), trace)
        serve.delete(name)
        tokens_per_s = run["prompt_tokens_computed"] / run["compute_s"]
        blocks = run["blocks_total"] - instructions
        fleet = Fleet(options.replicas, blocks, block_size, tokens_per_s, options.max_ongoing, patience)
        latencies = run.pop("latencies_s")
        rows.append(
            {
                "patience": patience,
                "hit_rate": hit_rate(trace, costs, run["prompt_tokens_computed"]),
                "latency_p95_s": percentile(latencies, 95),
                "tokens_per_s": tokens_per_s,
                "blocks_of_a_user": max(cost.prefix_blocks for cost in costs.values()),
                **run,
                "simulated": simulated(trace, costs, fleet),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Play a trace, print a table and write the record."""
    parser = argparse.ArgumentParser(description="Routing by session and by Ray's choice, and a simulation.")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--visits", type=int, default=300)
    parser.add_argument("--rate", type=float, default=8.0, help="visits a second")
    parser.add_argument("--skew", type=float, default=0.8, help="how unequal users are")
    parser.add_argument("--candidates", type=int, default=2)
    parser.add_argument("--kv-cache-mib", type=int, default=64)
    parser.add_argument("--max-ongoing", type=int, default=32)
    parser.add_argument("--patience", type=int, nargs="+", default=[3, 32])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = compare(options)
    print("routing      hit rate  simulated (least to most)   p95 s  simulated")
    for row in rows:
        said, patience = row["simulated"], row["patience"]
        name = "two choices" if patience is None else f"patience {patience}"
        span = f"{said['hit_rate']:.3f} ({said['least_hit_rate']:.3f} to {said['most_hit_rate']:.3f})"
        waits = f"{row['latency_p95_s']:7.3f}  {said['latency_p95_s']:9.3f}"
        print(f"{name:12} {row['hit_rate']:8.3f}  {span:27} {waits}")
    if options.json is not None:
        given = {name: value for name, value in vars(options).items() if name not in ("json", "engine")}
        write_record(options.json, {"host": host(), "options": given, "routing": rows})


if __name__ == "__main__":
    main()
