"""Synthetic users and prompts of a known size: benchmarks need no data."""

from __future__ import annotations

import random
from typing import Any

TEXT = """the a of and to in that is for with slow quiet loud long old new film story drama comedy mystery
music light family city river winter summer honest gentle sharp bright thin heavy scene actor ending"""
WORDS = TEXT.split()  # each is about one token


def words(count: int, seed: int | str) -> str:
    """Return that many words; the same for the same seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=count))  # noqa: S311  (no secrets here)


def make_user(number: int, seed: int, profile_words: int = 120) -> dict[str, str]:
    """Return a user for `Reranker.rank`; another one for every number and seed."""
    return {"user_id": f"user-{number}", "profile": words(profile_words, f"user {seed} {number}")}


def make_candidates(count: int, seed: int, description_words: int = 60) -> list[dict[str, str]]:
    """Return candidates for `Reranker.rank`."""
    return [
        {
            "item_id": f"item-{i}",
            "title": words(3, f"title {seed} {i}"),
            "description": words(description_words, f"item {seed} {i}"),
        }
        for i in range(count)
    ]


def make_prompts(prefix_words: int, suffix_words: int, candidates: int, seed: int) -> dict[str, Any]:
    """Return a user of a workload of raw prompts, as `exp3rt-trt bench` reads them."""
    items = [
        {"item_id": str(i), "suffix": " " + words(suffix_words, f"suffix {seed} {i}") + "\n"}
        for i in range(candidates)
    ]
    return {"user_id": str(seed), "prefix": words(prefix_words, f"prefix {seed}"), "candidates": items}
