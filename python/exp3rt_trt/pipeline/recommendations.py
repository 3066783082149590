"""What a pipeline recommends, and how each item came to its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

if TYPE_CHECKING:
    from exp3rt_trt.errors import Exp3rtError
    from exp3rt_trt.inputs import Id
    from exp3rt_trt.results import Status

RecommendedStatus: TypeAlias = "Status | Literal['no_profile', 'no_text']"


@dataclass(frozen=True)
class RecommendedItem:
    """One recommended item.

    Args:
        rank: 1 for the best.
        item_id: the first stage's.
        title: if known.
        cf_score: of the first stage, in its own unit.
        expected_rating: the student's; None unless the status is ok.
        rating: the expected rating after calibration, or the same as that without one; None unless ok.
        calibrated: whether `rating` has been calibrated.
        blend_score: what it was put in order by; within one list only. None without a blend, or unless ok.
        reasoning: the student's words, if it reasoned.
        status: ok; no_profile (of the user), no_text (of the item), or why the student gave no rating (see
            RankedItem). Whatever is not ok stands by its CF score, behind all that are ok.
        error: the status in words; None if ok.
    """

    rank: int
    item_id: Id
    title: str | None
    cf_score: float
    expected_rating: float | None = None
    rating: float | None = None
    calibrated: bool = False
    blend_score: float | None = None
    reasoning: str | None = None
    status: RecommendedStatus = "ok"
    error: str | None = None


@dataclass(frozen=True)
class Recommendations(Sequence[RecommendedItem]):
    """The best items for a user, best first.

    Args:
        items: at most k.
        user_id: the caller's.
        num_candidates: how many the first stage proposed; 0 for a user that it does not know.
        num_reasoned: for how many of them the student reasoned.
        error: why there are none at all, else None; whoever looks at the items gets it raised.
    """

    items: tuple[RecommendedItem, ...]
    user_id: Id
    num_candidates: int = 0
    num_reasoned: int = 0
    error: Exp3rtError | None = None

    def __len__(self) -> int:
        return len(self._items())

    @overload
    def __getitem__(self, index: int) -> RecommendedItem: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RecommendedItem, ...]: ...

    def __getitem__(self, index: int | slice) -> RecommendedItem | tuple[RecommendedItem, ...]:
        return self._items()[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the items as JSON values."""
        return [asdict(item) for item in self._items()]

    def _items(self) -> tuple[RecommendedItem, ...]:
        if self.error is not None:
            raise self.error
        return self.items
