"""Users who come back: who comes when, and what a visit costs with and without a prefix in the cache."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from workloads import make_candidates, make_user

if TYPE_CHECKING:
    from exp3rt_trt import Reranker


@dataclass(frozen=True)
class Trace:
    """Visits in order of time.

    Args:
        at_s: when each visit is.
        users: who each visit is of, by number.
        candidates: of each visit.
    """

    at_s: list[float]
    users: list[int]
    candidates: int


@dataclass(frozen=True)
class Cost:
    """Tokens and blocks of a visit: of the user's prefix behind the instructions, and of the candidates."""

    prefix_tokens: int
    own_tokens: int
    prefix_blocks: int
    own_blocks: int

    def tokens(self, missing: int, block_size: int) -> int:
        """Return how many are computed, if so many blocks of the prefix, at its end, are not there."""
        kept = (self.prefix_blocks - missing) * block_size
        return self.own_tokens + (self.prefix_tokens - kept if missing else 0)


def make_trace(*, users: int, visits: int, rate: float, skew: float, candidates: int, seed: int) -> Trace:
    """Draw visits.

    Args:
        users: how many there are.
        visits: how many there are of all of them.
        rate: visits a second, as a Poisson process.
        skew: how unequal users are: the n-th comes in proportion to n to the power of minus this.
        candidates: of each visit.
        seed: of all of it.
    """
    draw = random.Random(seed)  # noqa: S311  (no secrets here)
    weights = [(number + 1) ** -skew for number in range(users)]
    at_s = list(accumulate(draw.expovariate(rate) for _ in range(visits)))
    return Trace(at_s, draw.choices(range(users), weights, k=visits), candidates)


def visit_of(user: int, candidates: int) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return what `Reranker.rank` takes; for a user always the same profile."""
    return dict(make_user(user, seed=0)), make_candidates(candidates, seed=user)


def costs_of(reranker: Reranker, trace: Trace) -> tuple[dict[int, Cost], int]:
    """Measure what each user's visit takes, from the engine's own counters.

    Returns:
        The cost by user, and the blocks of the instructions that all share.
    """
    nobody = max(trace.users) + 1

    def computed(user: int, salt: str) -> int:
        before = reranker.stats().prompt_tokens_computed
        reranker.rank(*visit_of(user, trace.candidates), cache_salt=salt)
        return reranker.stats().prompt_tokens_computed - before

    size = reranker.stats().block_size
    alone, costs = computed(nobody, "alone"), {}
    computed(nobody + 1, "together")
    instructions = alone - computed(nobody, "together")
    for user in sorted(set(trace.users)):
        cold, own = computed(user, "together"), computed(user, "together")
        each = -(-own // trace.candidates)
        prefix = cold - own
        costs[user] = Cost(prefix, own, -(-prefix // size), -(-each // size) * trace.candidates)
    return costs, -(-instructions // size)


def hit_rate(trace: Trace, costs: dict[int, Cost], computed: int) -> float:
    """Return the share of users' prefix tokens that were found, from all tokens that a fleet computed.

    The replicas have computed the instructions before, which all users share.
    """
    needed = sum(costs[user].own_tokens for user in trace.users)
    prefixes = sum(costs[user].prefix_tokens for user in trace.users)
    return 1 - (computed - needed) / prefixes
