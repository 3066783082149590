"""Points of likes and dislikes: read from what the student wrote, checked against the review, and merged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be because been but by can did do does for from
    get got had has have he her him his how i if in into is it its just like liked likes me more my
    no not of on or our out she so some than that the their them then there they this to too up very
    was we were what when which who will with would you your
    """.split()  # noqa: SIM905  (a list would be a page)
)
_SAME = 0.5  # share of common content words from which two points say the same


@dataclass(frozen=True)
class Preferences:
    """What is liked and disliked, a few words a point; as text, in the form that students are taught."""

    likes: tuple[str, ...] = ()
    dislikes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"[Like]\n{_listed(self.likes)}\n\n[Dislike]\n{_listed(self.dislikes)}"


def parse(answer: str, *, cut: bool = False) -> Preferences | None:
    """Read a [Like]/[Dislike] list.

    Args:
        answer: what the student wrote.
        cut: it did not end by itself, so that its last line may be half a point and is left out.

    Returns:
        The points in their order; None if a heading is missing.
    """
    likes = _side(answer, "Like", cut=cut)
    dislikes = _side(answer, "Dislike", cut=cut)
    return None if likes is None or dislikes is None else Preferences(likes, dislikes)


def parse_side(answer: str, heading: str, *, cut: bool) -> tuple[str, ...]:
    """Read one side; empty if its heading is missing."""
    return _side(answer, heading, cut=cut) or ()


def grounded(points: Iterable[str], text: str) -> tuple[str, ...]:
    """Keep the points whose content words mostly stand in a text, each once."""
    known = content_words(text)
    kept: list[str] = []
    for point in points:
        words = content_words(point)
        if words and len(words & known) * 2 > len(words) and all(content_words(k) != words for k in kept):
            kept.append(point)
    return tuple(kept)


def without_contradictions(found: Preferences, rating: float | None, highest: float) -> Preferences:
    """Keep a point that stands on both sides on the one that the rating speaks for, or on neither.

    Args:
        found: the points of one review.
        rating: of that review; None if not known.
        highest: rating of the scale.
    """
    share = 0.5 if rating is None else rating / highest
    likes, dislikes = ({content_words(point) for point in side} for side in (found.likes, found.dislikes))
    return Preferences(
        tuple(p for p in found.likes if share >= 0.8 or content_words(p) not in dislikes),
        tuple(p for p in found.dislikes if share <= 0.4 or content_words(p) not in likes),
    )


def merge(groups: Sequence[Sequence[str]], most: int = 5) -> tuple[str, ...]:
    """Sum up the points of many reviews: those that say the same count as one, the most frequent come first.

    Args:
        groups: points by review, the most important review and its surest point first.
        most: points to keep.

    Returns:
        The wording of each that came first; of equally frequent ones, each review's first points before its
        second ones.
    """
    found: list[tuple[str, frozenset[str], set[int], int]] = []
    for number, points in enumerate(groups):
        for place, point in enumerate(points):
            words = content_words(point)
            same = next((entry for entry in found if _overlap(words, entry[1]) >= _SAME), None)
            if same is not None:
                same[2].add(number)
            else:
                found.append((point, words, {number}, place))
    found.sort(key=lambda entry: (-len(entry[2]), entry[3]))  # stable
    return tuple(point for point, *_ in found[:most])


def content_words(text: str) -> frozenset[str]:
    """Return the words that carry meaning, without their commonest endings; numbers are none."""
    words = (
        word for word in re.findall(r"[a-z0-9']*[a-z][a-z0-9']*", text.lower()) if word not in _STOP_WORDS
    )
    return frozenset(re.sub(r"(?<=\w{3})(ing|ed|es|s|ly)$", "", word) for word in words)


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(1, len(one | other))


def _side(answer: str, heading: str, *, cut: bool) -> tuple[str, ...] | None:
    found = re.search(rf"^\[{heading}\][ ]*\n((?:(?!\[).*\n?)*)", answer, re.MULTILINE)
    if found is None:
        return None
    lines = found[1].splitlines()
    if cut and found.end() == len(answer):
        lines = lines[:-1]
    points = (line[1:].strip(" .") for line in lines if line.startswith("-"))
    return tuple(point for point in points if point and point.lower() != "none")


def _listed(points: Sequence[str]) -> str:
    return "\n".join(f"- {point}" for point in points or ("None",))
