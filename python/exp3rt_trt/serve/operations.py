"""Routes for those who run the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

if TYPE_CHECKING:
    from exp3rt_trt.serve.metrics import Metrics
    from exp3rt_trt.serve.ranking import Ranking


def routes(ranking: Ranking, metrics: Metrics) -> APIRouter:
    """Return health and metrics."""
    router = APIRouter()

    @router.get("/health")
    @router.get("/v2/health/live")
    @router.get("/v2/health/ready")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def scrape() -> Response:
        metrics.update(ranking.admission, ranking.reranker.stats())
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
