from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from evaluate_cases import TEN, row, write_interactions, write_lines
from exp3rt_trt import InvalidInputError, Reranker
from exp3rt_trt.evaluate import (
    CandidateList,
    CollaborativeFilter,
    Texts,
    candidate_lists,
    collaborative_ranking,
    collaborative_rating,
    fit_als,
    measure_rankings,
    read_interactions,
    student_ranking,
)
from exp3rt_trt.evaluate.ranking import user_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exp3rt_trt.inputs import Id
    from numpy.typing import NDArray

ITEMS = tuple(f"i{n}" for n in range(12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_interactions(tmp_path_factory.mktemp("cf") / "cf")


@pytest.fixture(scope="module")
def model(folder: Path) -> CollaborativeFilter:
    return fit_als(read_interactions(folder, "train.txt"), seed=0)


def hand_made(positives: set[str], scores: Sequence[float]) -> tuple[float, float, float]:
    """HR@10, NDCG@10 and MRR by their definitions."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    right = [ITEMS[place] in positives for place in order]
    dcg = sum(hit / math.log2(rank + 1) for rank, hit in enumerate(right[:10], start=1))
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(positives)) + 1))
    first = next((1 / rank for rank, hit in enumerate(right, start=1) if hit), 0.0)
    return float(any(right[:10])), dcg / best, first


def test_metrics_are_those_of_their_definitions() -> None:
    random = np.random.default_rng(5)
    lists, scores = [], []
    for _ in range(40):
        # One of the right items may be missing from the list: no order can reach it.
        right = {f"i{n}" for n in random.choice(14, size=random.integers(1, 4), replace=False)}
        lists.append(CandidateList(f"u{len(lists)}", ITEMS, frozenset(right)))
        scores.append(random.normal(size=12))
    found = user_metrics(lists, scores)
    expected = np.array(
        [hand_made(set(map(str, each.positives)), s.tolist()) for each, s in zip(lists, scores, strict=True)]
    )
    for column, metric in enumerate(("HR@10", "NDCG@10", "MRR")):
        np.testing.assert_allclose(found[metric], expected[:, column], atol=1e-6)
    assert expected[:, 0].min() == 0  # both outcomes occur
    assert expected[:, 0].max() == 1


def test_ties_keep_the_order_and_the_unscored_stand_last() -> None:
    lists = [
        CandidateList("u", ("a", "b", "c"), frozenset("c")),
        CandidateList("v", ("a", "b"), frozenset("a")),
    ]
    equal = user_metrics(lists, [np.zeros(3), np.zeros(2)])
    assert equal["MRR"].tolist() == [1 / 3, 1]
    unscored = user_metrics(lists, [np.array([math.nan, math.nan, -5.0]), np.array([math.nan, 1.0])])
    assert unscored["MRR"].tolist() == [1, 1 / 2]


def test_methods_are_compared_on_the_same_lists() -> None:
    lists = [CandidateList(f"u{n}", ("a", "b", "c"), frozenset(("c", "z"))) for n in range(5)]

    def first_stage(_: Id, items: Sequence[Id], /) -> NDArray[np.float64]:
        return -np.arange(len(items), dtype=np.float64)

    def reverse(user: Id, items: Sequence[Id], /) -> NDArray[np.float64]:
        return -first_stage(user, items)

    def silent(_: Id, items: Sequence[Id], /) -> NDArray[np.float64]:
        return np.full(len(items), np.nan)

    rankers = {"first": first_stage, "reverse": reverse, "silent": silent}
    table = measure_rankings(lists, rankers, baseline="first")
    first, reversed_, nothing = table.methods
    assert (table.lists, table.candidates, table.positives, table.positives_in_lists) == (5, 15, 10, 5)
    assert first.difference is None
    assert reversed_.difference is not None
    assert nothing.difference is not None
    assert first.metrics["MRR"].value == pytest.approx(1 / 3)
    assert reversed_.difference["MRR"].value == pytest.approx(2 / 3)
    assert reversed_.difference["MRR"].excludes_zero()
    assert (nothing.unscored, nothing.difference["MRR"].value) == (15, 0)
    # The best order has "c" first, but "z" was never proposed.
    assert table.limit["NDCG@10"].value == pytest.approx(1 / (1 + 1 / math.log2(3)))
    with pytest.raises(InvalidInputError, match="no method 'x'"):
        measure_rankings(lists, rankers, baseline="x")


def test_interactions_are_read_by_the_ids_of_the_lists(folder: Path, tmp_path: Path) -> None:
    train, test = (read_interactions(folder, name) for name in ("train.txt", "test.txt"))
    assert len(train) == len(test) == 24
    assert test["u3"] == ["i3"]
    assert train["u3"] == ["i1", "i5", "i7", "i9", "i11"]
    write_lines(tmp_path / "train.txt", "0 1 2", "0 2 3", "")
    assert read_interactions(tmp_path, "train.txt") == {"0": ["1", "2", "3"]}
    write_lines(tmp_path / "user_list.txt", "org_id remap_id", "ann 7")
    with pytest.raises(InvalidInputError, match=r"train\.txt:1: user 0 is not in the list"):
        read_interactions(tmp_path, "train.txt")
    write_lines(tmp_path / "user_list.txt", "org_id remap_id", "ann")
    with pytest.raises(InvalidInputError, match=r"user_list\.txt:2: must be an id and a number"):
        read_interactions(tmp_path, "train.txt")
    with pytest.raises(InvalidInputError, match=r"valid\.txt: cannot be read"):
        read_interactions(folder, "valid.txt")


def test_cf_proposes_what_the_user_has_not_seen_and_finds_the_group(
    folder: Path, model: CollaborativeFilter
) -> None:
    held_out = read_interactions(folder, "test.txt")
    lists = candidate_lists(model, held_out, [*held_out, "stranger"], 5)
    assert [each.user_id for each in lists] == list(held_out)
    assert all(not set(each.item_ids) & set(model.seen[each.user_id]) for each in lists)
    assert all(each.item_ids[0] in each.positives for each in lists)  # of its group, one item is left
    table = measure_rankings(lists, {"CF": collaborative_ranking(model)}, baseline="CF")
    assert table.methods[0].metrics["MRR"].value == 1
    # What the model was fitted on is no right answer.
    assert candidate_lists(model, {"u0": model.seen["u0"]}, ["u0"], 5) == []


def test_cf_is_the_same_for_the_same_seed(folder: Path, model: CollaborativeFilter) -> None:
    again = fit_als(read_interactions(folder, "train.txt"), seed=0)
    assert (again.user_factors == model.user_factors).all()
    assert np.isnan(model.scores("nobody", ["i1"])).all()
    assert np.isnan(model.scores("u1", ["nothing", "i1"])).tolist() == [True, False]


def test_cf_rates_by_a_line_and_fails_where_it_knows_nobody(model: CollaborativeFilter) -> None:
    # Own group 9, other group 2: scores near 1 and near 0.
    fit = [row(user, item, 9 if user % 2 == item % 2 else 2) for user in range(8) for item in range(8)]
    predict = collaborative_rating(model, fit)
    found = predict([row(1, 3, 9), row(1, 2, 2), row(99, 1, 5)])
    assert found.ratings[0] > 7
    assert found.ratings[1] < 4
    assert found.failure_counts() == {"unknown": 1}
    assert "no interactions" in found.failures[2].words
    x = [model.scores(each.user_id, [each.item.item_id])[0] for each in fit]
    slope, constant = np.polyfit(x, [each.rating for each in fit], 1)  # a second way to the same line
    assert found.ratings[0] == pytest.approx(slope * model.scores("u1", ["i3"])[0] + constant, abs=1e-4)
    with pytest.raises(InvalidInputError, match="fewer than two fitting rows"):
        collaborative_rating(model, [row(99, 1, 5)])


def test_the_student_ranks_what_has_texts(engine: Path) -> None:
    texts = Texts()
    texts.add_rows([row(1, item, 5) for item in range(3)])
    done = []
    with Reranker.from_pretrained(engine, scale=TEN, kv_cache_mib=64, threads=1) as reranker:
        rank = student_ranking(reranker, texts, "score", lambda: done.append(1))
        scores = rank("u1", ["i2", "unknown", "i0"])
        user, items = texts.user_profile("u1"), [texts.item("i2"), texts.item("i0")]
        assert user is not None
        expected = {
            each.item_id: each.expected_rating for each in reranker.rank(user, [i for i in items if i])
        }
        assert scores[[0, 2]].tolist() == [expected["i2"], expected["i0"]]
        assert math.isnan(scores[1])
        assert np.isnan(rank("nobody", ["i0"])).all()
    assert len(done) == 2
