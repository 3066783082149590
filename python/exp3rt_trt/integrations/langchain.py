"""LangChain: a document compressor that reranks."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003  (pydantic reads the annotations)
from typing import Any

from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict

from exp3rt_trt.integrations.texts import in_order, remarks, text_items
from exp3rt_trt.prompts import RankingMode  # noqa: TC001
from exp3rt_trt.reranker import Reranker  # noqa: TC001
from exp3rt_trt.results import RankedResults  # noqa: TC001


class RerankerCompressor(BaseDocumentCompressor):  # type: ignore[misc]  # untyped without the extra
    """Orders retrieved documents by the rating that a user would give them.

    The query is the user's profile; a document's text is the description of an item, and `title` in its
    metadata the title. The documents that come back are copies whose metadata has "expected_rating", or
    "error" for those that cannot be rated, which stand last; in mode "reason" also "reasoning".

    Args:
        reranker: stays the caller's to close.
        top_k: most documents that come back; None for all.
        mode: see `Reranker.rank`.

    Example:
        >>> compressor = RerankerCompressor(reranker=reranker, top_k=5)  # doctest: +SKIP
        >>> compressor.compress_documents(documents, "Likes slow films about work.")
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reranker: Reranker
    top_k: int | None = None
    mode: RankingMode = "score"

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Any = None,  # noqa: ANN401, ARG002  (the interface's; a compressor calls none by itself)
    ) -> list[Document]:
        """Return the documents in order of expected rating.

        Raises:
            InvalidInputError: if the query is empty.
            EngineError: if the executor failed.
        """
        items = text_items((each.page_content, each.metadata) for each in documents)
        return self._ordered(documents, self.reranker.rank(query, items, top_k=self.top_k, mode=self.mode))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Any = None,  # noqa: ANN401, ARG002
    ) -> list[Document]:
        """As `compress_documents`, without blocking; cancelling the task stops the computation."""
        items = text_items((each.page_content, each.metadata) for each in documents)
        ranked = await self.reranker.arank(query, items, top_k=self.top_k, mode=self.mode)
        return self._ordered(documents, ranked)

    def _ordered(self, documents: Sequence[Document], ranked: RankedResults) -> list[Document]:
        ordered = []
        for place, item in in_order(ranked, self.top_k):
            rating = {} if item.expected_rating is None else {"expected_rating": item.expected_rating}
            metadata = {**documents[place].metadata, **rating, **remarks(item)}
            ordered.append(documents[place].model_copy(update={"metadata": metadata}))
        return ordered
