"""What `exp3rt-trt evaluate` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.prompts import RankingMode


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of the command; see its help."""

    ratings: str
    fit: str
    engine: str
    modes: Sequence[RankingMode]
    calibrated: bool
    interactions: str | None
    texts: Sequence[str]
    without: Sequence[str]
    against: str | None
    cold_below: int
    limit: int | None
    users: int | None
    candidates: int
    blend_users: int
    right_from: float
    highest: int
    max_reasoning_tokens: int
    seed: int
    threads: int
