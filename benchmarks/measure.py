"""What a benchmark tells beside its times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from records import percentile

if TYPE_CHECKING:
    from exp3rt_trt import Reranker
    from exp3rt_trt.stats import RerankerStats
    from pytest_benchmark.fixture import BenchmarkFixture


class Meter:
    """Tells a benchmark's extra_info: tokens of one call, engine, percentiles.

    Args:
        benchmark: of pytest-benchmark.
        reranker: under measurement.
        candidates: rated by one call.
    """

    def __init__(self, benchmark: BenchmarkFixture, reranker: Reranker, candidates: int) -> None:
        self._benchmark = benchmark
        self._reranker = reranker
        self._candidates = candidates
        self._before = reranker.stats()

    def tell(self, calls: int) -> None:
        """Write extra_info after that many calls, warm-up included."""
        info = self._benchmark.extra_info
        info.update(engine_facts(self._reranker), candidates=self._candidates)
        info.update(tokens_of_a_call(self._before, self._reranker.stats(), calls))
        stats = self._benchmark.stats
        if stats is not None:  # None with --benchmark-disable
            times = stats.stats.data
            info.update(p50_s=percentile(times, 50), p99_s=percentile(times, 99))
            info["candidates_per_s"] = self._candidates / percentile(times, 50)


def engine_facts(reranker: Reranker) -> dict[str, Any]:
    """Return what an engine computes with."""
    return {"isa": reranker.isa, "threads": reranker.threads, "dtype": reranker.engine.manifest.dtype}


def tokens_of_a_call(before: RerankerStats, after: RerankerStats, calls: int) -> dict[str, float]:
    """Return the tokens of one of so many equal calls."""
    names = ("prompt_tokens_computed", "prompt_tokens_reused", "generated_tokens")
    return {name: (getattr(after, name) - getattr(before, name)) / calls for name in names}
