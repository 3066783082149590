"""What a group must hold before an executor in Python takes it; csrc does the same for those in C++."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt._core import RerankGroup


def check_group(group: RerankGroup, vocab_size: int, max_context: int) -> None:
    """Refuse a group that can never run.

    Args:
        group: to be checked.
        vocab_size: of the model.
        max_context: most tokens of a candidate with all that belongs to it.

    Raises:
        ValueError: naming the field and the limit.
    """
    reasons = group.max_reasoning_tokens > 0
    if group.items:
        raise _refusal("items: segments of their own need the CPU's executor")
    if not group.suffixes:
        raise _refusal("suffixes is empty")
    if group.max_reasoning_tokens < 0:
        raise _refusal("max_reasoning_tokens is negative")
    if not group.label_tokens and (group.answer_tokens or not reasons):
        raise _refusal("label_tokens is empty: that needs max_reasoning_tokens and no answer_tokens")
    if group.label_tokens and reasons and not group.answer_tokens:
        raise _refusal("answer_tokens is empty, and reasoning needs an answer")
    _check_tokens("answer_tokens", group.answer_tokens, vocab_size)
    _check_tokens("label_tokens", group.label_tokens, vocab_size)
    for segment in group.prefix:
        _check_tokens("prefix", segment, vocab_size)
    common = sum(map(len, group.prefix)) + group.max_reasoning_tokens + len(group.answer_tokens)
    for number, suffix in enumerate(group.suffixes):
        if not suffix:
            raise _refusal(f"suffix {number} is empty")
        _check_tokens("suffixes", suffix, vocab_size)
        if common + len(suffix) > max_context:
            raise _refusal(
                f"suffix {number} makes {common + len(suffix)} tokens with its prefix, reasoning and answer; "
                f"the limit is {max_context}"
            )


def _check_tokens(where: str, tokens: Sequence[int], vocab_size: int) -> None:
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise _refusal(f"token {token} in {where} is outside the vocabulary of {vocab_size}")


def _refusal(words: str) -> ValueError:
    return ValueError(f"rerank group: {words}")
