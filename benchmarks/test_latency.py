"""How long one user waits: `pytest benchmarks/test_latency.py --engine DIR`; see README.md."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from exp3rt_trt.jobs import make_slots
from measure import Meter
from workloads import make_candidates, make_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from exp3rt_trt import Reranker
    from pytest_benchmark.fixture import BenchmarkFixture

users = count()  # each is new to the cache, in all benchmarks


@pytest.mark.benchmark(group="latency")
def test_warm_prefix(
    benchmark: BenchmarkFixture, reranker: Reranker, num_candidates: int, rounds: int
) -> None:
    """A user who comes back: instructions and profile are in the cache, the candidates are new."""
    user = make_user(next(users), seed=0)
    reranker.rank(user, make_candidates(1, seed=-1))
    _measure(benchmark, reranker, lambda: user, num_candidates, rounds)


@pytest.mark.benchmark(group="latency")
def test_cold_prefix(
    benchmark: BenchmarkFixture, reranker: Reranker, num_candidates: int, rounds: int
) -> None:
    """A new user: only the instructions, which all users share, are in the cache."""
    _measure(benchmark, reranker, lambda: make_user(next(users), seed=0), num_candidates, rounds)


@pytest.mark.benchmark(group="latency of reasoning")
def test_reasoning_of_32_tokens(benchmark: BenchmarkFixture, reranker: Reranker, rounds: int) -> None:
    """Every one of ten candidates is explained."""
    meter = Meter(benchmark, reranker, 10)
    user, candidates = make_user(next(users), seed=0), make_candidates(10, seed=0)
    rounds = min(rounds, 5)
    benchmark.pedantic(reranker.rank, (user, candidates), {"mode": "reason"}, rounds=rounds, warmup_rounds=1)
    meter.tell(rounds + 1)


@pytest.mark.benchmark(group="python")
def test_checking_of_candidates(benchmark: BenchmarkFixture) -> None:
    """What Python does before tokenization, for 100 candidates."""
    benchmark(make_slots, make_candidates(100, seed=0))


class Users:
    """Makes a benchmark's arguments: a user by `make`, and candidates that are new each time."""

    def __init__(self, make: Callable[[], object], candidates: int) -> None:
        self._make, self._candidates = make, candidates
        self._seeds = count()

    def __call__(self) -> tuple[tuple[object, object], dict[str, object]]:
        """Return arguments of `Reranker.rank`."""
        return (self._make(), make_candidates(self._candidates, seed=next(self._seeds))), {}


def _measure(
    benchmark: BenchmarkFixture, reranker: Reranker, make: Callable[[], object], candidates: int, rounds: int
) -> None:
    rounds = max(min(rounds, 5), rounds * 10 // candidates)
    meter = Meter(benchmark, reranker, candidates)
    benchmark.pedantic(reranker.rank, setup=Users(make, candidates), rounds=rounds, warmup_rounds=1)
    meter.tell(rounds + 1)
