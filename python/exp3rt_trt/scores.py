"""What raw prompts give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.rating import expected_rating, label_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exp3rt_trt.executors import GroupResult
    from exp3rt_trt.rating import RatingScale
    from exp3rt_trt.results import Status


@dataclass(frozen=True, eq=False)
class PromptScores:
    """Ratings of raw prompts, in the order of the suffixes.

    Args:
        probabilities: float64 [num_suffixes, num_labels]; NaN in the rows of those that have no rating.
        expected_ratings: float64 [num_suffixes]; NaN likewise.
        reasoning_tokens: what was written before each rating; empty without reasoning.
        statuses: of each; see RankedItem.
    """

    probabilities: NDArray[np.float64]
    expected_ratings: NDArray[np.float64]
    reasoning_tokens: Sequence[Sequence[int]]
    statuses: Sequence[Status]

    def __len__(self) -> int:
        return len(self.statuses)


def gather_scores(
    results: Sequence[GroupResult], indices: Sequence[Sequence[int]], scale: RatingScale
) -> PromptScores:
    """Put the groups' results back into the order of the suffixes.

    Args:
        results: one per group.
        indices: for each group, which suffixes its candidates are.
        scale: of the labels.
    """
    total = sum(map(len, indices))
    logits = np.full((total, len(scale.labels)), np.nan)
    reasoning: list[Sequence[int]] = [()] * total
    statuses: list[Status] = ["failed"] * total
    for result, numbers in zip(results, indices, strict=True):
        for candidate, number in zip(result.candidates, numbers, strict=True):
            statuses[number] = candidate.status  # type: ignore[call-overload]
            reasoning[number] = candidate.reasoning_tokens
            if candidate.status == "ok":
                logits[number] = candidate.label_logits
    probabilities = label_probabilities(logits)
    return PromptScores(probabilities, expected_rating(probabilities, scale.values), reasoning, statuses)
