"""Extraction by judging: a review is cut into clauses, and the student says of each whether it is good."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.profiles.extraction import MAX_CHARACTERS, MAX_POINTS, Extraction, engine_hash
from exp3rt_trt.profiles.points import Preferences, content_words
from exp3rt_trt.profiles.prompts import CONTENT_FREE, JUDGE, VERDICTS, VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exp3rt_trt.generation import Generator
    from exp3rt_trt.profiles.reviews import Review

_ENDS = re.compile(
    r"(?<=[.!?])\s+|(?<=[a-z][.!?])(?=[A-Z])|[\n;]+|\.{2,}|\s+-+\s+|,?\s+(?:but|however|although)\s+"
)
_SHORTEST, _LONGEST = 2, 25  # words of a clause
_RATING_WEIGHT = 0.5  # log odds that the best rating adds, and the worst one takes
_LEAST = 1.0  # log odds from which a clause is a point


class ClauseJudge:
    """Takes a review's own clauses as points, by what the student says of each.

    Nothing is written, so nothing is invented and every answer can be read; a base student can do it. Of the
    two verdicts the labels' probabilities are read, relative to those behind texts that say nothing (Zhao et
    al., "Calibrate Before Use", ICML 2021), and the review's rating counts as one more witness.

    Args:
        generator: of the student.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._usual = _log_odds(generator.choose(JUDGE, CONTENT_FREE, VERDICTS)).mean()
        self.version = f"clauses-{VERSION}-{engine_hash(generator.engine)}"

    def extract(self, reviews: Sequence[Review], highest_rating: float) -> list[Extraction]:
        """Return an extraction for each review; see `Extractor`."""
        clauses = [split(review.text[:MAX_CHARACTERS]) for review in reviews]
        verdicts = self._generator.choose(JUDGE, list(itertools.chain(*clauses)), VERDICTS)
        odds = iter(np.nan_to_num(_log_odds(verdicts) - self._usual))  # without a verdict a clause is neither
        return [
            Extraction(_points(own, [next(odds) for _ in own], _witness(review, highest_rating)))
            for review, own in zip(reviews, clauses, strict=True)
        ]


def split(text: str) -> list[str]:
    """Cut a text into clauses of some words each; longer and shorter ones are left out.

    Example:
        >>> split("It is very bright, but the clip broke after a week. Nice!")
        ['It is very bright', 'the clip broke after a week']
    """
    pieces = (piece.strip(" \t.,;:!-*\"'()") for piece in _ENDS.split(text) if piece)
    kept = (piece for piece in pieces if _SHORTEST <= len(piece.split()) <= _LONGEST)
    return [piece for piece in dict.fromkeys(kept) if content_words(piece)]


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:  # [num_texts, 2] -> [num_texts]
    odds: NDArray[np.float64] = np.log(probabilities[:, 1]) - np.log(probabilities[:, 0])
    return odds


def _witness(review: Review, highest_rating: float) -> float:
    """From -1 for the worst rating to 1 for the best."""
    return 0.0 if review.rating is None else 2 * (review.rating - 1) / (highest_rating - 1) - 1


def _points(clauses: Sequence[str], odds: Sequence[float], witness: float) -> Preferences:
    sure = sorted(zip((each + _RATING_WEIGHT * witness for each in odds), clauses, strict=True), reverse=True)
    likes = [clause for value, clause in sure if value >= _LEAST]
    dislikes = [clause for value, clause in reversed(sure) if value <= -_LEAST]
    return Preferences(tuple(likes[:MAX_POINTS]), tuple(dislikes[:MAX_POINTS]))
