"""Extraction by writing: the student lists likes and dislikes, as the EXP3RT authors have it do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exp3rt_trt.profiles.extraction import MAX_CHARACTERS, MAX_POINTS, Extraction, engine_hash
from exp3rt_trt.profiles.points import Preferences, grounded, parse, parse_side, without_contradictions
from exp3rt_trt.profiles.prompts import EXTRACT, RETRY, VERSION, question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.generation import GeneratedText, Generator
    from exp3rt_trt.profiles.reviews import Review


class ListWriter:
    """Has the student write a [Like] and a [Dislike] list; for students that were taught to.

    An answer that does not come to the second heading is asked for that side alone, once. Points that the
    review does not say are dropped.

    Args:
        generator: of the student.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.version = f"lists-{VERSION}-{engine_hash(generator.engine)}"

    def extract(self, reviews: Sequence[Review], highest_rating: float) -> list[Extraction]:
        """Return an extraction for each review; see `Extractor`."""
        texts = [question(review.text[:MAX_CHARACTERS]) for review in reviews]
        answers = list(self._generator.generate(EXTRACT, texts))
        parsed = [parse(answer.text, cut=answer.status == "cut") for answer in answers]
        again = [number for number, found in enumerate(parsed) if found is None]
        retries = self._generator.generate(RETRY, [texts[number] for number in again])
        for number, retry in zip(again, retries, strict=True):
            parsed[number] = _joined(answers[number], retry)
        return [
            _extraction(review, found, highest_rating, retried=number in set(again))
            for number, (review, found) in enumerate(zip(reviews, parsed, strict=True))
        ]


def _extraction(
    review: Review, found: Preferences | None, highest_rating: float, *, retried: bool
) -> Extraction:
    if found is None:
        return Extraction(status="unparsed", retried=retried)
    kept = Preferences(grounded(found.likes, review.text), grounded(found.dislikes, review.text))
    dropped = len({*found.likes, *found.dislikes} - {*kept.likes, *kept.dislikes})
    kept = without_contradictions(kept, review.rating, highest_rating)
    kept = Preferences(kept.likes[:MAX_POINTS], kept.dislikes[:MAX_POINTS])
    return Extraction(kept, retried=retried, ungrounded=dropped)


def _joined(answer: GeneratedText, retry: GeneratedText) -> Preferences | None:
    """The likes of the first answer, and the dislikes that were asked for by themselves."""
    if answer.error is not None or retry.error is not None:
        return None
    likes = parse_side(answer.text, "Like", cut=answer.status == "cut")
    dislikes = parse_side(retry.text, "Dislike", cut=retry.status == "cut")
    return Preferences(likes, dislikes)
