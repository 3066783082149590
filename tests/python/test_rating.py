from __future__ import annotations

import math

import numpy as np
import pytest
from exp3rt_trt import InvalidInputError, RatingScale
from exp3rt_trt.rating import expected_rating, label_probabilities
from hypothesis import given, settings
from hypothesis import strategies as st

LOGITS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=10)


def test_scales() -> None:
    assert RatingScale.one_to_five().labels == ("1", "2", "3", "4", "5")
    assert RatingScale.one_to_five().values == (1, 2, 3, 4, 5)
    assert RatingScale.one_to_ten().labels == tuple("0123456789")
    assert RatingScale.one_to_ten().values == tuple(range(1, 11))
    assert RatingScale.one_to_ten().wording()["labels"] == "0, 1, 2, 3, 4, 5, 6, 7, 8 or 9"


@pytest.mark.parametrize(
    ("labels", "values", "words"),
    [
        (("1", "2"), (1,), "2 labels, but 1 values"),
        (("1",), (1,), "at least 2 labels"),
        (("1", "1"), (1, 2), "distinct"),
        (("1", ""), (1, 2), "not empty"),
        (("1", "2"), (2, 2), "increase"),
        (("1", "2"), (1, math.nan), "finite"),
        (("1", "2"), (1, math.inf), "finite"),
        ((1, 2), (1, 2), "labels must be strings"),
        (("1", "2"), ("1", "2"), "values must be numbers"),
    ],
)
def test_a_scale_that_does_not_fit_is_refused(labels: tuple[str], values: tuple[float], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        RatingScale(labels, values)


@settings(deadline=None)
@given(LOGITS)
def test_probabilities_are_a_softmax(logits: list[float]) -> None:
    probabilities = label_probabilities(np.array(logits, dtype=np.float32))
    assert probabilities.dtype == np.float64
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert probabilities[np.argmax(logits)] == probabilities.max()


@settings(deadline=None)
@given(LOGITS, st.floats(-100, 100))
def test_expected_rating_stays_on_the_scale_and_ignores_a_shift(logits: list[float], shift: float) -> None:
    values = list(range(1, len(logits) + 1))
    rating = expected_rating(label_probabilities(np.array(logits)), values)
    assert 1 - 1e-9 <= rating <= len(logits) + 1e-9
    shifted = expected_rating(label_probabilities(np.array(logits) + shift), values)
    assert shifted == pytest.approx(float(rating), abs=1e-6)


def test_expected_rating_of_many_rows() -> None:
    probabilities = label_probabilities(np.array([[0.0, 0.0], [-np.inf, 0.0], [np.nan, 0.0]]))
    ratings = expected_rating(probabilities, (1, 2))
    assert ratings[:2].tolist() == [1.5, 2.0]
    assert np.isnan(ratings[2])


def test_a_row_has_the_same_bits_whatever_stands_beside_it() -> None:
    scale = RatingScale.one_to_ten()
    logits = np.random.default_rng(0).normal(0, 4, (400, 10)).astype(np.float32)
    together = expected_rating(label_probabilities(logits), scale.values)
    alone = [float(expected_rating(label_probabilities(row), scale.values)) for row in logits]
    assert together.tolist() == alone
