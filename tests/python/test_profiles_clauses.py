from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from exp3rt_trt import Generator, InvalidInputError
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.profiles import ClauseJudge, Preferences, ProfileBuilder, ProfileStore, Review
from exp3rt_trt.profiles.clauses import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PRAISE = [
    "The colours are wonderful",
    "Works great with my old camera",
    "I love how light it is",
    "the lens is sharp and bright",
    "Excellent value for the price",
]
COMPLAINTS = [
    "The strap broke on the first day",
    "Very disappointing pictures",
    "the screen scratches badly",
    "Customer service was rude and useless",
    "It stopped working after a month",
]


@pytest.fixture(scope="module")
def judge(base_student_engine: Callable[[str], Path]) -> Iterator[ClauseJudge]:
    with Generator(Engine.open(base_student_engine("bf16")), threads=1, kv_cache_mib=64) as generator:
        yield ClauseJudge(generator)


def test_a_review_is_cut_into_clauses() -> None:
    text = "Lovely sound!It hums, but only a little...\nNo. I had it for years; I had it for years. 10/10"
    assert split(text) == ["Lovely sound", "It hums", "only a little", "I had it for years"]
    assert split("") == split("the of and to") == []
    assert split("word " * 40) == []


def test_the_base_student_tells_praise_from_complaints(judge: ClauseJudge) -> None:
    for clauses, side in ((PRAISE, "likes"), (COMPLAINTS, "dislikes")):
        [extraction] = judge.extract([Review("u", "i", ". ".join(clauses) + ".")], 5)
        assert sorted(getattr(extraction.found, side)) == sorted(clauses)
        assert extraction.status == "ok"


def test_points_are_the_surest_first_and_the_rating_is_a_witness(judge: ClauseJudge) -> None:
    text = "The lid closes. I love it. The colours are wonderful."
    found = {rating: judge.extract([Review("u", "i", text, rating)], 5)[0].found for rating in (1, None, 5)}
    assert len(found[1].likes) <= len(found[None].likes) <= len(found[5].likes)
    assert found[5].likes[0] != "The lid closes"
    assert set(found[5].likes) >= {"I love it", "The colours are wonderful"}


def test_reviews_together_are_each_alone(judge: ClauseJudge) -> None:
    reviews = [Review("u", "i", text) for text in (PRAISE[0], "", ". ".join(COMPLAINTS), "Well")]
    together = judge.extract(reviews, 5)
    assert together == [judge.extract([review], 5)[0] for review in reviews]
    assert together[1].found == Preferences()


def test_a_builder_keeps_what_is_judged(judge: ClauseJudge, tmp_path: Path) -> None:
    store = ProfileStore(tmp_path / "s.sqlite")
    reviews = [Review("ann", "i", ". ".join(PRAISE[:3])), Review("bob", "i", ". ".join(COMPLAINTS[:3]))]
    counts = ProfileBuilder(judge, store).add([*reviews, Review("eve", "j", "Well")])
    assert (counts.extracted, counts.empty, counts.unparsed) == (3, 1, 0)
    item = store.item("i")
    assert item is not None
    assert item.profile is not None
    assert all(point in item.profile for point in (*PRAISE[:3], *COMPLAINTS[:3]))
    assert ProfileBuilder(judge, store).add(reviews).known == 2


def test_a_builder_knows_its_scale(judge: ClauseJudge, tmp_path: Path) -> None:
    store = ProfileStore(tmp_path / "s.sqlite")
    reviews = [Review("ann", "i", PRAISE[0], 5), Review("bob", "i", PRAISE[0], 9)]
    with pytest.raises(InvalidInputError, match=r"reviews\[1\]\.rating must be from 1 to 5, not 9"):
        ProfileBuilder(judge, store).add(reviews)
    assert store.user_profile("ann") is None
    assert ProfileBuilder(judge, store, 10).add(reviews).extracted == 2
    with pytest.raises(InvalidInputError, match="highest_rating must be above 1, not 1"):
        ProfileBuilder(judge, store, 1)
