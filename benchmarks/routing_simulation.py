"""Replicas behind a router, event by event: who gets a visit, what is in the cache, how long it takes."""

from __future__ import annotations

import bisect
import random
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import simpy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from routing_trace import Cost, Trace

RING_POINTS = 100  # of each replica; this and the waits when all are full are Ray Serve's
FIRST_WAIT_S, LONGEST_WAIT_S = 0.025, 0.5


@dataclass(frozen=True)
class Fleet:
    """Replicas that are all alike.

    Args:
        replicas: how many.
        blocks: of each one's KV cache, without those of the instructions.
        block_size: tokens of a block.
        tokens_per_s: that one computes.
        max_ongoing: visits that one takes at a time.
        patience: how many visits a user's replica may have before the less busy one of it and the next two
            on a ring is taken; None for the less busy one of two at random.
    """

    replicas: int
    blocks: int
    block_size: int
    tokens_per_s: float
    max_ongoing: int
    patience: int | None


@dataclass(frozen=True)
class Served:
    """A visit: when it came, how long it took, how many tokens, whether the first choice was passed over."""

    at_s: float
    latency_s: float
    tokens: int
    elsewhere: bool


class PrefixBlocks:
    """The blocks of users' prefixes: least recently used first out, and each prefix from its end."""

    def __init__(self, blocks: int) -> None:
        self._free = blocks
        self._held: OrderedDict[int, int] = OrderedDict()

    def acquire(self, user: int, cost: Cost) -> int:
        """Make room for a visit and return how many blocks of the prefix were not there."""
        missing = cost.prefix_blocks - self._held.pop(user, 0)
        while self._free < missing + cost.own_blocks:
            oldest = next(iter(self._held))  # StopIteration: one visit alone does not fit
            self._held[oldest] -= 1
            self._free += 1
            if not self._held[oldest]:
                del self._held[oldest]
        self._free -= missing  # the candidates' blocks are free again afterwards
        self._held[user] = cost.prefix_blocks
        return missing


class Replica:
    """One visit after another, as many tokens a second as it can."""

    def __init__(self, env: simpy.Environment, fleet: Fleet) -> None:
        self.ongoing = 0
        self._env, self._fleet = env, fleet
        self._turn = simpy.Resource(env)
        self._cache = PrefixBlocks(fleet.blocks)

    def serve(self, user: int, cost: Cost) -> Generator[Any, Any, int]:
        """Compute what is missing, and return how many tokens that were."""
        self.ongoing += 1
        with self._turn.request() as turn:
            yield turn
            tokens = cost.tokens(self._cache.acquire(user, cost), self._fleet.block_size)
            yield self._env.timeout(tokens / self._fleet.tokens_per_s)
        self.ongoing -= 1
        return tokens


def simulate(trace: Trace, costs: Mapping[int, Cost], fleet: Fleet, seed: int) -> list[Served]:
    """Play a trace; the seed is of the ring or of the choices. Visits come back as they are done."""
    env, served = simpy.Environment(), list[Served]()
    replicas = [Replica(env, fleet) for _ in range(fleet.replicas)]
    at_random = fleet.patience is None
    order = _at_random(fleet.replicas, seed) if at_random else _by_session(fleet.replicas, seed)
    patience = fleet.patience or 1

    def visit(user: int) -> Generator[Any, Any, None]:
        start, wait_s = env.now, FIRST_WAIT_S
        while True:
            ranked = [replicas[number] for number in order(user)]
            free = [replica for replica in ranked if replica.ongoing < fleet.max_ongoing]
            if free:
                break
            yield env.timeout(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        chosen = min(free, key=lambda replica: max(replica.ongoing, patience - 1))  # the first of equals
        tokens = yield from chosen.serve(user, costs[user])
        served.append(Served(start, env.now - start, tokens, chosen is not ranked[0]))

    def arrivals() -> Iterator[Any]:
        for at_s, user in zip(trace.at_s, trace.users, strict=True):
            yield env.timeout(at_s - env.now)
            env.process(visit(user))

    env.process(arrivals())
    env.run()
    return served


def _by_session(replicas: int, seed: int) -> Callable[[int], list[int]]:
    """Return for a user the replica that follows on a ring, and the two after it."""
    points = sorted(
        (_hash(f"{seed} {n} {point}"), n) for n in range(replicas) for point in range(RING_POINTS)
    )
    hashes = [each for each, _ in points]

    def order(user: int) -> list[list[int]]:
        place = bisect.bisect_right(hashes, _hash(f"user {user}"))
        found: list[int] = []
        while len(found) < min(3, replicas):
            number = points[place % len(points)][1]
            if number not in found:
                found.append(number)
            place += 1
        return found

    return order


def _at_random(replicas: int, seed: int) -> Callable[[int], list[int]]:
    draw = random.Random(seed)  # noqa: S311  (no secrets here)
    return lambda _: draw.sample(range(replicas), min(2, replicas))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
