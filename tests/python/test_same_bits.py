"""A candidate's rating and reasoning have the same bits whatever is computed beside it.

Random groupings: some of the users, some of their candidates, in any order, on any number of threads, in
batches of any size, with prefixes that are cached or not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exp3rt_trt import Item, RankedResults, Reranker, UserProfile, _core
from exp3rt_trt.engines.engine import Engine
from rank_cases import TOLERANCE, open_
from tiny_models import random_prompts, run_group

TinyEngine = Callable[[str, str], Path]
Job = tuple[UserProfile, list[Item]]
ROUNDS = 6


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(["sea", "a", "house", "of", "quiet", "war", "77", "love?"], k=count))


def make_jobs(seed: int) -> list[Job]:
    """Three users with ten candidates each, from a word to several KV blocks long."""
    rng = random.Random(seed)  # noqa: S311
    return [
        (
            UserProfile(words(rng, length), user_id=f"u{length}"),
            [Item(f"{length}-{n}", words(rng, 2), words(rng, rng.choice([1, 9, 40, 90]))) for n in range(10)],
        )
        for length in (3, 30, 80)
    ]


def some_of(jobs: list[Job], rng: random.Random) -> list[Job]:
    users = rng.sample(jobs, rng.randint(1, len(jobs)))
    return [(user, rng.sample(items, rng.randint(1, len(items)))) for user, items in users]


def answers(results: list[RankedResults]) -> dict[Any, tuple[Any, ...]]:
    return {r.item_id: (r.expected_rating, r.reasoning) for ranked in results for r in ranked}


def rank(reranker: Reranker, jobs: list[Job], mode: Any) -> dict[Any, tuple[Any, ...]]:
    return answers(list(reranker.rank_many(jobs, mode=mode)))


@pytest.mark.parametrize("mode", ["score", "reason"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_any_grouping_gives_the_same_bits(tiny_engine: TinyEngine, dtype: str, mode: Any) -> None:
    engine = tiny_engine("llama", dtype)
    jobs = make_jobs(seed=1)
    with open_(engine) as reranker:
        alone = {
            item_id: answer
            for user, items in jobs
            for item in items
            for item_id, answer in rank(reranker, [(user, [item])], mode).items()
        }
    ratings = [rating for rating, _ in alone.values()]
    assert max(ratings) - min(ratings) > 1e-3  # or equality would say nothing

    for seed in range(ROUNDS):
        rng = random.Random(seed)  # noqa: S311
        options = {"threads": rng.choice([1, 2, 3]), "max_batch_tokens": rng.choice([17, 50, 333, 2048])}
        with open_(engine, **options) as reranker:
            for _ in range(3):  # later ones find prefixes in the cache
                for item_id, (rating, reasoning) in rank(reranker, some_of(jobs, rng), mode).items():
                    case = (options, item_id)
                    assert rating == pytest.approx(alone[item_id][0], rel=0, abs=TOLERANCE), case
                    assert reasoning == alone[item_id][1], case


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_an_answer_that_the_student_begins_itself_is_read_as_if_it_were_forced(
    tiny_engine: TinyEngine, dtype: str
) -> None:
    engine = Engine.open(tiny_engine("llama", dtype))

    def reason(suffix: list[int], answer: list[int], end: int = 299) -> tuple[list[int], Any]:
        given = {"prefix": [[5, 6]], "suffixes": [suffix], "label_tokens": [9, 10, 11], "end_tokens": [end]}
        group = _core.RerankGroup(answer_tokens=answer, max_reasoning_tokens=16, **given)
        (candidate,) = run_group(engine, group).candidates
        return candidate.reasoning_tokens, candidate.label_logits

    places = []
    for suffix in random_prompts(range(20, 140, 5), 0, 301):
        free, _ = reason(suffix, [7])
        fresh = [i for i in range(len(free) - 2) if free[i] not in free[:i]]
        if not fresh:
            continue
        place = fresh[-1]  # neither the end nor the answer comes earlier
        own = free[place : place + 3]
        found, logits = reason(suffix, own)
        ended, expected = reason(suffix, own, end=free[place])
        assert found == ended == free[:place]
        assert np.array_equal(logits, expected)
        places.append(place)
    assert max(places) > 4
