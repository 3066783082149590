"""What a prompt says of user and item, point by point: that is what an explanation may rest on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.evaluate.explanations.words import sentences, stems, words
from exp3rt_trt.evaluate.rows import without_average

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exp3rt_trt.inputs import Item, UserProfile

# "[Like]", "Likes:", "Disliked:" and the like, on a line of their own or before the first point.
_HEADING = re.compile(r"\s*(?:\[(dis)?likes?\]|(dis)?liked?s?\s*:)\s*", re.IGNORECASE)
_TITLE = re.compile(r"\s*title\s*:", re.IGNORECASE)
_DISLIKE = re.compile(r"\W*dis", re.IGNORECASE)


@dataclass(frozen=True)
class Point:
    """One thing that a prompt says.

    Args:
        text: as it stands there.
        stems: of its words with content; never empty.
        liked: whether it stands under what is liked or disliked; None if neither.
    """

    text: str
    stems: frozenset[str]
    liked: bool | None = None

    def shared(self, others: frozenset[str]) -> int:
        """Return how many stems it shares."""
        return len(self.stems & others)

    def is_named_by(self, others: frozenset[str]) -> bool:
        """Return whether a sentence with these stems names it: by two stems, or its only one."""
        return self.shared(others) >= min(2, len(self.stems))


@dataclass(frozen=True)
class Evidence:
    """What a prompt says.

    Args:
        user: points about the user.
        item: points about the item; its title is none, for to name it says nothing of it.
        stems: of all its words.
        text: all its words in lower case, between blanks.
    """

    user: tuple[Point, ...]
    item: tuple[Point, ...]
    stems: frozenset[str]
    text: str

    def has_name(self, name: str) -> bool:
        """Return whether the words of a name follow each other somewhere."""
        return f" {' '.join(words(name))} " in self.text


def evidence_of(user: UserProfile, item: Item) -> Evidence:
    """Take apart what the prompt of a user and an item says; the instructions are no evidence."""
    average = "" if user.average_rating is None else f"{user.average_rating:.1f}"
    of_item = [item.description or "", item.profile or ""]
    text = "\n".join([user.profile, average, item.title or "", *of_item])
    item_points = [point for each in of_item for point in _points(without_average(each)[0])]
    return Evidence(
        tuple(_points(user.profile)), tuple(item_points), stems(text), f" {' '.join(words(text))} "
    )


def _points(text: str) -> Iterator[Point]:
    liked = None
    for line in text.splitlines():
        heading = _HEADING.match(line)
        if heading:
            liked = not _DISLIKE.match(heading[0])
        for sentence in sentences(line[heading.end() :] if heading else line):
            found = stems(sentence)
            if found and not _TITLE.match(sentence):
                yield Point(sentence, found, liked)
