"""What comes back: a user's candidates in order of expected rating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from exp3rt_trt.errors import Exp3rtError
    from exp3rt_trt.inputs import Id

Status: TypeAlias = Literal["ok", "too_long", "failed", "cancelled", "expired", "invalid", "duplicate"]


@dataclass(frozen=True, eq=False)
class RankedItem:
    """One candidate and what became of it.

    Args:
        rank: 1 for the best; None unless the status is ok.
        item_id: the caller's, or its position for a plain string; None if it has none.
        title: if known.
        expected_rating: on the scale's values; None unless ok.
        probabilities: float64 [num_labels], sums to 1; None unless ok.
        reasoning: the student's words before it rated; None if it rated at once.
        item: the caller's own object, unchanged.
        status: ok, or why it has no rating: too_long, failed (the model gave no finite number), cancelled,
            expired, invalid, duplicate.
        error: the status in words; None if ok.
    """

    rank: int | None
    item_id: Id | None
    title: str | None
    expected_rating: float | None
    probabilities: NDArray[np.float64] | None
    reasoning: str | None
    item: object
    status: Status = "ok"
    error: str | None = None

    @property
    def reasoned(self) -> bool:
        """Whether the rating was read behind a reasoning, or else at once."""
        return self.reasoning is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, without the caller's object."""
        return {
            "rank": self.rank,
            "item_id": self.item_id,
            "title": self.title,
            "expected_rating": self.expected_rating,
            "probabilities": None if self.probabilities is None else self.probabilities.tolist(),
            "reasoning": self.reasoning,
            "status": self.status,
            "error": self.error,
        }


@dataclass(frozen=True, eq=False)
class RankedResults(Sequence[RankedItem]):
    """A user's candidates: the rated ones, best first, then those without a rating in the input's order.

    Args:
        items: the candidates.
        user_id: the caller's.
        queue_s: seconds from submission until the first token was computed.
        compute_s: seconds from there to the last result.
        error: why there is no ranking at all, else None; whoever looks at the items of such a result gets it
            raised.
        num_reasoned: how many candidates were reasoned for, those beyond top_k included.
        beyond: the rated ones that top_k cut off, best first.

    Example:
        >>> best = next((r for r in ranked if r.status == "ok"), None)  # doctest: +SKIP
    """

    items: tuple[RankedItem, ...]
    user_id: Id | None = None
    queue_s: float = 0.0
    compute_s: float = 0.0
    error: Exp3rtError | None = field(default=None)
    num_reasoned: int = 0
    beyond: tuple[RankedItem, ...] = ()

    def __len__(self) -> int:
        return len(self._items())

    @overload
    def __getitem__(self, index: int) -> RankedItem: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RankedItem, ...]: ...

    def __getitem__(self, index: int | slice) -> RankedItem | tuple[RankedItem, ...]:
        return self._items()[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the items as JSON values.

        Raises:
            Exp3rtError: the result's error, if it has one.
        """
        return [item.to_dict() for item in self._items()]

    def _items(self) -> tuple[RankedItem, ...]:
        if self.error is not None:
            raise self.error
        return self.items


def order_by_rating(items: Sequence[RankedItem], top_k: int | None = None) -> tuple[RankedItem, ...]:
    """Put rated candidates in order and number them.

    Args:
        items: in the order of the input; their ranks are ignored.
        top_k: how many rated ones to keep; None for all.

    Returns:
        The rated ones by falling expected rating, equal ones in the order of the input, then all the others.
    """
    rated = [item for item in items if item.expected_rating is not None]
    rated.sort(key=lambda item: -(item.expected_rating or 0.0))  # stable
    ranked = [_with_rank(item, rank) for rank, item in enumerate(rated[:top_k], start=1)]
    return (*ranked, *(item for item in items if item.expected_rating is None))


def beyond_top(items: Sequence[RankedItem], top_k: int | None) -> tuple[RankedItem, ...]:
    """Return the rated candidates that `order_by_rating` cuts off, in order and numbered."""
    if top_k is None:
        return ()
    return tuple(item for item in order_by_rating(items) if (item.rank or 0) > top_k)


def _with_rank(item: RankedItem, rank: int) -> RankedItem:
    return RankedItem(**{**vars(item), "rank": rank})
