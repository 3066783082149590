"""The job: reviews that the store does not know yet go through the student, batch by batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.profiles.points import Preferences, grounded, parse, parse_side, without_contradictions
from exp3rt_trt.profiles.prompts import EXTRACT, RETRY, VERSION, question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from exp3rt_trt.engines.engine import Engine
    from exp3rt_trt.generation import GeneratedText, Generator
    from exp3rt_trt.profiles.reviews import Review
    from exp3rt_trt.profiles.store import ProfileStore

_BATCH = 32  # reviews that are kept at once: what a kill may lose
_MAX_POINTS = 5
_MAX_CHARACTERS = 3000  # of a review


@dataclass
class Counts:
    """What became of the reviews of a job.

    Args:
        known: had preferences in the store already.
        extracted: have them now.
        retried: of those asked, how many had to be asked for the second heading by itself.
        unparsed: have none, because neither answer could be read.
        empty: of those extracted, how many have no point that their review says.
        ungrounded: points that were dropped because the review does not say them.
    """

    known: int = 0
    extracted: int = 0
    retried: int = 0
    unparsed: int = 0
    empty: int = 0
    ungrounded: int = 0


class ProfileBuilder:
    """Extracts preferences from reviews into a store.

    Args:
        generator: of the student.
        store: keeps the preferences; a review that it knows is not extracted again.
        highest_rating: of the reviews' scale.

    Example:
        >>> builder = ProfileBuilder(reranker.generator(), store)  # doctest: +SKIP
        ... counts = builder.add(read_reviews(Path("reviews.jsonl")).reviews)
        ... store.user_profile("someone")
    """

    def __init__(self, generator: Generator, store: ProfileStore, highest_rating: float = 5) -> None:
        self._generator = generator
        self._store = store
        self._highest = highest_rating
        self.version = f"{VERSION}-{_engine_hash(generator.engine)}"

    def add(self, reviews: Sequence[Review], progress: Callable[[int, int], None] | None = None) -> Counts:
        """Extract the preferences of reviews that the store does not have.

        Args:
            reviews: those without text count for average ratings only.
            progress: called after each batch with how many are done, and how many there are.

        Returns:
            What became of them.

        Raises:
            EngineError: if the executor failed; what was kept before stays.
        """
        self._store.add_reviews(reviews, self.version)
        written = [review for review in reviews if review.text]
        todo = self._store.missing(written, self.version)
        counts = Counts(known=len(written) - len(todo))
        for first in range(0, len(todo), _BATCH):
            batch = todo[first : first + _BATCH]
            self._store.add_extractions(list(self._extract(batch, counts)), self.version)
            if progress is not None:
                progress(first + len(batch), len(todo))
        return counts

    def _extract(self, batch: Sequence[Review], counts: Counts) -> Iterator[tuple[Review, str, Preferences]]:
        texts = [question(r.text[:_MAX_CHARACTERS]) for r in batch]
        answers = list(self._generator.generate(EXTRACT, texts))
        parsed = [parse(answer.text, cut=answer.status == "cut") for answer in answers]
        again = [number for number, found in enumerate(parsed) if found is None]
        retries = self._generator.generate(RETRY, [texts[number] for number in again])
        for number, retry in zip(again, retries, strict=True):
            parsed[number] = _joined(answers[number], retry)
        counts.retried += len(again)
        for review, found in zip(batch, parsed, strict=True):
            if found is None:
                counts.unparsed += 1
                yield review, "unparsed", Preferences()
                continue
            counts.extracted += 1
            kept = Preferences(grounded(found.likes, review.text), grounded(found.dislikes, review.text))
            points, left = {*found.likes, *found.dislikes}, {*kept.likes, *kept.dislikes}
            counts.ungrounded += len(points - left)
            kept = without_contradictions(kept, review.rating, self._highest)
            counts.empty += not (kept.likes or kept.dislikes)
            yield review, "ok", Preferences(kept.likes[:_MAX_POINTS], kept.dislikes[:_MAX_POINTS])


def _joined(answer: GeneratedText, retry: GeneratedText) -> Preferences | None:
    """The likes of the first answer, and the dislikes that were asked for by themselves."""
    if answer.error is not None or retry.error is not None:
        return None
    likes = parse_side(answer.text, "Like", cut=answer.status == "cut")
    dislikes = parse_side(retry.text, "Dislike", cut=retry.status == "cut")
    return Preferences(likes, dislikes)


def _engine_hash(engine: Engine) -> str:
    files = sorted((name, record.sha256) for name, record in engine.manifest.files.items())
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]
