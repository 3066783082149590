from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from evaluate_cases import TEN, line, row, rows, write_lines
from exp3rt_trt import InvalidInputError
from exp3rt_trt.evaluate import Texts, read_ratings, split_by_user
from exp3rt_trt.evaluate.data import read_data
from exp3rt_trt.evaluate.split import in_user_order

if TYPE_CHECKING:
    from pathlib import Path


def test_a_row_has_its_texts_and_averages() -> None:
    found = row(1, 2, 8)
    assert (found.user_id, found.item.item_id, found.rating) == ("u1", "i2", 8.0)
    assert found.user.profile == "[Like]\n- Slow films\n\n[Dislike]\n- Jump scares"
    assert (found.user.average_rating, found.item_average) == (5.0, 7.0)
    assert found.item.profile is not None
    assert found.item.profile.endswith("[Average Rating]\n7.0")


def test_both_spellings_of_a_field_are_read(tmp_path: Path) -> None:
    ours = {
        "user_id": 7,
        "item_id": "i",
        "user_profile": "Likes boats.",
        "item_profile": "Boats.",
        "rating": 3,
        "title": "Boat",
    }
    (found,) = read_ratings(str(write_lines(tmp_path / "r.jsonl", ours)), TEN).rows
    assert found.user.profile == "Likes boats."
    assert (found.user_id, found.user.average_rating, found.item_average) == ("7", None, None)
    assert (found.item.title, found.item.description, found.item.profile) == ("Boat", None, "Boats.")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("{", "not valid JSON"),
        (line(1, 1, 11), "'score' must be from 1 to 10, not '11'"),
        (line(1, 1, 5, score="many"), "'score' must be a number, not 'many'"),
        (line(1, 1, 5, score=None), "'rating' is missing"),
        (line(1, 1, 5, score="nan"), "'score' must be from 1 to 10"),
        (line(1, 1, 5, user_id=None), "'user_id' must be a string or an integer, not None"),
        (line(1, 1, 5, item_id=""), "'item_id' must be"),
        (line(1, 1, 5, item_synopsis=["x"]), "'item_synopsis' must be a string, not list"),
    ],
)
def test_a_faulty_row_is_named_and_the_others_are_read(broken: Any, words: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.jsonl", line(1, 1, 5), broken, line(2, 1, 6))
    found = read_ratings(str(path), TEN)
    assert [each.user_id for each in found.rows] == ["u1", "u2"]
    (fault,) = found.faults
    assert fault.startswith(f"{path}:2: ")
    assert words in fault


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"r\.jsonl: no usable row; the first fault: .*:1: "):
        read_ratings(str(write_lines(tmp_path / "r.jsonl", {})), TEN)


def test_a_split_keeps_users_whole_and_depends_on_nothing_else() -> None:
    given = rows(users=300, items=3)
    parts = split_by_user(given, (0.5, 0.3, 0.2), seed=1)
    users = [{each.user_id for each in part} for part in parts]
    assert sum(map(len, parts)) == len(given)
    assert not users[0] & users[1]
    assert not (users[0] | users[1]) & users[2]
    for part, share in zip(users, (0.5, 0.3, 0.2), strict=True):
        assert len(part) / 300 == pytest.approx(share, abs=0.08)  # 3 standard deviations
    again = split_by_user(given[::-1][:300], (0.5, 0.3, 0.2), seed=1)
    assert all({each.user_id for each in part} <= was for part, was in zip(again, users, strict=True))
    assert {each.user_id for each in split_by_user(given, (0.5, 0.5), seed=2)[0]} != users[0]


def test_a_split_is_the_same_on_every_machine() -> None:
    names = [f"user {number}" for number in range(12)]
    first, _ = split_by_user(names, (0.5, 0.5), seed=0, user_of=lambda name: name)
    assert first == ["user 4", "user 5", "user 7", "user 10"]


@pytest.mark.parametrize("fractions", [(), (0.5, 0.4), (1.5, -0.5)])
def test_fractions_that_are_none_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInputError, match="fractions must be positive and sum to 1"):
        split_by_user([], fractions, seed=0)


