"""Ray Serve: replicas of a Reranker, where a user comes back to the replica that has the prefix."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from exp3rt_trt.reranker import Reranker
from exp3rt_trt.serve.app import make_app
from exp3rt_trt.serve.options import ServeOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import FastAPI
    from ray.serve import Application

    from exp3rt_trt.inputs import ItemLike, UserLike
    from exp3rt_trt.results import RankedResults

BY_SESSION = "exp3rt_trt.integrations.ray_router.SessionRouter"


@serve.ingress()
class RerankerReplica:
    """A Reranker in a process of Ray Serve; see `application`."""

    def __init__(self, engine: str, options: dict[str, Any], limits: ServeOptions) -> None:
        self._reranker = Reranker.from_pretrained(engine, **options)
        self._limits = limits

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the routes of `exp3rt-trt serve`."""
        return make_app(self._reranker, self._limits)

    async def rank(self, user: UserLike, candidates: Iterable[ItemLike], **request: Any) -> RankedResults:  # noqa: ANN401
        """As `Reranker.rank`."""
        return await self._reranker.arank(user, candidates, **request)

    async def stats(self) -> dict[str, Any]:
        """Return this "replica" and its `Reranker.stats()`; `handle.broadcast("stats")` asks all."""
        replica = serve.get_replica_context().replica_id.unique_id
        return {"replica": replica, **dataclasses.asdict(self._reranker.stats())}


def application(
    engine: str,
    *,
    replicas: int,
    threads: int,
    max_ongoing_requests: int = 32,
    patience: int | None = 3,
    options: dict[str, Any] | None = None,
    limits: ServeOptions | None = None,
) -> Application:
    """Return an application for `serve.run`, with the routes of `exp3rt-trt serve` and methods for handles.

    Requests of a session, which is the user's id, go to one replica, which has the user's prefix from the
    second one on; if that is busy, to the next ones on a ring, for each user always the same. A replica more
    or less moves that one's share of users. The session is named by the header `x-session-id`, or by
    `handle.options(session_id=...)`; requests without are spread.

    Args:
        engine: what `Reranker.from_pretrained` takes, on every machine.
        replicas: processes, each with an engine of its own.
        threads: cores of each, which are also what it asks of Ray.
        max_ongoing_requests: of one replica at a time; when all have so many, requests wait with the router,
            which is not fair to them.
        patience: a replica with so many requests is busy; more find more prefixes and wait longer
            (docs/fleet.md). None for Ray's own choice: the less busy one of two at random.
        options: more arguments of `Reranker.from_pretrained`.
        limits: of the routes.

    Example:
        >>> handle = serve.run(application("engines/student", replicas=2, threads=4))  # doctest: +SKIP
        >>> ranked = handle.options(session_id="u1").rank.remote(user, candidates).result()
    """
    router = RequestRouterConfig()
    if patience is not None:
        router = RequestRouterConfig(
            request_router_class=BY_SESSION, request_router_kwargs={"patience": patience}
        )
    deployment = serve.deployment(
        RerankerReplica,
        num_replicas=replicas,
        max_ongoing_requests=max_ongoing_requests,
        ray_actor_options={"num_cpus": threads},
        request_router_config=router,
    )
    return deployment.bind(engine, {**(options or {}), "threads": threads}, limits or ServeOptions())
