"""A user's candidates on their way: what is asked, what is wrong with some, and the ranking in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.checks import check_number, check_whole
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.inputs import as_item, item_id_or_none
from exp3rt_trt.rating import expected_rating, label_probabilities
from exp3rt_trt.results import RankedItem, RankedResults, beyond_top, order_by_rating
from exp3rt_trt.segments import CAUSAL, SegmentLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exp3rt_trt._core import RerankGroup
    from exp3rt_trt.executors import CandidateResult, GroupResult
    from exp3rt_trt.inputs import Id, Item
    from exp3rt_trt.prompts import Mode, RankingMode
    from exp3rt_trt.rating import RatingScale
    from exp3rt_trt.results import Status
    from exp3rt_trt.tokenization import TokenIds

# Half the width of the interval that a score is taken to leave open, in standard deviations of its labels.
UNCERTAINTY = 0.25

NO_RATING = {
    "failed": "the model gave no finite number for this candidate",
    "cancelled": "cancelled before it was finished",
    "expired": "the time limit passed before it was finished",
}


@dataclass(frozen=True)
class Request:
    """How to rate: what `Reranker.rank` takes beside user and candidates."""

    mode: RankingMode = "score"
    top_k: int | None = None
    timeout_s: float | None = None
    uncertainty: float = UNCERTAINTY
    cache_salt: str = ""

    def __post_init__(self) -> None:
        if self.mode not in ("score", "reason", "adaptive"):
            raise InvalidInputError(f'mode must be "score", "reason" or "adaptive", not {self.mode!r}')
        if self.mode == "adaptive" and self.top_k is None:
            raise InvalidInputError(
                'mode "adaptive" needs top_k: it reasons for those that can be among them'
            )
        check_number("uncertainty", self.uncertainty)
        if self.top_k is not None:
            check_whole("top_k", self.top_k, 1)
        if not isinstance(self.cache_salt, str):
            raise InvalidInputError(f"cache_salt must be a string, not {type(self.cache_salt).__name__}")
        if self.timeout_s is not None:
            check_number("timeout_s", self.timeout_s, positive=True)


@dataclass(frozen=True)
class Limits:
    """What a candidate's prompt must fit into: tokens of context, blocks of the KV cache (0: not known).

    In a segmented layout, also the room between the segments' positions.
    """

    max_context: int
    blocks: int
    block_size: int
    layout: SegmentLayout = CAUSAL

    def excess(
        self, prefix: Sequence[TokenIds], suffix: int, reasoning: int, answer: int, item: int = 0
    ) -> str | None:
        """Return in which way a prompt is too long, or None if it fits.

        Args:
            prefix: token ids by segment; each takes whole blocks.
            suffix: number of tokens of the candidate.
            reasoning: most tokens that the student may write.
            answer: number of tokens of the forced answer.
            item: number of tokens of the candidate's item, where that is a segment of its own.
        """
        shared, own = sum(map(len, prefix)), suffix + reasoning + answer
        if self.layout.segmented:
            return self._misplaced(shared, item, own)
        parts = f"prefix {shared}, suffix {suffix}, reasoning {reasoning}, answer {answer}"
        if shared + own > self.max_context:
            return f"{shared + own} tokens ({parts}) are over the context limit of {self.max_context}"
        blocks = sum(-(-len(segment) // self.block_size) for segment in prefix) - (-own // self.block_size)
        if self.blocks and blocks > self.blocks:
            return (
                f"{blocks} KV blocks ({parts} tokens) are over the cache's {self.blocks}; raise kv_cache_mib"
            )
        return None

    def _misplaced(self, shared: int, item: int, own: int) -> str | None:
        layout = self.layout
        for what, first, tokens, end in (
            ("instructions and user", 0, shared, layout.item_position),
            ("the item", layout.item_position, item, layout.answer_position),
            ("the answer", layout.answer_position, own, self.max_context),
        ):
            if first + tokens > end:
                return (
                    f"{what}: {tokens} tokens from position {first} on, over the limit of {end - first}: the "
                    f"student reads what follows from position {end} on"
                )
        return None


@dataclass(frozen=True)
class Slot:
    """One candidate of the input: checked, or with the fault that keeps it from being rated."""

    source: object
    item: Item | None
    item_id: Id | None
    status: Status = "ok"
    error: str | None = None


@dataclass(frozen=True)
class Job:
    """A user's candidates, and the group that rates those of status ok, in order; None if there are none."""

    user_id: Id | None
    slots: Sequence[Slot]
    group: RerankGroup | None
    mode: Mode
    top_k: int | None


def make_slots(candidates: Sequence[object]) -> list[Slot]:
    """Check candidates one by one; the fault of one stays its own.

    Args:
        candidates: see `inputs.as_item`.

    Returns:
        A slot for each. One without a usable id or text is invalid; one with the id of an earlier one is a
        duplicate.
    """
    slots: list[Slot] = []
    first: dict[Id, int] = {}
    for position, source in enumerate(candidates):
        try:
            item = as_item(source, position)
        except InvalidInputError as error:
            slots.append(Slot(source, None, item_id_or_none(source, position), "invalid", str(error)))
            continue
        earlier = first.setdefault(item.item_id, position)
        if earlier == position:
            slots.append(Slot(source, item, item.item_id))
        else:
            words = (
                f"candidates[{position}].item_id {item.item_id!r} is that of candidates[{earlier}] already"
            )
            slots.append(Slot(source, item, item.item_id, "duplicate", words))
    return slots


def ranking(
    job: Job, result: GroupResult | None, scale: RatingScale, decode: Callable[[Sequence[int]], str] | None
) -> RankedResults:
    """Put a group's result together with its job.

    Args:
        job: its slots of status ok are those of the group, in order.
        result: None for a job without a group.
        scale: of the labels.
        decode: makes text of a reasoning's tokens; None in score mode.

    Returns:
        The candidates in order of expected rating.
    """
    outcomes = iter(result.candidates if result is not None else ())
    items = [
        _rated(slot, next(outcomes), scale, decode)
        if slot.status == "ok"
        else _unrated(slot, slot.status, slot.error)
        for slot in job.slots
    ]
    queue_s, compute_s = (result.queue_s, result.compute_s) if result is not None else (0.0, 0.0)
    return RankedResults(
        order_by_rating(items, job.top_k),
        job.user_id,
        queue_s,
        compute_s,
        num_reasoned=sum(item.reasoned for item in items),
        beyond=beyond_top(items, job.top_k),
    )


def _rated(
    slot: Slot, outcome: CandidateResult, scale: RatingScale, decode: Callable[[Sequence[int]], str] | None
) -> RankedItem:
    if outcome.status != "ok":
        words = f"item_id {slot.item_id!r}: {NO_RATING[outcome.status]}"
        return _unrated(slot, outcome.status, words)  # type: ignore[arg-type]
    probabilities = label_probabilities(outcome.label_logits)
    return RankedItem(
        rank=None,
        item_id=slot.item_id,
        title=slot.item.title if slot.item else None,
        expected_rating=float(expected_rating(probabilities, scale.values)),
        probabilities=probabilities,
        reasoning=decode(outcome.reasoning_tokens).strip() if decode else None,
        item=slot.source,
    )


def _unrated(slot: Slot, status: Status, error: str | None) -> RankedItem:
    title = slot.item.title if slot.item else None
    return RankedItem(None, slot.item_id, title, None, None, None, slot.source, status, error)
