"""Haystack: a ranker component."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from haystack import Document, component, default_from_dict, default_to_dict

from exp3rt_trt.integrations.texts import in_order, remarks, text_items
from exp3rt_trt.reranker import Reranker

if TYPE_CHECKING:
    from exp3rt_trt.prompts import RankingMode
    from exp3rt_trt.results import RankedResults


@component
class RerankerRanker:
    """Orders documents by the rating that a user would give them.

    The query is the user's profile; a document's content is the description of an item, and `title` in its
    meta the title. The documents that come back are copies: `score` is the expected rating, or None with the
    reason under "error" in the meta for those that cannot be rated, which stand last; in mode "reason" the
    meta also has "reasoning".

    Args:
        engine: what `Reranker.from_pretrained` takes; it is opened when the pipeline warms up.
        top_k: most documents that come back; None for all.
        mode: see `Reranker.rank`.
        options: of `Reranker.from_pretrained`; what is not JSON keeps the pipeline from being written down.

    A pipeline that was written down is read with `allowed_modules=["exp3rt_trt.integrations.haystack"]`:
    Haystack makes objects of no module that it was not told to trust.

    Example:
        >>> pipeline.add_component("ranker", RerankerRanker("engines/student", top_k=5))  # doctest: +SKIP
    """

    def __init__(
        self,
        engine: str,
        *,
        top_k: int | None = None,
        mode: RankingMode = "score",
        options: dict[str, Any] | None = None,
    ) -> None:
        self.engine, self.top_k, self.mode, self.options = engine, top_k, mode, options or {}
        self._reranker: Reranker | None = None

    def warm_up(self) -> None:
        """Open the engine, once."""
        if self._reranker is None:
            self._reranker = Reranker.from_pretrained(self.engine, **self.options)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes it of again."""
        parts = {"engine": self.engine, "top_k": self.top_k, "mode": self.mode, "options": self.options}
        written: dict[str, Any] = default_to_dict(self, **parts)
        return written

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RerankerRanker:
        """Make it of what `to_dict` returned; the engine is not opened yet."""
        made: RerankerRanker = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """Return `documents` in order of expected rating; `top_k` stands before that of the component.

        Raises:
            InvalidInputError: if the query is empty.
            EngineError: if the engine cannot be opened, or failed.
        """
        self.warm_up()
        assert self._reranker is not None  # noqa: S101  (warm_up opens it)
        limit = self.top_k if top_k is None else top_k
        items = text_items((each.content, each.meta) for each in documents)
        ranked = self._reranker.rank(query, items, top_k=limit, mode=self.mode)
        return {"documents": _ordered(documents, ranked, limit)}


def _ordered(documents: list[Document], ranked: RankedResults, top_k: int | None) -> list[Document]:
    ordered = []
    for place, item in in_order(ranked, top_k):
        document = documents[place]
        ordered.append(replace(document, score=item.expected_rating, meta={**document.meta, **remarks(item)}))
    return ordered
