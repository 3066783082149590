"""What the Reranker says of a user and candidates, in the names that the request has for them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from exp3rt_trt.serve.faults import Fault

if TYPE_CHECKING:
    from exp3rt_trt.errors import InvalidInputError
    from exp3rt_trt.results import RankedItem
    from exp3rt_trt.serve.ranking import Work

_CANDIDATE = re.compile(
    r"\Acandidates\[(\d+)\](\.item_id)?|(?<= is that of )candidates\[(\d+)\](?= already\Z)"
)
_TEXT = re.compile(r"\A(?:candidates\[\d+\](?: \(item_id '\d+'\))?|item_id '\d+'): ")
_TEXTS_FIELD = re.compile(r"\Acandidates\[\d+\]\.description(?= )")
_EMPTY = "title, description and profile are all empty"


def fault_of(error: InvalidInputError, work: Work) -> Fault:
    """Return the answer to what is wrong with a request as a whole."""
    field, _, rest = str(error).partition(" ")
    if not field.startswith("user."):
        return Fault(422, "invalid", str(error))
    field = work.user_field if field == "user.profile" else field
    return Fault(422, "invalid", f"{field} {rest}", field)


def renamed(item: RankedItem, work: Work) -> RankedItem:
    """Return a candidate whose error has the request's name of it; of a plain text, `rated` tells it."""
    if item.error is None:
        return item

    def name(found: re.Match[str]) -> str:
        below = "" if work.field == "item_ids" else found[2] or ""
        return work.place(int(found[1] or found[3])) + below

    if isinstance(item.item, str):
        words = _TEXTS_FIELD.sub("the text", _TEXT.sub("", item.error))
        return replace(item, error="the text is empty" if words == _EMPTY else words)
    return replace(item, error=_CANDIDATE.sub(name, item.error))
