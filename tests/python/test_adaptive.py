"""Mode "adaptive": who is reasoned for, and that the numbers are those of the plain modes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exp3rt_trt import EngineError, InvalidInputError, Item, RankedResults, UserProfile
from exp3rt_trt.adaptive import can_enter
from rank_cases import TOLERANCE, USER, open_
from test_same_bits import make_jobs

TinyEngine = Callable[[str, str], Path]


def by_id(results: RankedResults) -> dict[Any, Any]:
    return {r.item_id: r for r in results}


def test_who_can_enter() -> None:
    sure = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]  # no spread: exactly the best k, and those level with the last
    assert can_enter(sure, (1, 2, 3), 1, 3.0).tolist() == [True, False, False]
    assert can_enter([*sure, [0, 1, 0]], (1, 2, 3), 2, 3.0).tolist() == [True, True, False, True]
    assert can_enter(sure, (1, 2, 3), 5, 0.0).all()
    wide = [[0, 0.5, 0.5], [0.25, 0.5, 0.25], [1, 0, 0]]  # 2.5 +- 0.5z, 2 +- 0.71z, 1
    assert can_enter(wide, (1, 2, 3), 1, 0.4).tolist() == [True, False, False]
    assert can_enter(wide, (1, 2, 3), 1, 0.42).tolist() == [True, True, False]


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("options", [{}, {"kv_cache_mib": 2}, {"max_batch_tokens": 17}])
def test_the_numbers_are_those_of_the_plain_modes(
    tiny_engine: TinyEngine, dtype: str, options: dict[str, Any]
) -> None:
    engine, jobs = tiny_engine("llama", dtype), make_jobs(seed=2)
    with open_(engine) as reranker:
        scored = [by_id(r) for r in reranker.rank_many(jobs)]
        reasoned = [by_id(r) for r in reranker.rank_many(jobs, mode="reason")]
    with open_(engine, **options) as reranker:
        many = reranker.rank_many(jobs, mode="adaptive", top_k=3, uncertainty=0.02)
        for number, ranked in enumerate(many):
            found = {r.item_id: r for r in ranked if r.status == "ok"}
            assert len(found) == 3
            assert ranked.num_reasoned >= 3
            for item_id, r in found.items():
                plain = (reasoned if r.reasoned else scored)[number][item_id]
                assert r.expected_rating == pytest.approx(plain.expected_rating, rel=0, abs=TOLERANCE)
                assert r.reasoning == plain.reasoning
        stats = reranker.stats()
        assert stats.blocks_in_use == 0
        assert stats.blocks_free + stats.blocks_cached == stats.blocks_total


def test_reasoning_goes_on_from_what_scoring_left(engine: Path) -> None:
    items = [Item(n, f"Film {n}", "A quiet sea. " * 30) for n in range(6)]
    with open_(engine) as reranker:
        scored = reranker.rank(USER, items)
        after_score = reranker.stats()
        assert scored.num_reasoned == 0
        reranker.rank(USER, items, mode="reason")
        plain = reranker.stats().prompt_tokens_computed - after_score.prompt_tokens_computed
    with open_(engine) as reranker:
        ranked = reranker.rank(USER, items, mode="adaptive", top_k=6)
        assert ranked.num_reasoned == 6
        staged = reranker.stats().prompt_tokens_computed - after_score.prompt_tokens_computed
    assert staged < plain / 2  # plain has the prefix in the cache too
    assert staged > 0


def test_few_are_reasoned_where_the_scores_are_sure(engine: Path) -> None:
    user, items = make_jobs(seed=3)[1]
    with open_(engine) as reranker:
        sure = reranker.rank(user, items, mode="adaptive", top_k=3, uncertainty=0.0)
        assert sure.num_reasoned == 3
        assert len(sure) == 3
        assert reranker.rank(user, items, mode="adaptive", top_k=3, uncertainty=9.0).num_reasoned == 10
        assert len(reranker.rank(user, [], mode="adaptive", top_k=3)) == 0


def test_what_has_no_rating_stays_and_the_callers_objects_come_back(engine: Path) -> None:
    items: list[Any] = ["A film of boats.", {"item_id": "x"}, {"item_id": 5, "title": "War"}]
    with open_(engine) as reranker:
        ranked = reranker.rank(UserProfile("Likes x."), items, mode="adaptive", top_k=2)
    assert {r.item_id: r.status for r in ranked} == {"0": "ok", 5: "ok", "x": "invalid"}
    assert all(any(r.item is item for item in items) for r in ranked)


def test_options_that_cannot_be(engine: Path) -> None:
    with open_(engine) as reranker:
        with pytest.raises(InvalidInputError, match="needs top_k"):
            reranker.rank(USER, ["x"], mode="adaptive")
        with pytest.raises(InvalidInputError, match="uncertainty must be at least 0"):
            reranker.rank(USER, ["x"], mode="adaptive", top_k=1, uncertainty=float("nan"))


def test_time_limit_and_cancelled_task(engine: Path) -> None:
    items = [Item(n, "Film", "war " * 300) for n in range(200)]  # far more than a moment's work

    async def cancelled() -> None:
        with open_(engine) as reranker:
            task = asyncio.create_task(reranker.arank(USER, items, mode="adaptive", top_k=2))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            whole = await reranker.arank(USER, items[:2], mode="adaptive", top_k=2)
            assert [r.status for r in whole] == ["ok", "ok"]
            assert np.isfinite([r.expected_rating for r in whole]).all()  # type: ignore[arg-type]

    asyncio.run(cancelled())
    with open_(engine) as reranker:
        late = reranker.rank(USER, items, mode="adaptive", top_k=2, timeout_s=1e-6)
        assert {r.status for r in late} == {"expired"}


def test_a_closed_reranker_says_so(engine: Path) -> None:
    reranker = open_(engine)
    reranker.close()
    with pytest.raises(EngineError, match="closed"):
        reranker.rank(USER, ["x"], mode="adaptive", top_k=1)
