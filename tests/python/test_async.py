from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from exp3rt_trt import EngineError, InvalidInputError, Reranker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USER = "Likes slow films."
ITEMS = [f"It is about {word}." for word in ("boats", "trains", "bread")]
MANY = [f"It is about number {n}." for n in range(100)]


@pytest.fixture(scope="module")
def reranker(tiny_engine: Callable[[str, str], Path]) -> Iterator[Reranker]:
    path = tiny_engine("llama", "fp32")
    with Reranker.from_pretrained(path, kv_cache_mib=64, threads=1, max_reasoning_tokens=1000) as made:
        yield made


def test_arank_is_rank(reranker: Reranker) -> None:
    async def main() -> list[float | None]:
        results = await asyncio.gather(*(reranker.arank(USER, ITEMS, top_k=2) for _ in range(5)))
        assert all([r.item_id for r in result] == [r.item_id for r in results[0]] for result in results)
        return [r.expected_rating for r in results[0]]

    expected = [r.expected_rating for r in reranker.rank(USER, ITEMS, top_k=2)]
    assert asyncio.run(main()) == pytest.approx(expected, abs=1e-5)


def test_errors_and_empty_rankings(reranker: Reranker) -> None:
    async def main() -> None:
        assert len(await reranker.arank(USER, [])) == 0
        with pytest.raises(InvalidInputError, match=r"user\.profile is empty"):
            await reranker.arank("", ITEMS)

    asyncio.run(main())


def test_a_cancelled_task_stops_its_computation_and_no_other(reranker: Reranker) -> None:
    async def main() -> None:
        before = reranker.stats()
        long = asyncio.create_task(reranker.arank(USER, MANY, mode="reason"))
        while reranker.stats().steps == before.steps:
            await asyncio.sleep(0.001)
        short = asyncio.create_task(reranker.arank("Another user.", ITEMS))
        await asyncio.sleep(0)
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        assert {r.status for r in await short} == {"ok"}

    asyncio.run(main())
    deadline = time.monotonic() + 10
    while reranker.stats().blocks_in_use and time.monotonic() < deadline:
        time.sleep(0.001)
    stats = reranker.stats()
    assert stats.blocks_in_use == 0
    assert stats.generated_tokens < len(MANY) * 1000  # far from the end
    assert len(reranker.rank(USER, ITEMS)) == 3


def test_a_time_limit_cancels(reranker: Reranker) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reranker.arank(USER, MANY, mode="reason"), timeout=0.2)

    asyncio.run(main())


def test_the_event_loop_goes_on(reranker: Reranker) -> None:
    async def main() -> int:
        task = asyncio.create_task(reranker.arank(USER, MANY, mode="reason"))
        ticks, end = 0, time.monotonic() + 0.3
        while time.monotonic() < end:
            await asyncio.sleep(0.001)
            ticks += 1
        assert not task.done()
        task.cancel()
        return ticks

    assert asyncio.run(main()) > 10


def test_closing_tells_those_who_wait(tiny_engine: Callable[[str, str], Path]) -> None:
    path = tiny_engine("llama", "fp32")
    reranker = Reranker.from_pretrained(path, kv_cache_mib=64, max_reasoning_tokens=1000)

    async def main() -> None:
        task = asyncio.create_task(reranker.arank(USER, MANY, mode="reason"))
        while reranker.stats().steps == 0:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(reranker.close)
        with pytest.raises(EngineError, match="closed"):
            await task

    asyncio.run(main())
