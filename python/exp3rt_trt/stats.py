"""Counters of a Reranker."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exp3rt_trt.executors import Counters


@dataclass(frozen=True)
class RerankerStats:
    """What a Reranker has done since it was made; blocks as of now.

    Args:
        prompt_tokens_computed: prompt tokens that went through the model.
        prompt_tokens_reused: prompt tokens that candidates found computed already.
        generated_tokens: reasoning tokens.
        draft_tokens: guesses of reasoning tokens that were computed along with the ones before them.
        draft_tokens_accepted: those that were right.
        items_computed: item segments of a segmented student that went through the model.
        items_in_memory: those that candidates found computed, or being computed.
        items_stored: those that came from a catalogue.
        candidates_done: candidates that were finished, with or without a rating.
        groups_done: users (or raw prefixes) that were finished.
        steps: batches that went through the model.
        blocks_total: blocks of the KV cache; always free + cached + in use.
        blocks_free: never written, or given back.
        blocks_cached: hold a prefix that nobody uses at the moment.
        blocks_in_use: belong to candidates and prefixes at work.
        block_size: tokens per block.
        queue_s: seconds that groups waited, summed.
        compute_s: seconds spent in batches.
        attention_s: of them in attention, where queries meet keys and values; 0 where it is not told.
    """

    prompt_tokens_computed: int
    prompt_tokens_reused: int
    generated_tokens: int
    draft_tokens: int
    draft_tokens_accepted: int
    items_computed: int
    items_in_memory: int
    items_stored: int
    candidates_done: int
    groups_done: int
    steps: int
    blocks_total: int
    blocks_free: int
    blocks_cached: int
    blocks_in_use: int
    block_size: int
    queue_s: float
    compute_s: float
    attention_s: float

    @classmethod
    def of(cls, stats: Counters) -> RerankerStats:
        """Copy the executor's counters."""
        return cls(**{f.name: getattr(stats, f.name) for f in fields(cls)})
