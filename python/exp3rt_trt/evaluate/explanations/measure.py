"""Explanations as a whole: grounding, coverage and agreement of many, beside what chance would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.evaluate.bootstrap import Bootstrap, Estimate, mean
from exp3rt_trt.evaluate.explanations.agreement import Agreement, agreement_of
from exp3rt_trt.evaluate.explanations.coverage import Coverage, coverage_of
from exp3rt_trt.evaluate.explanations.evidence import Evidence, evidence_of
from exp3rt_trt.evaluate.explanations.grounding import Grounding, grounding_of
from exp3rt_trt.extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.rating import RatingScale

SHARES = ("claims supported", "names known", "names a preference", "names a trait", "names both")


@dataclass(frozen=True)
class Explained:
    """A row, the reasoning about it, and the rating that the reasoning ended in."""

    row: RatingRow
    reasoning: str
    rating: float


@dataclass(frozen=True)
class Judged:
    """An explanation and all that was found about it."""

    explained: Explained
    grounding: Grounding
    coverage: Coverage
    agreement: Agreement


@dataclass(frozen=True)
class ExplanationTable:
    """Shares over all explanations.

    Args:
        explanations: how many.
        claims: in all of them.
        contradicted: claims that turn a like into a dislike or the other way round.
        names: in all of them.
        shares: by the names in SHARES.
        chance: the same with every reasoning judged by the prompt of another user and item: what words that
            fit anything reach.
        verdicts: explanations by "agrees", "contradicts" and "no verdict".
        agreement: share of "agrees" among those with a verdict.
        kendall_tau: of what the reasonings foresee with their ratings; None with fewer than two verdicts or
            no differences.
        judged: each explanation.
    """

    explanations: int
    claims: int
    contradicted: int
    names: int
    shares: dict[str, Estimate]
    chance: dict[str, Estimate]
    verdicts: dict[str, int]
    agreement: Estimate
    kendall_tau: float | None
    judged: Sequence[Judged]


def measure_explanations(
    explained: Sequence[Explained], scale: RatingScale, bootstrap: Bootstrap | None = None
) -> ExplanationTable:
    """Judge explanations by words; English only, see docs/evaluation.md for what that cannot see.

    Args:
        explained: any number.
        scale: of the ratings.
        bootstrap: of the intervals; None for the default with seed 0.
    """
    draws = bootstrap or Bootstrap(seed=0)
    prompts = [evidence_of(each.row.user, each.row.item) for each in explained]
    judged = [_judge(each, prompt, scale) for each, prompt in zip(explained, prompts, strict=True)]
    strangers = [
        _judge(each, prompts[other], scale)
        for number, each in enumerate(explained)
        if (other := _stranger(explained, number)) is not None
    ]
    verdicts = [each.agreement.agrees for each in judged]
    users = [each.explained.row.user_id for each in judged]
    spoken = [place for place, verdict in enumerate(verdicts) if verdict != "no verdict"]
    return ExplanationTable(
        explanations=len(judged),
        claims=sum(each.grounding.claims for each in judged),
        contradicted=sum(len(each.grounding.contradicted) for each in judged),
        names=sum(each.grounding.names for each in judged),
        shares=_shares(judged, draws),
        chance=_shares(strangers, draws),
        verdicts={verdict: verdicts.count(verdict) for verdict in ("agrees", "contradicts", "no verdict")},
        agreement=draws.estimate(
            mean, [users[place] for place in spoken], [verdicts[place] == "agrees" for place in spoken]
        ),
        kendall_tau=_kendall_tau([judged[place] for place in spoken]),
        judged=judged,
    )


def _judge(explained: Explained, prompt: Evidence, scale: RatingScale) -> Judged:
    return Judged(
        explained,
        grounding_of(explained.reasoning, prompt),
        coverage_of(explained.reasoning, prompt),
        agreement_of(explained.reasoning, explained.rating, scale),
    )


def _stranger(explained: Sequence[Explained], number: int) -> int | None:
    """Find a row of another user and another item, half-way round the list."""
    row, count = explained[number].row, len(explained)
    for step in range(count):
        other = (number + count // 2 + step) % count
        against = explained[other].row
        if against.user_id != row.user_id and against.item.item_id != row.item.item_id:
            return other
    return None


def _shares(judged: Sequence[Judged], draws: Bootstrap) -> dict[str, Estimate]:
    numbers = np.array([_counts(each) for each in judged], dtype=np.float64).reshape(-1, len(SHARES), 2)
    users = [each.explained.row.user_id for each in judged]
    place = {user: row for row, user in enumerate(dict.fromkeys(users))}
    sums = np.zeros((len(place), len(SHARES), 2))  # [num_users, num_shares, part and whole]
    np.add.at(sums, [place[user] for user in users], numbers)
    return {
        share: draws.of_sums(mean, sums[:, column, 0], sums[:, column, 1])
        for column, share in enumerate(SHARES)
    }


def _counts(judged: Judged) -> list[tuple[int, int]]:
    """Part and whole of each of SHARES for one explanation."""
    grounding, coverage = judged.grounding, judged.coverage
    preference, trait = bool(coverage.preferences), bool(coverage.traits)
    return [
        (grounding.supported_claims, grounding.claims),
        (grounding.known_names, grounding.names),
        (preference, 1),
        (trait, 1),
        (preference and trait, 1),
    ]


def _kendall_tau(judged: Sequence[Judged]) -> float | None:
    balances = [each.agreement.balance for each in judged]
    ratings = [each.explained.rating for each in judged]
    if len(set(balances)) < 2 or len(set(ratings)) < 2:
        return None
    return float(require("scipy.stats", "evaluate").kendalltau(balances, ratings).statistic)
