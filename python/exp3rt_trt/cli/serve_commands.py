"""`exp3rt-trt serve`: a Reranker behind HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from exp3rt_trt.cli.options import CacheOption, EngineOption, Scale, ThreadsOption


def serve(
    *,
    engine: EngineOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="EXP3RT_TRT_API_KEY", help="Key that every route but /health asks for."),
    ] = None,
    scale: Annotated[Scale, typer.Option(help="Highest rating.")] = Scale.five,
    max_waiting_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens, estimated, of requests not yet answered.")
    ] = 200_000,
    max_candidates: Annotated[int, typer.Option(min=1, help="Most candidates of a request.")] = 1000,
    max_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of a request.")] = 8_000_000,
    threads: ThreadsOption = 0,
    kv_cache_mib: CacheOption = 1024,
) -> None:
    """Serve an engine over HTTP."""
    from exp3rt_trt.extras import require  # noqa: PLC0415

    require("fastapi", "serve")
    uvicorn = require("uvicorn", "serve")
    from exp3rt_trt.rating import RatingScale  # noqa: PLC0415
    from exp3rt_trt.reranker import Reranker  # noqa: PLC0415
    from exp3rt_trt.serve.app import make_app  # noqa: PLC0415
    from exp3rt_trt.serve.options import ServeOptions  # noqa: PLC0415

    ratings = RatingScale.one_to_five() if scale is Scale.five else RatingScale.one_to_ten()
    options = ServeOptions(api_key or None, max_waiting_tokens, max_candidates, max_bytes)
    with Reranker.from_pretrained(
        engine, scale=ratings, threads=threads, kv_cache_mib=kv_cache_mib
    ) as reranker:
        uvicorn.run(make_app(reranker, options), host=host, port=port, timeout_graceful_shutdown=30)
