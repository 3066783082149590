"""Routes in the shapes of others: Cohere, Jina and vLLM; text-embeddings-inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from exp3rt_trt.serve.faults import RESPONSES
from exp3rt_trt.serve.ranking import Work
from exp3rt_trt.serve.record import record_of
from exp3rt_trt.serve.schemas import RerankAnswer, RerankRequest, TeiRequest, TeiResult
from exp3rt_trt.serve.scores import rated

if TYPE_CHECKING:
    from exp3rt_trt.serve.ranking import Ranking
    from exp3rt_trt.serve.scores import Scorer


def routes(ranking: Ranking, scorer: Scorer, model_name: str) -> APIRouter:
    """Return /v1/rerank, /v2/rerank and /rerank; the query is the user's profile."""
    router = APIRouter()

    async def rerank(body: RerankRequest, request: Request) -> dict[str, Any]:
        texts = body.texts()
        ranked = await ranking.rank(
            request, Work(body.query, texts, "documents", body.top_n, user_field="query")
        )
        results = []
        for index, rating in rated(ranked, "documents"):
            result: dict[str, Any] = {"index": index, "relevance_score": scorer.score(rating)}
            if body.return_documents:
                result["document"] = {"text": texts[index]}
            results.append(result)
        return {"id": record_of(request.scope).request_id, "model": model_name, "results": results}

    for path in ("/v1/rerank", "/v2/rerank"):
        router.post(
            path,
            operation_id=path.strip("/").replace("/", "_"),
            response_model=RerankAnswer,
            response_model_exclude_none=True,
            responses=RESPONSES,
        )(rerank)

    @router.post(
        "/rerank", response_model=list[TeiResult], response_model_exclude_none=True, responses=RESPONSES
    )
    async def tei(body: TeiRequest, request: Request) -> list[dict[str, Any]]:
        ranked = await ranking.rank(request, Work(body.query, body.texts, "texts", user_field="query"))
        results = []
        for index, rating in rated(ranked, "texts"):
            score = scorer.rating(rating) if body.raw_scores else scorer.score(rating)
            result: dict[str, Any] = {"index": index, "score": score}
            if body.return_text:
                result["text"] = body.texts[index]
            results.append(result)
        return results

    return router
