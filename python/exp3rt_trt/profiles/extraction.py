"""What an extractor of preferences is, and what it gives for a review."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from exp3rt_trt.profiles.points import Preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.engines.engine import Engine
    from exp3rt_trt.profiles.reviews import Review

MAX_POINTS = 5  # of a side of a review
MAX_CHARACTERS = 3000  # of a review


@dataclass(frozen=True)
class Extraction:
    """What was found in one review.

    Args:
        found: the points.
        status: "unparsed" if what the student wrote could not be read.
        retried: the student was asked twice.
        ungrounded: points that were dropped because the review does not say them.
    """

    found: Preferences = field(default_factory=Preferences)
    status: Literal["ok", "unparsed"] = "ok"
    retried: bool = False
    ungrounded: int = 0


class Extractor(Protocol):
    """Finds out what writers of reviews like and dislike."""

    @property
    def version(self) -> str:
        """What its answers depend on beside the review: the way, its prompts and the engine."""

    def extract(self, reviews: Sequence[Review], highest_rating: float) -> list[Extraction]:
        """Return an extraction for each review, computed together; `highest_rating` is the scale's."""


def engine_hash(engine: Engine) -> str:
    """Return what tells an engine from all others."""
    files = sorted((name, record.sha256) for name, record in engine.manifest.files.items())
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]
