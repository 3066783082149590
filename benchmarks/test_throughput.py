"""How much many users get: `pytest benchmarks/test_throughput.py --engine DIR`; see README.md."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from measure import Meter
from workloads import make_candidates, make_user

if TYPE_CHECKING:
    from exp3rt_trt import Reranker
    from pytest_benchmark.fixture import BenchmarkFixture

CANDIDATES = 10  # of each user


@pytest.mark.benchmark(group="throughput")
def test_many_users(benchmark: BenchmarkFixture, reranker: Reranker, num_users: int, rounds: int) -> None:
    """New users with new candidates, as one packed job."""
    meter = Meter(benchmark, reranker, num_users * CANDIDATES)
    seeds = count(1)

    def setup() -> tuple[tuple[object], dict[str, object]]:
        seed = next(seeds)
        jobs = [
            (
                make_user(number, seed=num_users * 1000 + seed),
                make_candidates(CANDIDATES, seed=seed * 1000 + number),
            )
            for number in range(num_users)
        ]
        return (jobs,), {}

    benchmark.pedantic(
        lambda jobs: list(reranker.rank_many(jobs)), setup=setup, rounds=min(rounds, 3), warmup_rounds=1
    )
    meter.tell(min(rounds, 3) + 1)
