"""How long ranking takes: `pytest benchmarks --engine engines/smollm2-135m`; see README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from exp3rt_trt import Reranker
from exp3rt_trt.jobs import make_slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "movie_night.jsonl"
JOB = json.loads(EXAMPLE.read_text(encoding="utf-8").splitlines()[0])


@pytest.fixture(scope="module")
def reranker(request: pytest.FixtureRequest) -> Iterator[Reranker]:
    """Open the engine that was asked for."""
    engine = request.config.getoption("--engine")
    with Reranker.from_pretrained(engine, max_reasoning_tokens=32) as made:
        yield made


def test_a_user_who_comes_back(benchmark: BenchmarkFixture, reranker: Reranker) -> None:
    """All but the items is in the cache."""
    benchmark(reranker.rank, JOB["user"], JOB["candidates"])


def test_one_candidate(benchmark: BenchmarkFixture, reranker: Reranker) -> None:
    """The shortest answer that there is."""
    benchmark(reranker.rank, JOB["user"], JOB["candidates"][:1])


def test_a_new_user(benchmark: BenchmarkFixture, reranker: Reranker) -> None:
    """Only the instructions are in the cache."""
    users = (f"{number}. {JOB['user']['profile']}" for number in range(10**9))
    benchmark(lambda: reranker.rank(next(users), JOB["candidates"]))


def test_reasoning_of_32_tokens(benchmark: BenchmarkFixture, reranker: Reranker) -> None:
    """Every candidate is explained."""
    benchmark.pedantic(
        reranker.rank, (JOB["user"], JOB["candidates"]), {"mode": "reason"}, rounds=3, warmup_rounds=1
    )


def test_checking_of_candidates(benchmark: BenchmarkFixture) -> None:
    """What Python does before tokenization."""
    benchmark(make_slots, JOB["candidates"])
