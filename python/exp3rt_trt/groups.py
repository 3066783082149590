"""From a user and candidates, or from raw prompts, to groups of token ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exp3rt_trt._core import RerankGroup
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.inputs import as_candidates, as_user
from exp3rt_trt.jobs import Job, Limits, Request, Slot, make_slots
from exp3rt_trt.prompts import Chat, Mode, Piece, PromptTemplate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.rating import RatingScale
    from exp3rt_trt.tokenization import PromptTokenizer, TokenIds


@dataclass(frozen=True)
class _Ending:
    """What follows an item in one mode: tokens, and the labels' tokens behind the answer."""

    opening: TokenIds
    answer: TokenIds
    labels: tuple[int, ...]
    max_reasoning_tokens: int


class GroupBuilder:
    """Lays users and candidates out as groups, by one template on one scale.

    Args:
        tokenizer: of the engine.
        template: where the texts go.
        scale: what the student answers with.
        chat: the engine's chat format.
        limits: of the engine and its KV cache.
        end_tokens: those that end a turn.
        max_reasoning_tokens: most tokens of a reasoning.

    Raises:
        EngineError: if a label is not exactly one token behind the answer.
    """

    def __init__(
        self,
        tokenizer: PromptTokenizer,
        *,
        template: PromptTemplate,
        scale: RatingScale,
        chat: Chat,
        limits: Limits,
        end_tokens: Sequence[int],
        max_reasoning_tokens: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._scale = scale
        self._limits = limits
        self._end_tokens = end_tokens
        start = [] if chat.before_system else tokenizer.start_tokens()
        instructions = template.instructions_segment(scale, chat)
        self._instructions = start + tokenizer.encode_segment(instructions, after=start)
        self._endings: dict[Mode, _Ending] = {
            "score": self._ending(chat, "score", 0),
            "reason": self._ending(chat, "reason", max_reasoning_tokens),
        }

    def build(
        self, user: object, candidates: object, request: Request, mode: Mode, *, staged: bool = False
    ) -> Job:
        """Check and tokenize a user and candidates.

        Args:
            user: see `inputs.as_user`.
            candidates: an iterable, see `inputs.as_item`.
            request: how to rank.
            mode: how to rate; "score" or "reason".
            staged: whether the candidates are rated in both modes, so that what the first computed of them is
                kept for the second.

        Returns:
            A job with a slot for every candidate; faulty ones have a status and an error.

        Raises:
            InvalidInputError: for a fault of the user or of the list as a whole.
        """
        profile = as_user(user)
        slots = make_slots(as_candidates(candidates))
        segment = self._template.user_segment(profile, self._scale)
        prefix = [self._instructions, self._tokenizer.encode_segment(segment, after=self._instructions)]
        ending = self._endings[mode]
        suffixes = []
        for number, suffix in self._suffixes(slots, prefix[1], ending):
            excess = self._limits.excess(prefix, len(suffix), ending.max_reasoning_tokens, len(ending.answer))
            if excess is None:
                suffixes.append(suffix)
            else:
                words = f"candidates[{number}] (item_id {slots[number].item_id!r}): {excess}"
                slots[number] = replace(slots[number], status="too_long", error=words)
        group = RerankGroup(
            prefix=prefix,
            suffixes=suffixes,
            label_tokens=ending.labels,
            answer_tokens=ending.answer,
            max_reasoning_tokens=ending.max_reasoning_tokens,
            end_tokens=self._end_tokens,
            timeout_s=request.timeout_s or 0.0,
            reuse_suffixes=staged,
            cache_salt=request.cache_salt,
        )
        return Job(
            profile.user_id, slots, group if suffixes else None, mode, None if staged else request.top_k
        )

    def _suffixes(
        self, slots: Sequence[Slot], after: TokenIds, ending: _Ending
    ) -> list[tuple[int, TokenIds]]:
        numbers, texts = [], []
        for number, slot in enumerate(slots):
            if slot.item is not None and slot.status == "ok":
                (piece,) = self._template.item_segment(slot.item, self._scale)
                numbers.append(number)
                texts.append(piece.text)
        encoded = self._tokenizer.encode_texts(texts, after=after)
        return [(number, tokens + ending.opening) for number, tokens in zip(numbers, encoded, strict=True)]

    def _ending(self, chat: Chat, mode: Mode, max_reasoning_tokens: int) -> _Ending:
        encode = self._tokenizer.encode_segment
        item = encode((Piece("x"),))  # any: what follows depends only on whether a special token precedes it
        opening = encode(self._template.opening_segment(chat, mode), after=item)
        text = self._template.answer(mode)
        answer = encode((Piece(text),), after=opening or item)
        return _Ending(
            opening,
            answer,
            self._tokenizer.label_tokens(self._scale, text, opening or item),
            max_reasoning_tokens,
        )


@dataclass(frozen=True)
class RawPrompts:
    """Raw texts, below templates: every prompt is prefix + suffix + opening, with special tokens recognised.

    Args:
        prefix: the text that all share.
        suffixes: one text per candidate.
        opening: what follows each of them.
        max_reasoning_tokens: 0 reads the label right there; else that many tokens are written first.
        answer: the forced text after the reasoning; unused without one.
    """

    prefix: str
    suffixes: Sequence[str]
    opening: str = ""
    max_reasoning_tokens: int = 0
    answer: str = ""


class RawGroupBuilder:
    """Lays raw prompts out as groups; arguments as for GroupBuilder."""

    def __init__(self, tokenizer: PromptTokenizer, *, scale: RatingScale, limits: Limits) -> None:
        self._tokenizer = tokenizer
        self._scale = scale
        self._limits = limits

    def build(self, prompts: RawPrompts) -> list[tuple[RerankGroup, list[int]]]:
        """Tokenize raw prompts.

        Returns:
            Groups, each with the indices of its suffixes. Usually one; a suffix whose first characters melt
            into a token with the prefix's last ones has another prefix, hence another group.

        Raises:
            InvalidInputError: naming the suffix that is too long and the limit.
            EngineError: if a label is not exactly one token.
        """
        rests = [suffix + prompts.opening for suffix in prompts.suffixes]
        if not rests:
            return []
        cut = self._tokenizer.encode_joint(prompts.prefix, rests)
        answer, labels = self._answer(prompts, prompts.prefix + rests[0])
        by_prefix: dict[tuple[int, ...], list[int]] = {}
        for number, (prefix, suffix) in enumerate(cut):
            by_prefix.setdefault(tuple(prefix), []).append(number)
            excess = self._limits.excess([prefix], len(suffix), prompts.max_reasoning_tokens, len(answer))
            if excess is not None:
                raise InvalidInputError(f"suffixes[{number}]: {excess}")
        return [
            (
                RerankGroup(
                    prefix=[prefix],
                    suffixes=[cut[number].suffix for number in numbers],
                    label_tokens=labels,
                    answer_tokens=answer,
                    max_reasoning_tokens=prompts.max_reasoning_tokens,
                ),
                numbers,
            )
            for prefix, numbers in by_prefix.items()
        ]

    def _answer(self, prompts: RawPrompts, first: str) -> tuple[TokenIds, tuple[int, ...]]:
        if prompts.max_reasoning_tokens == 0:
            return [], self._tokenizer.raw_label_tokens(self._scale, first)
        after = self._tokenizer.encode_segment((Piece("x"),))
        answer = self._tokenizer.encode_segment((Piece(prompts.answer),), after=after)
        return answer, self._tokenizer.label_tokens(self._scale, prompts.answer, after)
