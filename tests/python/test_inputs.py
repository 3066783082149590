from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from exp3rt_trt import InvalidInputError, Item, UserProfile
from exp3rt_trt.inputs import as_candidates, as_item, as_user
from exp3rt_trt.jobs import make_slots
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def test_a_user_may_be_an_object_a_mapping_or_a_text() -> None:
    expected = UserProfile("likes boats")
    assert as_user(" likes boats\n") == as_user({"profile": "likes boats"}) == as_user(expected) == expected
    full = UserProfile("p", user_id=7, average_rating=3.5, metadata={"since": 2019})
    assert as_user({"profile": "p", "user_id": 7, "average_rating": "3.5", "since": 2019}) == full
    assert as_user({"profile": "p", "user_id": 7, "average_rating": 3.5, "metadata": {"since": 2019}}) == full


def test_an_item_may_be_an_object_a_mapping_or_a_text() -> None:
    assert as_item("a boat", 4) == Item("4", description="a boat")
    assert as_item({"item_id": "b", "title": "Boat", "year": 1999}, 0) == Item(
        "b", "Boat", metadata={"year": 1999}
    )
    assert as_item(Item(3, "Boat"), 0) == Item(3, "Boat")
    assert as_item(Item(np.int64(3), "Boat"), 0) == Item(3, "Boat")  # type: ignore[arg-type]

    @dataclass
    class Film:
        item_id: str
        title: str
        director: str

    assert as_item(Film("f", "Boat", "nobody"), 0) == Item("f", "Boat")


def test_records_are_hashable() -> None:
    assert len({Item("a", metadata={"k": []}), Item("a"), UserProfile("p", metadata={"k": []})}) == 3


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("", "user.profile is empty"),
        (" \n\t", "user.profile is empty"),
        ({}, "user.profile is missing"),
        ({"profile": 3}, "user.profile must be a string, not int"),
        ({"profile": "a\ud800"}, "user.profile is not valid Unicode"),
        ({"profile": "p", "user_id": 1.5}, "user.user_id is of type float"),
        ({"profile": "p", "average_rating": "high"}, "user.average_rating must be a number, not 'high'"),
        ({"profile": "p", "average_rating": float("nan")}, "user.average_rating must be finite"),
        ({"profile": "p", "average_rating": True}, "user.average_rating must be a number, not True"),
        ({"profile": "p", "metadata": []}, "user.metadata must be a mapping"),
        (None, "user must be UserProfile"),
    ],
)
def test_a_faulty_user_is_refused_by_field(user: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        as_user(user)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("", "title, description and profile are all empty"),
        ({"item_id": "a"}, "title, description and profile are all empty"),
        ({"title": "t"}, r"candidates\[3\].item_id is missing"),
        ({"item_id": "", "title": "t"}, r"candidates\[3\].item_id is empty"),
        ({"item_id": True, "title": "t"}, r"candidates\[3\].item_id is of type bool"),
        ({"item_id": "a", "title": ["t"]}, r"candidates\[3\].title must be a string, not list"),
        ({"item_id": "a", "title": "\udfff"}, r"candidates\[3\].title is not valid Unicode"),
        (12, r"candidates\[3\] must be Item, a mapping, a string"),
    ],
)
def test_a_faulty_item_is_named_and_the_others_stay(item: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        as_item(item, 3)
    slots = make_slots(["a", "b", "c", item, "e"])
    assert [slot.status for slot in slots] == ["ok", "ok", "ok", "invalid", "ok"]
    assert slots[3].source is item
    assert slots[3].error is not None
    assert "candidates[3]" in slots[3].error


def test_an_invalid_item_keeps_its_id() -> None:
    assert make_slots([{"item_id": "a"}])[0].item_id == "a"
    assert make_slots([{"title": "a"}])[0].item_id is None


def test_a_duplicate_names_the_first() -> None:
    slots = make_slots([Item("a", "x"), Item("b", "x"), Item("a", "y"), Item("a", "x")])
    assert [slot.status for slot in slots] == ["ok", "ok", "duplicate", "duplicate"]
    assert slots[2].error == "candidates[2].item_id 'a' is that of candidates[0] already"
    assert [slot.status for slot in make_slots([Item(1, "x"), Item("1", "x")])] == ["ok", "ok"]


def test_the_id_of_an_invalid_item_is_free_for_another() -> None:
    assert [slot.status for slot in make_slots([{"item_id": "a"}, Item("a", "x")])] == ["invalid", "ok"]


@pytest.mark.parametrize("candidates", ["text", b"bytes", {"item_id": "a"}, Item("a", "x"), None, 3])
def test_candidates_are_a_list(candidates: Any) -> None:
    with pytest.raises(InvalidInputError, match="candidates must be a list of items"):
        as_candidates(candidates)


def test_candidates_may_be_any_iterable() -> None:
    assert list(as_candidates(str(i) for i in range(3))) == ["0", "1", "2"]

    def broken() -> Any:
        yield "a"
        raise TypeError("of the caller's own making")

    with pytest.raises(TypeError, match="own making"):
        as_candidates(broken())


@settings(deadline=None)
@given(
    st.dictionaries(TEXT, st.one_of(TEXT, st.none(), st.integers(), st.lists(TEXT, max_size=2))), TEXT, TEXT
)
def test_input_is_never_changed(extra: dict[str, Any], item_id: str, title: str) -> None:
    item = {**extra, "item_id": item_id, "title": title, "metadata": {"nested": [1]}}
    before = copy.deepcopy(item)
    slot = make_slots([item])[0]
    assert item == before
    assert slot.source is item
