from __future__ import annotations

import json

import numpy as np
import pytest
from exp3rt_trt import EngineError, RankedItem, RankedResults
from exp3rt_trt.results import order_by_rating
from hypothesis import given, settings
from hypothesis import strategies as st


def rated(item_id: str, rating: float | None) -> RankedItem:
    status, error = ("ok", None) if rating is not None else ("too_long", "too long")
    probabilities = None if rating is None else np.array([0.5, 0.5])
    return RankedItem(None, item_id, None, rating, probabilities, None, object(), status, error)  # type: ignore[arg-type]


def test_best_first_and_ties_in_the_order_of_the_input() -> None:
    items = [rated("a", 2.0), rated("b", None), rated("c", 3.0), rated("d", 2.0), rated("e", 2.0)]
    ranked = order_by_rating(items)
    assert [(r.rank, r.item_id) for r in ranked] == [(1, "c"), (2, "a"), (3, "d"), (4, "e"), (None, "b")]
    assert ranked[1].item is items[0].item


def test_top_k_cuts_only_rated_ones() -> None:
    items = [rated("a", None), rated("b", 1.0), rated("c", 2.0), rated("d", None)]
    assert [r.item_id for r in order_by_rating(items, top_k=1)] == ["c", "a", "d"]
    assert [r.item_id for r in order_by_rating(items, top_k=99)] == ["c", "b", "a", "d"]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(1, 3).map(float))))
def test_order_is_that_of_a_stable_sort(ratings: list[float | None]) -> None:
    ranked = order_by_rating([rated(str(i), rating) for i, rating in enumerate(ratings)])
    keys = [(-(r.expected_rating or 0), int(str(r.item_id))) for r in ranked if r.status == "ok"]
    assert keys == sorted(keys)
    assert len(ranked) == len(ratings)
    assert [r.rank for r in ranked if r.status == "ok"] == list(range(1, len(keys) + 1))


def test_results_are_a_sequence() -> None:
    results = RankedResults(order_by_rating([rated("a", 1.0), rated("b", 2.0)]), user_id="u")
    assert [r.item_id for r in results] == ["b", "a"]
    assert len(results) == 2
    assert results[-1].item_id == "a"
    assert [r.item_id for r in results[:1]] == ["b"]
    assert results[0] in results
    dicts = json.loads(json.dumps(results.to_dicts()))
    assert dicts[0] == {
        "rank": 1,
        "item_id": "b",
        "title": None,
        "expected_rating": 2.0,
        "probabilities": [0.5, 0.5],
        "reasoning": None,
        "status": "ok",
        "error": None,
    }


def test_an_errored_result_raises_whatever_is_asked_of_it() -> None:
    results = RankedResults((), error=EngineError("it broke"))
    for ask in (len, list, RankedResults.to_dicts, lambda r: r[0]):
        with pytest.raises(EngineError, match="it broke"):
            ask(results)
