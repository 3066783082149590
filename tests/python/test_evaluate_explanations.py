"""Explanations that a person would call right or wrong, and what the measures make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from evaluate_cases import row
from exp3rt_trt import Item, RatingScale, UserProfile
from exp3rt_trt.evaluate import Explained, measure_explanations
from exp3rt_trt.evaluate.explanations.agreement import agreement_of
from exp3rt_trt.evaluate.explanations.coverage import coverage_of
from exp3rt_trt.evaluate.explanations.evidence import evidence_of
from exp3rt_trt.evaluate.explanations.grounding import grounding_of
from exp3rt_trt.evaluate.explanations.words import names, stance
from exp3rt_trt.evaluate.rows import row_of

if TYPE_CHECKING:
    from exp3rt_trt.evaluate.explanations.measure import ExplanationTable

RATIONALES = Path(__file__).resolve().parents[3] / "shared/data/exp3rt/amazon-book/teacher_rationales.jsonl"
FIVE = RatingScale.one_to_five()
USER = UserProfile(
    "[Like]\n- Enjoys slow science fiction with one clear idea\n- Appreciates dry humour\n"
    "- Values endings that stay open\n\n[Dislike]\n- Jump scares and gore\n- Long chases\n",
    average_rating=3.4,
)
ITEM = Item(
    "i",
    title="The Second Tuesday",
    description="Science fiction by Mara Lindqvist (1987). A court clerk named Oskar Brandt lives one "
    "Tuesday twice and has to decide which version counts before the law.",
    profile="[Like]\n- A single idea that is thought through\n- Clever court hearings\n\n[Dislike]\n"
    "- Almost no music\n- One subplot is dropped\n\n[Average Rating]\n4.1",
)
EVIDENCE = evidence_of(USER, ITEM)

GOOD = (
    "The user enjoys slow science fiction with one clear idea, and this story thinks a single idea "
    "through. Oskar Brandt's clever court hearings may appeal. However, the dropped subplot might disappoint."
)


def test_a_prompt_is_taken_apart_by_point_and_side() -> None:
    assert [(point.text, point.liked) for point in EVIDENCE.user] == [
        ("Enjoys slow science fiction with one clear idea", True),
        ("Appreciates dry humour", True),
        ("Values endings that stay open", True),
        ("Jump scares and gore", False),
        ("Long chases", False),
    ]
    assert [point.liked for point in EVIDENCE.item] == [None, None, True, True, False, False]
    user = UserProfile("Likes: slow films.\nDisliked:\n- gore\n- None")
    other = evidence_of(user, Item("i", description="Title: Boat\nPlot: A crew sails."))
    assert [(point.text, point.liked) for point in other.user] == [("slow films.", True), ("gore", False)]
    assert [point.text for point in other.item] == ["Plot: A crew sails."]
    assert other.has_name("Boat")


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        (GOOD, {}),
        # Invented: neither the user nor the film has to do with it.
        (
            "The user loves musicals with tap dancing.",
            {"unsupported": ("The user loves musicals with tap dancing.",)},
        ),
        (
            "It is a heist in a casino, shot in Morocco.",
            {
                "unsupported": ("It is a heist in a casino, shot in Morocco.",),
                "unknown_names": ("Morocco",),
            },
        ),
        # Turned round: the words are there, but on the other side.
        (
            "The user likes jump scares and gore.",
            {"contradicted": ("The user likes jump scares and gore.",)},
        ),
        (
            "The user does not really appreciate dry humour.",
            {"contradicted": ("The user does not really appreciate dry humour.",)},
        ),
        (
            "Viewers disliked the clever hearings.",
            {"contradicted": ("Viewers disliked the clever hearings.",)},
        ),
        # Right in either direction.
        ("The user dislikes jump scares and long chases.", {}),
        ("The user does not enjoy gore or jump scares.", {}),
        ("Viewers disliked the dropped subplot.", {}),
        # A like that the film does not meet is no contradiction.
        ("The dropped subplot may not align with the preference for one clear idea.", {}),
        # Names: of the prompt, and others.
        ("It was directed by Mara Lindqvist in 1987.", {}),
        (
            "It was directed by Steven Spielberg in 1999.",
            {
                "unsupported": ("It was directed by Steven Spielberg in 1999.",),
                "unknown_names": ("1999", "Steven Spielberg"),
            },
        ),
        ("The average rating of 3.4 is no obstacle.", {}),
        ("The average rating of 4.9 is no obstacle.", {"unknown_names": ("4.9",)}),
        # Nothing that could be checked.
        ("Overall, it is a good film. The user will probably like it.", {}),
    ],
)
def test_grounding(reasoning: str, expected: dict[str, Any]) -> None:
    found = grounding_of(reasoning, EVIDENCE)
    assert found.unsupported == expected.get("unsupported", ())
    assert found.contradicted == expected.get("contradicted", ())
    assert set(found.unknown_names) == set(expected.get("unknown_names", ()))


def test_claims_are_counted_once_and_empty_talk_not_at_all() -> None:
    assert grounding_of("Overall, it is a good film. The user will probably like it.", EVIDENCE).claims == 0
    looped = grounding_of("The clever court hearings. " * 5, EVIDENCE)
    assert (looped.claims, looped.supported_claims) == (1, 1)


@pytest.mark.parametrize(
    ("reasoning", "preferences", "traits"),
    [
        (GOOD, {"Enjoys slow science fiction with one clear idea"}, {"Clever court hearings"}),
        ("They value an open ending that stays with them.", {"Values endings that stay open"}, set()),
        ("The dry humour suits this person.", {"Appreciates dry humour"}, set()),
        ("There is almost no music.", set(), {"Almost no music"}),
        ("The Second Tuesday is a film about a Tuesday.", set(), set()),  # the title is no trait
        ("It is a good film and worth the time.", set(), set()),
        ("The humour is loud.", set(), set()),  # one word of two is not the preference
    ],
)
def test_coverage(reasoning: str, preferences: set[str], traits: set[str]) -> None:
    found = coverage_of(reasoning, EVIDENCE)
    assert preferences <= set(found.preferences)
    assert traits <= set(found.traits)
    assert bool(found.preferences) == bool(preferences)
    assert bool(found.traits) == bool(traits)


@pytest.mark.parametrize(
    ("reasoning", "rating", "agrees"),
    [
        ("The user would probably enjoy this film.", 4.5, "agrees"),
        ("The user would probably enjoy this film.", 1.5, "contradicts"),
        ("The user may not enjoy it, as they appreciate dry humour.", 1.4, "agrees"),
        ("The user may not enjoy it, as they appreciate dry humour.", 4.8, "contradicts"),
        ("The gore might well disappoint the user, who values open endings.", 4.6, "contradicts"),
        ("It does not align with their taste.", 1.2, "agrees"),
        ("The idea may appeal, but the gore is likely to bother them.", 4.6, "agrees"),  # both: fits either
        ("They might like it.", 3.1, "agrees"),  # the middle fits any words
        # What the user likes in general is not what comes of this film.
        ("The user likes slow films and dislikes gore.", 1.0, "no verdict"),
        ("A court clerk lives one day twice.", 5.0, "no verdict"),
    ],
)
def test_agreement(reasoning: str, rating: float, agrees: str) -> None:
    assert agreement_of(reasoning, rating, FIVE).agrees == agrees


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        ("the user would love it", 1),
        ("a love story in a production with great values", 0),  # nouns
        ("films like this", 0),  # a preposition
        ("would hardly appeal to them", -1),
        ("they wouldn't enjoy it", -1),
        ("would not dislike it", 1),
        ("prefers not to see gore", -1),
        ("likes the start and dislikes the end", 0),
    ],
)
def test_stance(segment: str, expected: int) -> None:
    assert stance(segment) == expected


def test_names_are_runs_of_capitals_and_figures() -> None:
    text = "The film stars Cary Grant and Eva Marie Saint. Grant was 55 in 1959.\n"
    text += "1. Rated 8.1 by viewers of NBC."
    assert set(names(text)) == {"Cary Grant", "Eva Marie Saint", "1959", "8.1", "NBC"}


def explained(number: int, reasoning: str, rating: float) -> Explained:
    described = {"item_description": f"Title: Film {number}\nPlot: The {WORDS[number]} goes far."}
    return Explained(row(number, number, 5, **described), reasoning, rating)


WORDS = ["lighthouse keeper", "brass orchestra", "polar expedition", "chess tournament"]


def test_shares_and_what_chance_gives() -> None:
    given = [
        explained(n, f"The {words} may appeal, and slow films do.", 8.0) for n, words in enumerate(WORDS)
    ]
    given[3] = explained(3, "The submarine volcano erupts. The user would dislike that.", 8.0)
    table = measure_explanations(given, RatingScale.one_to_ten())
    assert (table.explanations, table.claims) == (4, 4)
    assert table.shares["claims supported"].value == 3 / 4
    assert table.shares["names a trait"].value == 3 / 4
    assert table.shares["names a preference"].value == 3 / 4
    assert table.chance["names a trait"].value == 0  # no film is another's
    assert table.chance["names a preference"].value == 3 / 4  # all users like the same
    assert table.verdicts == {"agrees": 3, "contradicts": 1, "no verdict": 0}
    assert table.agreement.value == 3 / 4
    assert table.kendall_tau is None  # all ratings are equal


def test_no_explanations_are_no_shares() -> None:
    table = measure_explanations([], FIVE)
    assert table.explanations == 0
    assert table.shares["claims supported"].value != table.shares["claims supported"].value  # NaN
    assert table.kendall_tau is None


@pytest.fixture(scope="module")
def teacher() -> ExplanationTable:
    if not RATIONALES.exists():
        pytest.skip(f"the teacher's rationales are not there ({RATIONALES})")
    given = []
    for line in RATIONALES.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        each = row_of(fields, FIVE)
        given.append(Explained(each, fields["rationale"], each.rating))
    return measure_explanations(given, FIVE)


def test_a_teacher_who_saw_prompt_and_rating_does_well(teacher: ExplanationTable) -> None:
    """83 rationales of a large model, which was shown the true rating: nearly all must be found right."""
    assert teacher.shares["claims supported"].value > 0.95
    assert teacher.shares["names known"].value > 0.98
    assert teacher.shares["names both"].value > 0.98
    assert teacher.agreement.value > 0.93
    assert (teacher.kendall_tau or 0) > 0.6


def test_the_same_words_about_something_else_do_not(teacher: ExplanationTable) -> None:
    assert teacher.chance["claims supported"].value < 0.2
    assert teacher.chance["names known"].value < 0.1
    assert teacher.chance["names both"].value < 0.6
