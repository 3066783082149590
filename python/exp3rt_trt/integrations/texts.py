"""What retrieval pipelines have in common: a query, and texts to put in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exp3rt_trt.inputs import Item

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from exp3rt_trt.results import RankedItem, RankedResults


def text_items(documents: Iterable[tuple[str | None, Mapping[str, Any]]]) -> list[Item]:
    """Make candidates of documents.

    Args:
        documents: text and metadata of each; a string under "title" is the candidate's title.

    Returns:
        Candidates whose ids are the places of the documents, whose own ids may be missing or repeat.
    """
    items = []
    for place, (text, metadata) in enumerate(documents):
        title = metadata.get("title")
        items.append(Item(place, title=title if isinstance(title, str) else None, description=text))
    return items


def in_order(ranked: RankedResults, top_k: int | None) -> list[tuple[int, RankedItem]]:
    """Return the place of each document and what became of it, best first, at most top_k.

    Documents that cannot be rated stand last, so top_k cuts them off first.
    """
    return [(int(item.item_id or 0), item) for item in ranked[:top_k]]


def remarks(item: RankedItem) -> dict[str, str]:
    """Return what is added to a document's metadata: the reasoning or the fault, if there is one."""
    told = {"reasoning": item.reasoning, "error": item.error}
    return {name: words for name, words in told.items() if words is not None}
