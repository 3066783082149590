"""Agreement: whether a reasoning speaks for the rating that it ends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from exp3rt_trt.evaluate.explanations.english import FORESEEING
from exp3rt_trt.evaluate.explanations.words import segments, sign, stance, words

if TYPE_CHECKING:
    from exp3rt_trt.rating import RatingScale

MIDDLE = 0.1  # of the scale's length, on both sides of its middle: a rating there fits any words

Agrees = Literal["agrees", "contradicts", "no verdict"]


@dataclass(frozen=True)
class Agreement:
    """What a reasoning foresees, from -1 (dislike only) to 1 (like only), None without such words."""

    balance: float | None
    agrees: Agrees


def agreement_of(reasoning: str, rating: float, scale: RatingScale) -> Agreement:
    """Compare what a reasoning foresees with the rating.

    Coherence of explanation and rating in the sense of Raczyński, Lango and Stefanowski (ECAI 2023, arXiv
    2312.11356), who train a classifier for it; here words decide.

    Args:
        reasoning: the text before the rating.
        rating: the expected rating.
        scale: a rating above its middle is liking, one below disliking.
    """
    verdicts = [stance(each) for each in segments(reasoning) if FORESEEING & set(words(each))]
    spoken = [verdict for verdict in verdicts if verdict]
    if not spoken:
        return Agreement(None, "no verdict")
    balance = sum(spoken) / len(spoken)
    low, high = scale.values[0], scale.values[-1]
    off = (rating - (low + high) / 2) / (high - low)
    contradicts = abs(off) > MIDDLE and sign(balance) == -sign(off)
    return Agreement(balance, "contradicts" if contradicts else "agrees")
