"""From a user and candidates, or from raw prompts, to groups of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from exp3rt_trt._core import RerankGroup
from exp3rt_trt.checks import check_whole
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.inputs import as_candidates, as_user
from exp3rt_trt.jobs import Job, Limits, Request, Slot, make_slots
from exp3rt_trt.prompts import Chat, Mode, Piece, PromptTemplate

if TYPE_CHECKING:
    from exp3rt_trt._core import ItemKv
    from exp3rt_trt.catalog import Catalog
    from exp3rt_trt.inputs import Item, UserProfile
    from exp3rt_trt.rating import RatingScale
    from exp3rt_trt.tokenization import PromptTokenizer, TokenIds


@dataclass(frozen=True)
class _Ending:
    """What follows an item in one mode: tokens, and the labels' tokens behind the answer."""

    closing: TokenIds  # the end of the user's turn, of a segmented student's item
    opening: TokenIds  # what the student goes on from
    answer: TokenIds  # forced behind a reasoning
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
        self.catalog: Catalog | None = None  # where items of a segmented student are looked up
        start = [] if chat.before_system else tokenizer.start_tokens()
        instructions = template.instructions_segment(scale, chat)
        self._instructions = start + tokenizer.encode_segment(instructions, after=start)
        # What follows a text depends only on whether a special token ends it.
        self._anything = tokenizer.encode_segment((Piece("x"),))
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
        self._check_average(profile)
        given = enumerate(make_slots(as_candidates(candidates)))
        slots = [self._with_text(slot, number) for number, slot in given]
        segment = self._template.user_segment(profile, self._scale)
        prefix = [self._instructions, self._tokenizer.encode_segment(segment, after=self._instructions)]
        ending = self._endings[mode]
        suffixes = []
        segmented = self._limits.layout.segmented
        items: list[TokenIds] = []
        for number, item in self._items(slots, ending):
            suffix = ending.opening if segmented else item + ending.opening
            excess = self._limits.excess(
                prefix, len(suffix), ending.max_reasoning_tokens, len(ending.answer), len(item)
            )
            if excess is None:
                suffixes.append(suffix)
                items += [item] if segmented else []
            else:
                slots[number] = _too_long(slots[number], number, excess)
        group = RerankGroup(
            prefix=prefix,
            suffixes=suffixes,
            **self._segments(items),
            stored=cast("list[ItemKv]", self._stored(items)),  # None: computed here
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

    def _check_average(self, user: UserProfile) -> None:
        lowest, highest = self._scale.values[0], self._scale.values[-1]
        if user.average_rating is not None and not lowest <= user.average_rating <= highest:
            raise InvalidInputError(
                f"user.average_rating must be from {lowest:g} to {highest:g}, the scale's values, "
                f"not {user.average_rating:g}; None if there is none"
            )

    def _with_text(self, slot: Slot, number: int) -> Slot:
        """Return the slot; invalid if the template has no place for any text that its item has."""
        if slot.item is None or slot.status != "ok" or self._template.tells_of(slot.item):
            return slot
        words = f"candidates[{number}]: the template's item has no place for any text that is given"
        return replace(slot, status="invalid", error=words)

    @property
    def instructions(self) -> TokenIds:
        """Token ids of the segment that is the same for all users and items."""
        return self._instructions

    def item_tokens(self, items: Sequence[Item]) -> list[TokenIds]:
        """Return the token ids of each item's segment, of a segmented student."""
        return self._encode(items, self._endings["score"])

    def item_excess(self, tokens: TokenIds) -> str | None:
        """Return in which way an item's segment is too long, or None if it fits."""
        return self._limits.excess([self._instructions], 0, 0, 0, len(tokens))

    def build_items(self, items: Sequence[TokenIds]) -> RerankGroup:
        """Lay out items of a segmented student, to be computed without any user.

        Args:
            items: token ids of their segments, none too long.
        """
        segments = self._segments(items)
        return RerankGroup(
            prefix=[self._instructions], suffixes=[], label_tokens=[], answer_tokens=[], **segments
        )

    def _segments(self, items: Sequence[TokenIds]) -> dict[str, Any]:
        """Return a group's fields for items that are segments of their own; none for a causal student."""
        layout = self._limits.layout
        if not layout.segmented:
            return {}
        return {
            "items": items,
            "item_position": layout.item_position,
            "suffix_position": layout.answer_position,
        }

    def _stored(self, items: Sequence[TokenIds]) -> list[ItemKv | None]:
        return [] if self.catalog is None else [self.catalog.find(item) for item in items]

    def _items(self, slots: Sequence[Slot], ending: _Ending) -> list[tuple[int, TokenIds]]:
        good = [
            (number, slot.item)
            for number, slot in enumerate(slots)
            if slot.item is not None and slot.status == "ok"
        ]
        encoded = self._encode([item for _, item in good], ending)
        return [(number, tokens) for (number, _), tokens in zip(good, encoded, strict=True)]

    def _encode(self, items: Sequence[Item], ending: _Ending) -> list[TokenIds]:
        segments = [self._template.item_segment(item, self._scale) for item in items]
        encoded = self._tokenizer.encode_texts([piece.text for (piece,) in segments], after=self._anything)
        return [tokens + ending.closing for tokens in encoded]

    def _ending(self, chat: Chat, mode: Mode, max_reasoning_tokens: int) -> _Ending:
        encode = self._tokenizer.encode_segment
        segmented = self._limits.layout.segmented
        segment = self._template.opening_segment(chat, mode)
        closing = encode(segment[:1], after=self._anything) if segmented else []
        opening = encode(segment[1:] if segmented else segment, after=closing or self._anything)
        before = opening or closing or self._anything
        text = self._template.answer(mode)
        answer = encode((Piece(text),), after=before)
        labels = self._tokenizer.label_tokens(self._scale, text, before)
        if segmented and not opening:  # the label is read right behind the item
            opening, answer = answer, []
        return _Ending(closing, opening, answer, labels, max_reasoning_tokens)


def _too_long(slot: Slot, number: int, excess: str) -> Slot:
    words = f"candidates[{number}] (item_id {slot.item_id!r}): {excess}"
    return replace(slot, status="too_long", error=words)


@dataclass(frozen=True)
class RawPrompts:
    """Raw texts, below templates: every prompt is prefix + suffix + opening, with special tokens recognised.

    Args:
        prefix: the text that all share.
        suffixes: one text per candidate.
        opening: what follows each of them.
        max_reasoning_tokens: 0 reads the label right there; else that many tokens are written first.
        answer: the forced text after the reasoning; unused without one. A student that writes it itself has
            ended its reasoning before it.
        instructions: how the prefix begins for every user; a segmented student's items see that much of it.
    """

    prefix: str
    suffixes: Sequence[str]
    opening: str = ""
    max_reasoning_tokens: int = 0
    answer: str = ""
    instructions: str = ""


def _check_raw(prompts: object) -> None:
    if not isinstance(prompts, RawPrompts):
        raise InvalidInputError(f"prompts must be RawPrompts, not {type(prompts).__name__}")
    for name in ("prefix", "opening", "answer", "instructions"):
        if not isinstance(getattr(prompts, name), str):
            raise InvalidInputError(f"{name} must be a string, not {type(getattr(prompts, name)).__name__}")
    if isinstance(prompts.suffixes, (str, bytes)) or not isinstance(prompts.suffixes, Sequence):
        raise InvalidInputError(f"suffixes must be a list of strings, not {type(prompts.suffixes).__name__}")
    for number, suffix in enumerate(prompts.suffixes):
        if not isinstance(suffix, str):
            raise InvalidInputError(f"suffixes[{number}] must be a string, not {type(suffix).__name__}")
    check_whole("max_reasoning_tokens", prompts.max_reasoning_tokens, 0)


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
        _check_raw(prompts)
        rests = [suffix + prompts.opening for suffix in prompts.suffixes]
        if not rests:
            return []
        if self._limits.layout.segmented:
            return [(self._segmented(prompts), list(range(len(rests))))]
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

    def _segmented(self, prompts: RawPrompts) -> RerankGroup:
        """Tokenize the segments one by one: instructions, user, items (the suffixes) and the opening."""
        if not prompts.instructions or not prompts.prefix.startswith(prompts.instructions):
            raise InvalidInputError(
                "instructions must be what the prefix begins with, for a segmented student: "
                "run_prompts([RawPrompts(prefix, suffixes, opening, instructions=...)])"
            )
        if not prompts.opening:
            raise InvalidInputError("opening is empty, and a segmented student reads the label behind it")
        texts = [prompts.instructions, prompts.prefix[len(prompts.instructions) :]]
        instructions, user, opening, *items = (
            self._tokenizer.encode_segment((Piece(text, control=True),))
            for text in (*texts, prompts.opening, *prompts.suffixes)
        )
        answer, labels = self._answer(prompts, prompts.prefix + prompts.suffixes[0] + prompts.opening)
        prefix, layout = [instructions, user], self._limits.layout
        for number, item in enumerate(items):
            reasoning = prompts.max_reasoning_tokens
            excess = self._limits.excess(prefix, len(opening), reasoning, len(answer), len(item))
            if excess is not None:
                raise InvalidInputError(f"suffixes[{number}]: {excess}")
        return RerankGroup(
            prefix=prefix,
            suffixes=[opening] * len(items),
            label_tokens=labels,
            answer_tokens=answer,
            max_reasoning_tokens=prompts.max_reasoning_tokens,
            items=items,
            item_position=layout.item_position,
            suffix_position=layout.answer_position,
        )

    def _answer(self, prompts: RawPrompts, first: str) -> tuple[TokenIds, tuple[int, ...]]:
        if prompts.max_reasoning_tokens == 0:
            return [], self._tokenizer.raw_label_tokens(self._scale, first)
        after = self._tokenizer.encode_segment((Piece("x"),))
        answer = self._tokenizer.encode_segment((Piece(prompts.answer),), after=after)
        return answer, self._tokenizer.label_tokens(self._scale, prompts.answer, after)
