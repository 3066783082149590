"""The application: routes, errors, and what stands around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from exp3rt_trt.serve import compatible, kserve, native, operations
from exp3rt_trt.serve.faults import add_errors
from exp3rt_trt.serve.guard import Guard
from exp3rt_trt.serve.metrics import Metrics
from exp3rt_trt.serve.observe import Observe
from exp3rt_trt.serve.ranking import Ranking
from exp3rt_trt.serve.scores import Scorer

if TYPE_CHECKING:
    from exp3rt_trt.reranker import Reranker
    from exp3rt_trt.serve.options import ServeOptions
    from exp3rt_trt.serve.stored import StoredProfiles
    from exp3rt_trt.serve.traces import Traces


def make_app(
    reranker: Reranker,
    options: ServeOptions,
    store: StoredProfiles | None = None,
    traces: Traces | None = None,
) -> FastAPI:
    """Return the application that serves a Reranker; what it is given stays the caller's to close.

    Its `state.ranking` is told by the server to hand back what it cannot finish.
    """
    app = FastAPI(title="exp3rt_trt")
    app.state.ranking = ranking = Ranking(reranker, options)
    scorer = Scorer(reranker)
    metrics = Metrics()
    app.include_router(operations.routes(ranking, metrics))
    app.include_router(native.routes(ranking, store))
    app.include_router(compatible.routes(ranking, scorer, options.model_name))
    app.include_router(kserve.routes(ranking, scorer, options.model_name))
    add_errors(app)
    app.add_middleware(Guard, options=options, admission=ranking.admission)
    app.add_middleware(Observe, ranking=ranking, metrics=metrics, traces=traces)
    return app
