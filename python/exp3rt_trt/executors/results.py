"""Results of executors that are written in Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _no_logits() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


@dataclass(frozen=True)
class CandidateOutcome:
    """See `executors.CandidateResult`."""

    status: str
    label_logits: NDArray[np.float32] = field(default_factory=_no_logits)
    reasoning_tokens: list[int] = field(default_factory=list)
    item_kv: None = None  # these executors have no segments


@dataclass(frozen=True)
class GroupOutcome:
    """See `executors.GroupResult`."""

    candidates: list[CandidateOutcome]
    queue_s: float
    compute_s: float
