"""Which replica a visit goes to: the one that has the user's prefix, unless it is busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

if TYPE_CHECKING:
    from ray.serve.request_router import PendingRequest, RunningReplica


class SessionRouter(ConsistentHashRouter):  # type: ignore[misc]  # untyped without the extra
    """Ray's ring of replicas, on which a session has one replica and two that follow, and patience.

    Ray's router leaves a session's replica only when that is full, and people wait for it while others are
    idle. This one leaves it when `patience` requests are there already, for the least busy of the three.

    Args (by `RequestRouterConfig.request_router_kwargs`):
        patience: requests at a replica, waiting or at work, with which it takes no more of its sessions while
            another has fewer. What Ray's `ConsistentHashRouter` takes as well.
    """

    def initialize_state(self, *, patience: int = 3, **kwargs: Any) -> None:  # noqa: ANN401
        """Take the options; Ray calls it."""
        super().initialize_state(**kwargs)
        self._patience = patience

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the session's replicas, in the order in which they are to be tried."""
        ranks = await super().choose_replicas(candidate_replicas, pending_request)
        return sorted(ranks, key=lambda rank: max(self._ongoing(rank[0]), self._patience - 1))  # stable

    def _ongoing(self, replica: RunningReplica) -> int:
        """Return how many requests a replica has, as far as this router knows."""
        return self.replica_queue_len_cache.get(replica.replica_id) or 0
