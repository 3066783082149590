"""A user, candidates and a small Reranker, for all tests that rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exp3rt_trt import Item, RankedResults, Reranker, UserProfile, _core

if TYPE_CHECKING:
    from pathlib import Path

# One thread, because a second one waits long for its turn where tests of other projects run beside these.
OPTIONS: dict[str, Any] = {"kv_cache_mib": 64, "threads": 1, "max_reasoning_tokens": 12}
# How far a rating may depend on what is computed beside it: nothing; AMX has not been measured.
TOLERANCE = 1e-5 if _core.cpu_isa() == "amx" else 0.0
USER = UserProfile("Likes slow films.", user_id="u", average_rating=3.5)
WORDS = ["abc", "boats", "x", "q", "77"]
ITEMS = [Item(f"i{n}", f"Film {n}", f"It is about {word}.") for n, word in enumerate(WORDS)]


def open_(path: Path, **options: Any) -> Reranker:
    return Reranker.from_pretrained(path, **{**OPTIONS, **options})


def ratings(results: RankedResults) -> dict[Any, float]:
    return {r.item_id: r.expected_rating for r in results if r.expected_rating is not None}


def reasons(results: RankedResults) -> dict[Any, str | None]:
    return {r.item_id: r.reasoning for r in results}
