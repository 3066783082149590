from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exp3rt_trt import InvalidInputError, Reranker, UserProfile
from rank_cases import ITEMS, USER, ratings, reasons

TinyEngine = Callable[[str, str], Path]
MODES = pytest.mark.parametrize("mode", ["score", "reason"])


@MODES
def test_rank_many_is_rank_for_each_in_order(reranker: Reranker, mode: Any) -> None:
    users = [UserProfile(f"Likes number {n}.", user_id=n) for n in range(5)]
    seen: list[tuple[int, int | None]] = []
    jobs = [(user, ITEMS) for user in users]
    many = list(reranker.rank_many(jobs, mode=mode, top_k=3, progress=lambda *args: seen.append(args)))
    assert seen == [(n, 5) for n in range(1, 6)]
    for user, results in zip(users, many, strict=True):
        alone = reranker.rank(user, ITEMS, mode=mode, top_k=3)
        assert results.user_id == alone.user_id == user.user_id
        assert [r.item_id for r in results] == [r.item_id for r in alone]
        assert ratings(results) == pytest.approx(ratings(alone), abs=1e-5)
        assert reasons(results) == reasons(alone)


def test_rank_many_loses_nothing_to_a_faulty_job(reranker: Reranker) -> None:
    jobs: list[Any] = [(USER, ITEMS), ({"user_id": "e", "profile": ""}, ITEMS), (USER, 3), USER, (USER, [])]
    results = list(reranker.rank_many(iter(jobs)))
    assert [r.error is None for r in results] == [True, False, False, False, True]
    assert len(results[0]) == 5
    assert len(results[4]) == 0
    assert results[1].user_id == "e"
    with pytest.raises(InvalidInputError, match=r"user\.profile is empty"):
        list(results[1])
    with pytest.raises(InvalidInputError, match=r"jobs\[3\] must be a pair"):
        len(results[3])
    with pytest.raises(InvalidInputError, match="jobs must be an iterable of pairs, not NoneType"):
        list(reranker.rank_many(None))  # type: ignore[arg-type]


def test_rank_many_takes_jobs_as_needed_and_raises_their_fault_last(reranker: Reranker) -> None:
    taken = []

    def jobs() -> Iterator[Any]:
        for n in range(1000):
            taken.append(n)
            if n == 3 and fault:
                raise KeyError("of the caller's own making")
            yield USER, ITEMS * 1 if n else []

    fault = True
    results = reranker.rank_many(jobs())
    assert [len(next(results)) for _ in range(3)] == [0, 5, 5]
    with pytest.raises(KeyError, match="own making"):
        next(results)
    taken.clear()
    fault = False
    results = reranker.rank_many(jobs())
    next(results)
    next(results)
    assert len(taken) < 200
    del results  # those ahead are cancelled
    gc.collect()
    assert len(reranker.rank(USER, ITEMS)) == 5
    assert reranker.stats().blocks_in_use == 0
