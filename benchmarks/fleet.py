"""A day of some of a fleet's machines, simulated: how many prefixes are found, and how long users wait.

    exp3rt-trt plan ... --daily-users 1000000 ... --json > plan.json
    python benchmarks/fleet.py plan.json --machines 16

The machines get their share of the plan's users. Each user comes as often as the plan says, on average and
independently; over the day visits swell and ebb so that the busiest moment is `peak_factor` times the mean.
A machine computes as many tokens a second as the plan's candidates a second are, one visit after another. Two
days are played, and the second is counted: what is in the caches at night is there in the morning.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from records import percentile
from routing_simulation import Fleet, simulate
from routing_trace import Cost, Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY_S = 86_400


def swell(at_s: float, power: float) -> float:
    """Return how busy a moment is, 1 at noon."""
    return (0.5 - 0.5 * math.cos(2 * math.pi * at_s / DAY_S)) ** power


def power_for(peak_factor: float) -> float:
    """Return the power of `swell` whose peak is so many times its mean."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        mean = sum(swell(second, middle) for second in range(0, DAY_S, 60)) / (DAY_S / 60)
        low, high = (middle, high) if 1 / mean < peak_factor else (low, middle)
    return low


def make_days(users: int, visits: float, peak_factor: float, candidates: int, seed: int) -> Trace:
    """Draw the visits of two days."""
    draw, power = random.Random(seed), power_for(peak_factor)  # noqa: S311  (no secrets here)
    peak_rate, now = users * visits / DAY_S * peak_factor, 0.0
    at_s: list[float] = []
    while (now := now + draw.expovariate(peak_rate)) < 2 * DAY_S:
        if draw.random() < swell(now, power):
            at_s.append(now)
    return Trace(at_s, draw.choices(range(users), k=len(at_s)), candidates)


def play(plan: dict[str, Any], machines: int, seed: int, *, patience: int | None) -> dict[str, float]:
    """Return what the second day was like on so many of a plan's machines."""
    demand, workload = plan["demand"], plan["workload"]
    users = round(demand["daily_users"] * machines / plan["fleet"]["machines"])
    candidates, prefix = workload["candidates"], workload["prefix_tokens"]
    own = candidates * workload["suffix_tokens"]
    trace = make_days(users, demand["visits"], demand["peak_factor"], candidates, seed)
    cost = Cost(
        prefix, own, plan["prefix_blocks"], min(candidates, plan["in_flight"]) * plan["candidate_blocks"]
    )
    fleet = Fleet(
        replicas=machines,
        blocks=plan["blocks"],
        block_size=plan["tokens_per_block"],
        tokens_per_s=demand["candidates_per_s"] * (own + prefix) / candidates,
        max_ongoing=32,
        patience=patience,
    )
    served = simulate(trace, defaultdict(lambda: cost), fleet, seed)
    day = [visit for visit in served if visit.at_s >= DAY_S]
    noon = [visit.latency_s for visit in day if abs(visit.at_s - 1.5 * DAY_S) < 1800]
    return {
        "users": users,
        "visits": len(day),
        "hit_rate": 1 - sum(visit.tokens - own for visit in day) / (len(day) * prefix),
        "tokens": sum(visit.tokens for visit in day),
        "elsewhere": sum(visit.elsewhere for visit in day) / len(day),
        "peak_p50_s": percentile(noon, 50),
        "peak_p95_s": percentile(noon, 95),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Play both kinds of routing and print them."""
    parser = argparse.ArgumentParser(description="A day of some of a fleet's machines, simulated.")
    parser.add_argument("plan", type=Path, help="what `exp3rt-trt plan --daily-users ... --json` printed")
    parser.add_argument("--machines", type=int, default=16)
    parser.add_argument("--patience", type=int, nargs="+", default=[1, 2, 3, 4, 8])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    plan = json.loads(options.plan.read_text(encoding="utf-8"))
    print("routing      hit rate  elsewhere   tokens a day  busiest hour: p50 s    p95 s")
    for patience in (*options.patience, None):
        day = play(plan, options.machines, options.seed, patience=patience)
        name = "two choices" if patience is None else f"patience {patience}"
        print(
            f"{name:12} {day['hit_rate']:8.3f}  {day['elsewhere']:9.3f}  {day['tokens']:13,}  "
            f"{day['peak_p50_s']:19.2f} {day['peak_p95_s']:8.2f}"
        )


if __name__ == "__main__":
    main()
