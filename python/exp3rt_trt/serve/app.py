"""The routes of a server."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from exp3rt_trt.errors import EngineError, InvalidInputError
from exp3rt_trt.reranker import Reranker
from exp3rt_trt.results import RankedResults
from exp3rt_trt.serve.faults import Fault
from exp3rt_trt.serve.guard import Guard
from exp3rt_trt.serve.options import ServeOptions
from exp3rt_trt.serve.ranking import Ranking
from exp3rt_trt.serve.schemas import ProfileRequest, RerankRequest, TeiRequest


def make_app(reranker: Reranker, options: ServeOptions) -> FastAPI:
    """Return the application that serves a Reranker, which stays the caller's to close."""
    app = FastAPI(title="exp3rt_trt")
    ranking = Ranking(reranker, options)
    app.state.ranking = ranking
    _add_errors(app)
    _add_profile(app, ranking)
    _add_compatible(app, ranking)
    app.add_middleware(Guard, options=options)
    return app


def _add_profile(app: FastAPI, ranking: Ranking) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/rerank/profile")
    async def profile(body: ProfileRequest, request: Request) -> dict[str, Any]:
        ranked = await ranking.rank(
            request,
            body.user.model_dump(),
            [item.model_dump() for item in body.items],
            field="items",
            top_k=body.top_k,
            mode=body.mode,
            deadline_ms=body.deadline_ms,
        )
        return {
            "results": ranked.to_dicts(),
            "partial": any(item.status == "expired" for item in ranked),
            "timings": {"queue_s": ranked.queue_s, "compute_s": ranked.compute_s},
        }


def _add_compatible(app: FastAPI, ranking: Ranking) -> None:
    @app.post("/v1/rerank")
    @app.post("/v2/rerank")
    async def rerank(body: RerankRequest, request: Request) -> dict[str, Any]:
        ranked = await ranking.rank(request, body.query, body.documents, field="documents", top_k=body.top_n)
        scored = _scores(ranked, ranking.reranker, "documents")
        return {"results": [{"index": index, "relevance_score": score} for index, score in scored]}

    @app.post("/rerank")
    async def tei(body: TeiRequest, request: Request) -> list[dict[str, Any]]:
        ranked = await ranking.rank(request, body.query, body.texts, field="texts")
        return [
            {"index": index, "score": score} for index, score in _scores(ranked, ranking.reranker, "texts")
        ]


def _scores(ranked: RankedResults, reranker: Reranker, field: str) -> list[tuple[int, float]]:
    """Return index and score in 0..1; these shapes have no place for a candidate without a rating."""
    lowest, highest = reranker.scale.values[0], reranker.scale.values[-1]
    scored = []
    for item in ranked:
        if item.expected_rating is None:
            place = f"{field}[{item.item_id}]"
            raise Fault(422, item.status, f"{place}: {item.error}", place)
        score = (item.expected_rating - lowest) / (highest - lowest)
        scored.append((int(str(item.item_id)), min(max(score, 0.0), 1.0)))
    return scored


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Fault)
    async def fault(_: Request, error: Fault) -> JSONResponse:
        return error.response()

    @app.exception_handler(InvalidInputError)
    async def invalid(_: Request, error: InvalidInputError) -> JSONResponse:
        return Fault(422, "invalid", str(error)).response()

    @app.exception_handler(EngineError)
    async def engine(_: Request, error: EngineError) -> JSONResponse:
        return Fault(503, "engine", str(error)).response()

    @app.exception_handler(RequestValidationError)
    async def body(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return Fault(422, "invalid", f"{field}: {first['msg']}", field).response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return Fault(error.status_code, "http", str(error.detail)).response()
