"""The job: reviews that the store does not know yet go through the student, batch by batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exp3rt_trt.profiles.extraction import Extraction, Extractor
    from exp3rt_trt.profiles.reviews import Review
    from exp3rt_trt.profiles.store import ProfileStore

_BATCH = 32  # reviews that are kept at once: what a kill may lose


@dataclass
class Counts:
    """What became of the reviews of a job.

    Args:
        known: had preferences in the store already.
        extracted: have them now.
        retried: of those asked, how many had to be asked twice.
        unparsed: have none, because neither answer could be read.
        empty: of those extracted, how many have no point.
        ungrounded: points that were dropped because the review does not say them.
    """

    known: int = 0
    extracted: int = 0
    retried: int = 0
    unparsed: int = 0
    empty: int = 0
    ungrounded: int = 0

    def add(self, extraction: Extraction) -> None:
        """Count one more."""
        self.extracted += extraction.status == "ok"
        self.unparsed += extraction.status == "unparsed"
        self.retried += extraction.retried
        self.ungrounded += extraction.ungrounded
        self.empty += extraction.status == "ok" and not (extraction.found.likes or extraction.found.dislikes)


class ProfileBuilder:
    """Extracts preferences from reviews into a store.

    Args:
        extractor: the way: `ClauseJudge` or `ListWriter`.
        store: keeps the preferences; a review that it knows is not extracted again.
        highest_rating: of the reviews' scale, which begins at 1.

    Raises:
        InvalidInputError: if highest_rating is not above 1.

    Example:
        >>> builder = ProfileBuilder(ClauseJudge(reranker.generator()), store)  # doctest: +SKIP
        ... counts = builder.add(read_reviews(Path("reviews.jsonl")).reviews)
        ... store.user_profile("someone")
    """

    def __init__(self, extractor: Extractor, store: ProfileStore, highest_rating: float = 5) -> None:
        self._extractor = extractor
        self._store = store
        if not 1 < highest_rating < math.inf:
            raise InvalidInputError(f"highest_rating must be above 1, not {highest_rating}")
        self._highest = highest_rating

    def add(self, reviews: Sequence[Review], progress: Callable[[int, int], None] | None = None) -> Counts:
        """Extract the preferences of reviews that the store does not have.

        Args:
            reviews: those without text count for average ratings only.
            progress: called after each batch with how many are done, and how many there are.

        Returns:
            What became of them.

        Raises:
            InvalidInputError: naming the review whose rating is outside the scale.
            EngineError: if the executor failed; what was kept before stays.
        """
        for number, review in enumerate(reviews):
            if review.rating is not None and not 1 <= review.rating <= self._highest:
                words = f"must be from 1 to {self._highest:g}, not {review.rating:g}"
                raise InvalidInputError(f"reviews[{number}].rating {words}")
        version = self._extractor.version
        if self._highest != 5:  # a rating is a witness of what is liked, so its scale counts
            version += f"-of-{self._highest:g}"
        self._store.add_reviews(reviews, version)
        written = [review for review in reviews if review.text]
        todo = self._store.missing(written, version)
        counts = Counts(known=len(written) - len(todo))
        for first in range(0, len(todo), _BATCH):
            batch = todo[first : first + _BATCH]
            extractions = self._extractor.extract(batch, self._highest)
            rows = [(review, e.status, e.found) for review, e in zip(batch, extractions, strict=True)]
            self._store.add_extractions(rows, version)
            for extraction in extractions:
                counts.add(extraction)
            if progress is not None:
                progress(first + len(batch), len(todo))
        return counts
