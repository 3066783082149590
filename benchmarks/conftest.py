"""Which engine the benchmarks use, and how large they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from exp3rt_trt import Reranker

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--engine`, and sizes."""
    parser.addoption(
        "--engine", default="engines/smollm2-135m", help="engine directory, or what one is built from"
    )
    parser.addoption("--bench-candidates", default="10,50,200", help="candidates of one user, for latency")
    parser.addoption("--bench-users", default="1,4,16", help="users of one job, for throughput")
    parser.addoption("--bench-rounds", type=int, default=20, help="rounds of 10 candidates; fewer of more")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a benchmark once for each number of candidates or users that was asked for."""
    for argument, option in (("num_candidates", "--bench-candidates"), ("num_users", "--bench-users")):
        if argument in metafunc.fixturenames:
            values = metafunc.config.getoption(option).split(",")
            metafunc.parametrize(argument, [int(value) for value in values])


@pytest.fixture(scope="session")
def reranker(request: pytest.FixtureRequest) -> Iterator[Reranker]:
    """Open the engine that was asked for."""
    with Reranker.from_pretrained(request.config.getoption("--engine"), max_reasoning_tokens=32) as made:
        yield made


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    """Return how many rounds of a short call to measure."""
    return int(request.config.getoption("--bench-rounds"))
