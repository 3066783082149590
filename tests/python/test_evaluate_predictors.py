from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from evaluate_cases import TEN, row, rows
from exp3rt_trt import InvalidInputError, Reranker
from exp3rt_trt.evaluate import (
    Predictions,
    global_mean,
    read_ratings,
    student,
    user_item_bias,
    without,
)
from exp3rt_trt.evaluate.ablation import NO_PROFILE, TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exp3rt_trt.evaluate import RatingRow

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "exp3rt" / "imdb"


@pytest.fixture(scope="module")
def reranker(engine: Path) -> Iterator[Reranker]:
    with Reranker.from_pretrained(
        engine, scale=TEN, kv_cache_mib=64, threads=1, max_reasoning_tokens=8
    ) as made:
        yield made


def test_the_global_mean_is_that_of_the_fitting_rows() -> None:
    assert global_mean([row(1, 1, 4), row(2, 1, 9)])(rows(2, 2)).ratings.tolist() == [6.5] * 4


def test_the_bias_baseline_finds_the_rule_behind_the_ratings() -> None:
    # 2 x user's average - 1 x item's average + 3, exactly, within the scale.
    def rule(each: RatingRow) -> RatingRow:
        assert each.user.average_rating is not None
        assert each.item_average is not None
        return replace(each, rating=2 * each.user.average_rating - each.item_average + 3)

    given = [rule(each) for each in rows(10, 8)]
    found = user_item_bias(given[:40])(given[40:]).ratings
    np.testing.assert_allclose(found, [each.rating for each in given[40:]], atol=1e-9)


def test_an_average_that_is_missing_is_taken_as_the_usual_one() -> None:
    fit = rows(10, 8)
    predict = user_item_bias(fit)
    missing = replace(fit[0], user=replace(fit[0].user, average_rating=None))
    usual = replace(fit[0], user=replace(fit[0].user, average_rating=6.0))  # users' averages are 4 to 8
    assert predict([missing]).ratings[0] == pytest.approx(predict([usual]).ratings[0])
    bare = [row(1, 1, 5, user_persona="Likes boats.", item_synopsis="Boats.")]
    with pytest.raises(InvalidInputError, match="needs \\[Average Rating\\]"):
        user_item_bias(bare)


def test_the_student_rates_as_the_reranker_does(reranker: Reranker) -> None:
    given = [row(user, item, 5) for item in range(3) for user in range(2)]
    given.append(given[0])  # a user may have rated an item twice
    found = student(reranker, "score")(given)
    assert found.failures == {}
    for each, rating in zip(given, found.ratings, strict=True):
        (alone,) = reranker.rank(each.user, [each.item])
        assert alone.expected_rating == pytest.approx(rating, abs=1e-5)


def test_the_student_writes_reasons(reranker: Reranker) -> None:
    found = student(reranker, "reason")([row(1, 1, 5), row(2, 1, 5)])
    assert found.reasonings is not None
    assert all(isinstance(each, str) for each in found.reasonings)
    assert np.isfinite(found.ratings).all()


def test_rows_that_the_student_cannot_rate_are_named(reranker: Reranker) -> None:
    given = [row(1, 1, 5), row(1, 2, 5, item_description="word " * 3000), row(3, 1, 5, user_persona=None)]
    found = student(reranker, "score")(given)
    assert found.rated.tolist() == [True, False, False]
    assert found.failure_counts() == {"invalid": 1, "too_long": 1}
    assert "ratings.jsonl:1: " in found.failures[1].words
    assert found.failures[2].words == "ratings.jsonl:3: user.profile is empty"


def test_parts_are_taken_away_and_nothing_else() -> None:
    seen: list[RatingRow] = []

    def look(given: Sequence[RatingRow], /) -> Predictions:
        seen.extend(given)
        return Predictions(np.zeros(len(given)))

    given = row(1, 2, 5)
    for parts in (["user_profile"], ["item_profile"], ["averages"], ["item_profile", "averages"], TEXTS):
        without(look, parts)([given])
    user, item, averages, both, texts = seen
    assert user == replace(given, user=replace(given.user, profile=NO_PROFILE))
    assert item.user == given.user
    assert item.item.profile == f"{NO_PROFILE}\n\n[Average Rating]\n7.0"
    assert averages.user.profile == given.user.profile
    assert averages.user.average_rating is averages.item_average is None
    assert averages.item.profile == "[Like]\n- Boats\n\n[Dislike]\n- None"
    assert both.item.profile == NO_PROFILE
    assert texts.user.profile == NO_PROFILE
    assert texts.item == replace(item.item, description=None)
    assert both.item.description == given.item.description
    with pytest.raises(InvalidInputError, match="not title"):
        without(look, ["title"])


@pytest.mark.skipif(not DATA.exists(), reason=f"the rating data is not there ({DATA})")
def test_the_bias_baseline_on_real_ratings() -> None:
    given = read_ratings(str(DATA / "ratings_helpful.jsonl"), TEN).rows
    ratings = np.array([each.rating for each in given])
    averages = np.array([(each.user.average_rating, each.item_average) for each in given], dtype=np.float64)
    # The normal equations, as a second way to the same least squares.
    features = np.column_stack([np.ones(1400), averages[:1400]])
    weights = np.linalg.solve(features.T @ features, features.T @ ratings[:1400])
    expected = weights[0] + averages[1400:] @ weights[1:]
    found = user_item_bias(given[:1400])(given[1400:]).ratings
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert np.sqrt(np.mean((found - ratings[1400:]) ** 2)) == pytest.approx(1.795, abs=5e-4)
    assert np.mean(np.abs(found - ratings[1400:])) == pytest.approx(1.525, abs=5e-4)
