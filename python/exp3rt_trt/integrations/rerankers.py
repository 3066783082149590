"""AnswerDotAI's rerankers: a ranker beside its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rerankers.documents import Document
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults, Result

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.integrations.texts import in_order, text_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.prompts import Mode
    from exp3rt_trt.reranker import Reranker
    from exp3rt_trt.results import RankedItem


class RerankerRanker(BaseRanker):  # type: ignore[misc]  # untyped without the extra
    """Orders documents by the rating that a user would give them.

    The query is the user's profile; a document's text is the description of an item, and `title` in its
    metadata the title. Scores are expected ratings.

    Args:
        reranker: stays the caller's to close.
        mode: "score" or "reason".

    Example:
        >>> ranker = RerankerRanker(reranker)  # doctest: +SKIP
        >>> ranker.rank("Likes slow films about work.", ["A baker.", "A war."]).top_k(1)
    """

    def __init__(self, reranker: Reranker, mode: Mode = "score") -> None:
        self.reranker, self.mode = reranker, mode

    def score(self, query: str, doc: str) -> float:
        """Return the expected rating of one text."""
        return float(self.rank(query, [doc])[0].score)

    def rank(
        self,
        query: str,
        docs: str | Document | Sequence[str] | Sequence[Document],
        doc_ids: Sequence[str] | Sequence[int] | None = None,
    ) -> RankedResults:
        """Return the documents in order of expected rating.

        Raises:
            InvalidInputError: if the query is empty, the ids are not as many as the documents, or a document
                cannot be rated: a result of this package has no place for that.
            EngineError: if the executor failed.
        """
        documents = _documents(docs, doc_ids)
        items = text_items((each.text, each.metadata) for each in documents)
        ranked = in_order(self.reranker.rank(query, items, mode=self.mode), None)
        results = [Result(documents[place], _rating(place, item), item.rank) for place, item in ranked]
        return RankedResults(results, query, has_scores=True)


def _rating(place: int, item: RankedItem) -> float:
    if item.expected_rating is None:
        raise InvalidInputError(f"docs[{place}]: {item.error}")
    return item.expected_rating


def _documents(
    docs: str | Document | Sequence[str] | Sequence[Document], doc_ids: Sequence[str] | Sequence[int] | None
) -> list[Document]:
    given = [docs] if isinstance(docs, (str, Document)) else list(docs)
    if doc_ids is not None and len(doc_ids) != len(given):
        raise InvalidInputError(f"doc_ids: {len(doc_ids)} ids for {len(given)} docs")
    documents = []
    for place, doc in enumerate(given):
        known = doc if isinstance(doc, Document) else Document(doc, doc_id=place)
        doc_id = known.doc_id if doc_ids is None else doc_ids[place]
        documents.append(Document(known.text, place if doc_id is None else doc_id, known.metadata))
    return documents
