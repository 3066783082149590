"""Coverage: whether a reasoning names a preference of this user and a trait of this item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.evaluate.explanations.words import sentences, stems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.evaluate.explanations.evidence import Evidence, Point


@dataclass(frozen=True)
class Coverage:
    """The points of the prompt that a reasoning names."""

    preferences: tuple[str, ...]
    traits: tuple[str, ...]


def coverage_of(reasoning: str, evidence: Evidence) -> Coverage:
    """Find the user's and the item's points that some sentence of a reasoning names.

    A binary relative of the feature matching ratio of Li et al. (NETE, CIKM 2020; PETER, ACL 2021, arXiv
    2105.11601), with the prompt's own points for the features of a review.
    """
    found = [stems(sentence) for sentence in sentences(reasoning)]
    return Coverage(_named(evidence.user, found), _named(evidence.item, found))


def _named(points: Sequence[Point], found: Sequence[frozenset[str]]) -> tuple[str, ...]:
    return tuple(point.text for point in points if any(point.is_named_by(each) for each in found))
