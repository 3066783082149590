"""How high the held-out items stand in reranked candidate lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.bootstrap import Bootstrap, Estimate, mean, mean_difference
from exp3rt_trt.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from exp3rt_trt.evaluate.interactions import Interactions
    from exp3rt_trt.inputs import Id
    from exp3rt_trt.pipeline.implicit_stage import ImplicitFirstStage

K = 10
METRICS = (f"HR@{K}", f"NDCG@{K}", "MRR")

ListScores = list["NDArray[np.float64]"]  # of the candidates of each list, the best item's highest; NaN: none
UserMetrics = dict[str, "NDArray[np.float64]"]  # by metric, [num_lists]


@dataclass(frozen=True)
class CandidateList:
    """A first stage's candidates for a user, best first, and the held-out items that count as right."""

    user_id: Id
    item_ids: Sequence[Id]
    positives: frozenset[Id]


@dataclass(frozen=True)
class RankedMethod:
    """One method's metrics over all lists, and its differences from the baseline (None for that itself).

    `unscored` candidates got no score and stand behind the others.
    """

    name: str
    unscored: int
    metrics: Mapping[str, Estimate]
    difference: Mapping[str, Estimate] | None


@dataclass(frozen=True)
class RankingTable:
    """All methods on the same lists.

    Args:
        lists: how many; one per user.
        candidates: in all lists.
        positives: held-out items of these users.
        positives_in_lists: those that the first stage found.
        baseline: name of the method that the others are compared with.
        limit: the metrics of the best order that these lists allow.
        methods: in the order given.
    """

    lists: int
    candidates: int
    positives: int
    positives_in_lists: int
    baseline: str
    limit: Mapping[str, Estimate]
    methods: Sequence[RankedMethod]


def candidate_lists(
    stage: ImplicitFirstStage, held_out: Interactions, users: Sequence[Id], count: int
) -> list[CandidateList]:
    """Return the first stage's best items for users.

    Args:
        stage: never proposes what a user is known to have interacted with.
        held_out: the right items; those that the stage was fitted on do not count.
        users: those without right items, or unknown to the stage, are left out.
        count: candidates of each.
    """
    lists = []
    for user in users:
        positives = frozenset(held_out.get(user, ())) - stage.seen(user)
        proposed = tuple(item for item, _ in stage.candidates(user, count)) if positives else ()
        if proposed:
            lists.append(CandidateList(user, proposed, positives))
    return lists


def measure_rankings(
    lists: Sequence[CandidateList],
    scores: Mapping[str, ListScores],
    *,
    baseline: str,
    bootstrap: Bootstrap | None = None,
) -> RankingTable:
    """Compare rankings of the same lists, by the metrics of `ir-measures`.

    A user's HR@k is 1 if any right item is among the first k; NDCG@k divides by the best DCG that all of the
    user's right items allow, found by the first stage or not; MRR is of the first right one, 0 if it is not
    in the list. Equal scores keep the first stage's order.

    Args:
        lists: one per user.
        scores: of every method; see `score_lists`.
        baseline: the method that the others are compared with.
        bootstrap: of the intervals; None for the default with seed 0.

    Raises:
        InvalidInputError: if there is no such baseline, or no list.
    """
    if baseline not in scores or not lists:
        raise InvalidInputError(f"nothing to rank, or no method {baseline!r} among {', '.join(scores)}")
    draws = bootstrap or Bootstrap(seed=0)
    metrics = {name: user_metrics(lists, found) for name, found in scores.items()}
    users = [each.user_id for each in lists]

    def method(name: str) -> RankedMethod:
        ours, theirs = metrics[name], metrics[baseline]
        differences = {
            metric: draws.estimate(mean_difference, users, ours[metric], theirs[metric]) for metric in METRICS
        }
        return RankedMethod(
            name=name,
            unscored=int(sum(np.isnan(each).sum() for each in scores[name])),
            metrics={metric: draws.estimate(mean, users, ours[metric]) for metric in METRICS},
            difference=None if name == baseline else differences,
        )

    best = user_metrics(
        lists, [np.array([item in each.positives for item in each.item_ids]) for each in lists]
    )
    return RankingTable(
        lists=len(lists),
        candidates=sum(len(each.item_ids) for each in lists),
        positives=sum(len(each.positives) for each in lists),
        positives_in_lists=sum(len(each.positives & set(each.item_ids)) for each in lists),
        baseline=baseline,
        limit={metric: draws.estimate(mean, users, best[metric]) for metric in METRICS},
        methods=[method(name) for name in scores],
    )


def user_metrics(lists: Sequence[CandidateList], scores: Sequence[NDArray[np.generic]]) -> UserMetrics:
    """Return the metrics of every list under scores of its candidates, [num_candidates] each."""
    ir = require("ir_measures", "evaluate")
    right, run = [], []
    for number, (each, of_list) in enumerate(zip(lists, scores, strict=True)):
        # Numbers stand for ids, which may be of any kind, and ranks for scores, so that there are no ties.
        right += [ir.Qrel(str(number), str(item), 1) for item in each.positives]
        order = np.argsort(-np.asarray(of_list, dtype=np.float64), kind="stable")  # NaN last
        ranked = [str(each.item_ids[place]) for place in order]
        run += [ir.ScoredDoc(str(number), item, -float(rank)) for rank, item in enumerate(ranked)]
    measures = dict(zip(METRICS, (ir.Success @ K, ir.nDCG @ K, ir.RR), strict=True))
    found = {metric: np.zeros(len(lists)) for metric in METRICS}
    names = {measure: metric for metric, measure in measures.items()}
    for value in ir.iter_calc(list(measures.values()), right, run):
        found[names[value.measure]][int(value.query_id)] = value.value
    return found
