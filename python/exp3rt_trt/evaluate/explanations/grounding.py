"""Grounding: which claims and names of a reasoning the prompt supports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.evaluate.explanations.english import OTHERS, TRANSITIVE
from exp3rt_trt.evaluate.explanations.words import clauses, names, segments, stances, stems, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.evaluate.explanations.evidence import Evidence, Point

SUPPORT = 0.5  # least share of a claim's stems that the prompt must have


@dataclass(frozen=True)
class Grounding:
    """What a reasoning says that can be checked, and what of it the prompt does not support.

    Args:
        claims: number of different clauses with at least two words of content.
        unsupported: those of them of whose words less than half are in the prompt.
        contradicted: those that turn a like into a dislike, or a dislike into a like.
        names: number of names, years and decimal numbers.
        unknown_names: those that the prompt does not have.
    """

    claims: int
    unsupported: tuple[str, ...]
    contradicted: tuple[str, ...]
    names: int
    unknown_names: tuple[str, ...]

    @property
    def supported_claims(self) -> int:
        """Claims that are neither unsupported nor contradicted."""
        return self.claims - len(self.unsupported) - len(self.contradicted)

    @property
    def known_names(self) -> int:
        """Names that the prompt has."""
        return self.names - len(self.unknown_names)


def grounding_of(reasoning: str, evidence: Evidence) -> Grounding:
    """Check a reasoning's claims and names against the prompt.

    The share of supported claims has the form of FActScore (Min et al., EMNLP 2023, arXiv 2305.14251), with
    clauses for atomic facts and words for the judging model. The share of known names is the entity precision
    against the source of Nan et al. (EACL 2021, arXiv 2102.09130).

    Example:
        >>> grounding_of("It stars Tom Hanks.", evidence).unknown_names  # doctest: +SKIP
        ('Tom Hanks',)
    """
    claims = [each for each in dict.fromkeys(clauses(reasoning)) if len(stems(each)) >= 2]
    unsupported = tuple(claim for claim in claims if not _is_supported(claim, evidence))
    contradicted = tuple(
        claim for claim in claims if claim not in unsupported and _is_contradicted(claim, evidence)
    )
    found = names(reasoning)
    unknown = tuple(name for name in found if not evidence.has_name(name))
    return Grounding(len(claims), unsupported, contradicted, len(found), unknown)


def _is_supported(claim: str, evidence: Evidence) -> bool:
    found = stems(claim)
    return len(found & evidence.stems) >= SUPPORT * len(found)


def _is_contradicted(claim: str, evidence: Evidence) -> bool:
    """Look for a statement of liking what the nearest points have under dislikes, or the other way round."""
    for segment in segments(claim):
        points = evidence.item if OTHERS & set(words(segment)) else evidence.user
        for said in stances(segment):
            sides = {point.liked for point in _nearest(points, stems(said.object))}
            if said.word in TRANSITIVE and sides == {said.sign < 0}:
                return True
    return False


def _nearest(points: Sequence[Point], found: frozenset[str]) -> list[Point]:
    named = [point for point in points if point.is_named_by(found)]
    most = max((point.shared(found) for point in named), default=0)
    return [point for point in named if point.shared(found) == most]
