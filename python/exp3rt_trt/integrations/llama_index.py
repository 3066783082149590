"""LlamaIndex: a node postprocessor that reranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.integrations.texts import in_order, remarks, text_items
from exp3rt_trt.prompts import RankingMode  # noqa: TC001  (pydantic reads the annotations)
from exp3rt_trt.reranker import Reranker  # noqa: TC001

if TYPE_CHECKING:
    from llama_index.core.schema import QueryBundle

    from exp3rt_trt.inputs import Item
    from exp3rt_trt.results import RankedResults


class RerankerPostprocessor(BaseNodePostprocessor):  # type: ignore[misc]  # untyped without the extra
    """Orders nodes by the rating that a user would give them.

    The query is the user's profile; a node's content without metadata is the description of an item, and
    `title` in its metadata the title. The nodes that come back are copies: `score` is the expected rating, or
    None with the reason under "error" in the metadata for those that cannot be rated, which stand last; in
    mode "reason" the metadata also have "reasoning".

    Args:
        reranker: stays the caller's to close.
        top_n: most nodes that come back; None for all.
        mode: see `Reranker.rank`.

    Example:
        >>> postprocessor = RerankerPostprocessor(reranker=reranker, top_n=5)  # doctest: +SKIP
        >>> postprocessor.postprocess_nodes(nodes, query_str="Likes slow films about work.")
    """

    reranker: Reranker
    top_n: int | None = None
    mode: RankingMode = "score"

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex knows it."""
        return "RerankerPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        ranked = self.reranker.rank(_profile(query_bundle), _items(nodes), top_k=self.top_n, mode=self.mode)
        return self._ordered(nodes, ranked)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        profile, items = _profile(query_bundle), _items(nodes)
        return self._ordered(
            nodes, await self.reranker.arank(profile, items, top_k=self.top_n, mode=self.mode)
        )

    def _ordered(self, nodes: list[NodeWithScore], ranked: RankedResults) -> list[NodeWithScore]:
        ordered = []
        for place, item in in_order(ranked, self.top_n):
            node = nodes[place].node.model_copy()
            node.metadata = {**node.metadata, **remarks(item)}
            ordered.append(NodeWithScore(node=node, score=item.expected_rating))
        return ordered


def _profile(query: QueryBundle | None) -> str:
    if query is None:
        raise InvalidInputError("query_bundle or query_str is needed: it is the user's profile")
    return str(query.query_str)


def _items(nodes: list[NodeWithScore]) -> list[Item]:
    return text_items((each.node.get_content(MetadataMode.NONE), each.node.metadata) for each in nodes)
