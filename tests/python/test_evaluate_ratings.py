from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from evaluate_cases import row
from exp3rt_trt import InvalidInputError
from exp3rt_trt.evaluate import Bootstrap, Failure, Predictions, measure_ratings
from exp3rt_trt.evaluate.bootstrap import mean, mean_difference, root_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = [row(1, 1, 8), row(1, 2, 6), row(2, 1, 3), row(3, 1, 9)]


def predicted(*ratings: float, **failures: Failure) -> Predictions:
    return Predictions(np.array(ratings), {int(number[1:]): each for number, each in failures.items()})


def test_errors_are_those_of_the_textbook() -> None:
    table = measure_ratings(ROWS, {"a": predicted(7, 6, 5, 9)}, baseline="a", known={})
    (method,) = table.methods
    assert method.errors.rmse.value == pytest.approx(math.sqrt((1 + 0 + 4 + 0) / 4))
    assert method.errors.mae.value == pytest.approx(3 / 4)
    assert (table.rows, table.users, method.errors.rows) == (4, 3, 4)
    assert method.difference is None
    assert method.failures == {}


def test_failures_are_counted_apart_and_never_an_error_of_zero() -> None:
    failing = predicted(7, math.nan, 5, math.inf, _1=Failure("too_long", "it is too long"))
    table = measure_ratings(
        ROWS, {"fails": failing, "flat": predicted(5, 5, 5, 5)}, baseline="flat", known={}
    )
    fails, _ = table.methods
    assert fails.failures == {"failed": 1, "too_long": 1}
    assert fails.errors.rows == 2
    assert fails.errors.rmse.value == pytest.approx(math.sqrt((1 + 4) / 2))
    # The difference is over the two rows that both rated.
    assert fails.difference is not None
    assert fails.difference.rows == 2
    assert fails.difference.rmse.value == pytest.approx(math.sqrt(5 / 2) - math.sqrt((9 + 4) / 2))
    assert fails.difference.mae.value == pytest.approx(3 / 2 - 5 / 2)


def test_nothing_rated_is_no_error_at_all() -> None:
    nothing = predicted(*[math.nan] * 4)
    table = measure_ratings(ROWS, {"a": nothing}, baseline="a", known={})
    assert math.isnan(table.methods[0].errors.rmse.value)
    assert table.methods[0].failures == {"failed": 4}


def test_cold_users_are_those_of_whom_little_was_known() -> None:
    known = {"u1": {"a", "b", "c"}, "u2": {"a"}}
    table = measure_ratings(ROWS, {"a": predicted(7, 6, 5, 9)}, baseline="a", known=known, cold_below=2)
    (method,) = table.methods
    assert table.cold_rows == 2  # u2 with one, u3 with none
    assert method.cold is not None
    assert method.warm is not None
    assert method.cold.rmse.value == pytest.approx(math.sqrt(4 / 2))
    assert method.warm.rmse.value == pytest.approx(math.sqrt(1 / 2))
    everyone = measure_ratings(ROWS, {"a": predicted(7, 6, 5, 9)}, baseline="a", known={}, cold_below=2)
    assert everyone.methods[0].warm is None


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no method 'x' to compare with; there are a"):
        measure_ratings(ROWS, {"a": predicted(7, 6, 5, 9)}, baseline="x", known={})


def test_an_interval_is_repeatable_and_needs_two_users() -> None:
    random = np.random.default_rng(0)
    users, values = [f"u{n}" for n in range(50)], random.normal(size=50)
    first, again = (Bootstrap(seed=3).estimate(mean, users, values) for _ in range(2))
    assert first == again
    assert Bootstrap(seed=4).estimate(mean, users, values) != first
    alone = Bootstrap(seed=3).estimate(mean, ["u"] * 50, values)
    assert (alone.low, alone.high) == (None, None)
    assert alone.value == pytest.approx(values.mean())


def test_an_interval_of_independent_users_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(size=2000)
    found = Bootstrap(seed=0).estimate(mean, list(range(2000)), values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def errors_of_users(
    random: np.random.Generator, users: int, rows: int
) -> tuple[list[int], NDArray[np.float64]]:
    """Errors with a part of the user's (variance 1) and one of the row's (variance 1), [users * rows]."""
    own = np.repeat(random.normal(size=users), rows)
    return list(np.repeat(np.arange(users), rows)), own + random.normal(size=users * rows)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(7)
    clustered, by_row = 0, 0
    for number in range(300):
        users, errors = errors_of_users(random, users=60, rows=6)
        draws = Bootstrap(seed=number, resamples=300)
        found = draws.estimate(root_mean, users, errors**2)
        naive = draws.estimate(root_mean, list(range(len(users))), errors**2)
        truth = math.sqrt(2)
        clustered += (found.low or 0) <= truth <= (found.high or 0)
        by_row += (naive.low or 0) <= truth <= (naive.high or 0)
    # 95 % asked for; 60 users and 300 draws cost a little. Rows as if independent: far too narrow.
    assert 0.89 <= clustered / 300 <= 0.98
    assert by_row / 300 <= 0.80


def test_paired_differences_hold_the_truth_too() -> None:
    random = np.random.default_rng(11)
    held, narrower = 0, 0
    for number in range(200):
        users, shared = errors_of_users(random, users=60, rows=4)
        ours = shared + 0.2 * random.normal(size=len(shared)) + 0.1
        draws = Bootstrap(seed=number, resamples=300)
        found = draws.estimate(mean_difference, users, ours, shared)
        alone = draws.estimate(mean, users, ours)
        assert found.low is not None
        assert found.high is not None
        assert alone.low is not None
        assert alone.high is not None
        held += found.low <= 0.1 <= found.high
        narrower += found.high - found.low < (alone.high - alone.low) / 4
    assert 0.89 <= held / 200 <= 0.99
    assert narrower == 200  # what both sides share cancels
