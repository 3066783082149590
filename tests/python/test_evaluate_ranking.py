from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from evaluate_cases import TEN, row, write_interactions, write_lines
from exp3rt_trt import InvalidInputError, Reranker
from exp3rt_trt.evaluate import (
    CandidateList,
    StudentRanking,
    Texts,
    blended,
    candidate_lists,
    collaborative_rating,
    fit_als,
    fit_blend,
    measure_rankings,
    read_interactions,
    score_lists,
)
from exp3rt_trt.evaluate.ranking import user_metrics
from exp3rt_trt.pipeline import Blend, ImplicitFirstStage

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
def model(folder: Path) -> ImplicitFirstStage:
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
    scores = {name: score_lists(lists, ranker) for name, ranker in rankers.items()}
    table = measure_rankings(lists, scores, baseline="first")
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
        measure_rankings(lists, scores, baseline="x")


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
    folder: Path, model: ImplicitFirstStage
) -> None:
    held_out = read_interactions(folder, "test.txt")
    lists = candidate_lists(model, held_out, [*held_out, "stranger"], 5)
    assert [each.user_id for each in lists] == list(held_out)
    assert all(not set(each.item_ids) & model.seen(each.user_id) for each in lists)
    assert all(each.item_ids[0] in each.positives for each in lists)  # of its group, one item is left
    table = measure_rankings(lists, {"CF": score_lists(lists, model.scores)}, baseline="CF")
    assert table.methods[0].metrics["MRR"].value == 1
    # What the model was fitted on is no right answer.
    assert candidate_lists(model, {"u0": list(model.seen("u0"))}, ["u0"], 5) == []


def test_cf_is_the_same_for_the_same_seed(folder: Path, model: ImplicitFirstStage) -> None:
    again = fit_als(read_interactions(folder, "train.txt"), seed=0)
    assert (again.scores("u1", ITEMS) == model.scores("u1", ITEMS)).all()
    assert np.isnan(model.scores("nobody", ["i1"])).all()
    assert np.isnan(model.scores("u1", ["nothing", "i1"])).tolist() == [True, False]


def test_cf_rates_by_a_line_and_fails_where_it_knows_nobody(model: ImplicitFirstStage) -> None:
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
        rank = StudentRanking(reranker, texts, "score", lambda: done.append(1))
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


@pytest.mark.parametrize("mode", ["reason", "adaptive"])
def test_the_student_says_how_many_it_reasoned_for(engine: Path, mode: Any) -> None:
    texts = Texts()
    texts.add_rows([row(1, item, 5) for item in range(12)])
    options: dict[str, Any] = {"kv_cache_mib": 64, "threads": 1, "max_reasoning_tokens": 3}
    with Reranker.from_pretrained(engine, scale=TEN, **options) as reranker:
        rank = StudentRanking(reranker, texts, mode)
        scores = rank("u1", ITEMS)
    assert np.isfinite(scores).all()
    assert 10 <= rank.num_reasoned <= 12
    assert mode == "adaptive" or rank.num_reasoned == 12


def test_only_eligible_items_are_proposed(folder: Path) -> None:
    interactions = read_interactions(folder, "train.txt")
    stage = fit_als(interactions, seed=0, eligible={"i0", "i1", "i3"})
    everything = fit_als(interactions, seed=0)
    for user in interactions:
        found = [item for item, _ in stage.candidates(user, 20)]
        assert found == [i for i, _ in everything.candidates(user, 20) if i in {"i0", "i1", "i3"}]
    # Scores are of any item, proposed or not.
    assert np.isfinite(stage.scores("u0", ITEMS)).all()


def test_the_catalogue_is_what_is_known_as_well_as_the_best(tmp_path: Path) -> None:
    texts = Texts()
    texts.add_rows([row(1, 1, 5), row(1, 2, 5)])
    assert texts.catalogue() == {"i1", "i2"}
    texts.add_file(str(write_lines(tmp_path / "t", {"item_id": "i3", "item_profile": "Boats."})))
    assert texts.catalogue() == {"i1", "i2"}
    texts.add_file(str(write_lines(tmp_path / "t", {"item_id": "i2", "title": "Boats"})))
    assert texts.catalogue() == {"i2"}


def test_the_blend_is_fitted_on_other_lists_and_leaves_out_the_unscored() -> None:
    lists = [CandidateList(f"u{n}", ("a", "b", "c"), frozenset("c")) for n in range(4)]
    wrong, right = np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, np.nan])
    assert fit_blend(lists, [wrong] * 4, [-wrong] * 4).weight > 0.5
    assert fit_blend(lists, [-wrong] * 4, [wrong] * 4).weight == 0
    (scores,) = blended(Blend(1.0), [wrong], [right])
    assert scores[:2].tolist() == [-1, 1]
    assert np.isnan(scores[2])
    with pytest.raises(InvalidInputError, match="no user has a relevant"):
        fit_blend(lists, [wrong] * 4, [right] * 4)