def test_a_sample_is_whole_users_and_part_of_a_larger_one() -> None:
    given = rows(users=20, items=3)
    order = [each.user_id for each in in_user_order(given, seed=3)]
    assert [len(set(order[start : start + 3])) for start in range(0, 60, 3)] == [1] * 20
    assert order != [each.user_id for each in given]
    assert in_user_order(given[::-1], seed=3)[0].user_id == order[0]


def test_texts_fill_the_gaps_of_those_before(tmp_path: Path) -> None:
    texts = Texts()
    texts.add_rows([row(1, 1, 5, item_description=None)])
    path = write_lines(
        tmp_path / "t.jsonl",
        {"item_id": "i1", "item_description": "A boat.", "item_synopsis": "Other."},
        {"item_id": "i9", "item_synopsis": "Nine."},
        {"user_id": "u9", "user_persona": "Likes nine."},
        {"name": "x"},
    )
    (fault,) = texts.add_file(str(path))
    assert fault == f"{path}:4: neither 'user_id' nor 'item_id'"
    one, nine = texts.item("i1"), texts.item("i9")
    assert one is not None
    assert nine is not None
    assert one.description == "A boat."
    assert (one.profile or "").startswith("[Like]\n- Boats")
    assert nine.profile == "Nine."
    assert texts.user_profile("u9") is not None
    assert texts.user_profile("nobody") is None
    assert texts.item("nothing") is None


def test_what_is_fitted_on_is_a_file_a_share_or_a_number(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "r.jsonl", *(line(user, item, 5) for user in range(40) for item in range(2))
    )
    other = write_lines(tmp_path / "fit.jsonl", line(77, 1, 5))
    by_file = read_data(str(path), str(other), TEN)
    assert [each.user_id for each in by_file.fit] == ["u77"]
    assert len(by_file.rows) == 80
    assert [source.path for source in by_file.sources] == [str(path), str(other)]
    by_number = read_data(str(path), "50", TEN)
    assert (len(by_number.fit), len(by_number.rows)) == (50, 30)
    by_share = read_data(str(path), "0.5", TEN, limit=10)
    assert not {each.user_id for each in by_share.fit} & {each.user_id for each in by_share.rows}
    assert len(by_share.rows) == 10
    assert by_share.known() == {each.user_id: {"i0", "i1"} for each in by_share.fit}
    for wrong, words in (
        ("1.5", "a number of rows, not 1.5"),
        ("nan", "not nan"),
        ("80", "and 0 to measure"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            read_data(str(path), wrong, TEN)


def test_a_rating_on_both_sides_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.jsonl", line(1, 1, 5), line(1, 2, 6))
    fit = write_lines(tmp_path / "fit.jsonl", line(1, 2, 6), line(2, 2, 6))
    with pytest.raises(InvalidInputError, match=r"1 of the rows to measure are .* the first at .*r\.jsonl:2"):
        read_data(str(path), str(fit), TEN)


def test_right_items_are_held_out_and_rated_high_enough(tmp_path: Path) -> None:
    rated = [line(1, 1, 9), line(1, 2, 4), line(1, 3, 9), line(2, 1, 8), line(3, 1, 10)]
    path = write_lines(tmp_path / "r.jsonl", *rated)
    folder = tmp_path / "cf"
    folder.mkdir()
    write_lines(folder / "train.txt", "u1 i9", "u2 i9")
    write_lines(folder / "test.txt", "u1 i1 i2 i4", "u2 i1", "u5 i1")
    data = read_data(str(path), "3", TEN, interactions=str(folder))
    assert data.right_items(8) == {"u1": ["i1"], "u2": ["i1"]}
    assert data.right_items(8.5) == {"u1": ["i1"]}
    assert data.right_items(0)["u1"] == ["i1", "i2"]
    assert data.users_to_fit(None) == ["u1"]
    assert sorted(map(str, data.users_to_rank(None))) == ["u2", "u3"]
