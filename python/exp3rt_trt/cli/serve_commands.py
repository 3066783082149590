"""`exp3rt-trt serve`: a Reranker behind HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from exp3rt_trt.cli.options import (
    CacheOption,
    EngineOption,
    ItemKvDtype,
    ScaleOption,
    ThreadsOption,
    scale_for,
)


def serve(
    *,
    engine: EngineOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="EXP3RT_TRT_API_KEY", help="Key that every route but those of health asks for."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="SQLite file of profiles, for users and items by id.")
    ] = None,
    scale: ScaleOption = None,
    max_reasoning_tokens: Annotated[int, typer.Option(min=1, help="Where reasoning is cut off.")] = 256,
    catalog: Annotated[
        Path | None, typer.Option(help="Catalogue of items that were computed ahead of time.")
    ] = None,
    item_cache_mib: Annotated[
        int, typer.Option(min=1, help="Memory for the items of a segmented student, in MiB.")
    ] = 1024,
    item_kv_dtype: Annotated[
        ItemKvDtype | None,
        typer.Option(help="Type of their keys and values; default: as the catalogue, or the engine."),
    ] = None,
    max_running_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens, estimated, that keep the engine busy; beyond, requests wait.")
    ] = 4096,
    max_waiting_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens, estimated, of requests that wait.")
    ] = 200_000,
    max_queue_s: Annotated[float, typer.Option(min=0, help="Longest expected wait in seconds.")] = 0.5,
    max_candidates: Annotated[int, typer.Option(min=1, help="Most candidates of a request.")] = 1000,
    max_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of a request.")] = 8_000_000,
    grace_s: Annotated[
        float, typer.Option(min=0, help="Seconds for admitted requests to finish at the end.")
    ] = 30.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with an engine of its own.")] = 1,
    threads: ThreadsOption = 0,
    kv_cache_mib: CacheOption = 1024,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(envvar="OTEL_EXPORTER_OTLP_ENDPOINT", help="Collector of traces (OTLP over HTTP)."),
    ] = None,
) -> None:
    """Serve an engine over HTTP."""
    from exp3rt_trt.errors import InvalidInputError  # noqa: PLC0415
    from exp3rt_trt.extras import require  # noqa: PLC0415

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, "serve")
    from exp3rt_trt.serve.options import ServeOptions  # noqa: PLC0415
    from exp3rt_trt.serve.server import serve as run  # noqa: PLC0415
    from exp3rt_trt.serve.worker import Worker  # noqa: PLC0415

    if store is not None and not store.is_file():
        raise InvalidInputError(f"{store}: no such file")
    options = ServeOptions(
        api_key=api_key or None,
        model_name=Path(engine).name,
        max_running_tokens=max_running_tokens,
        max_waiting_tokens=max_waiting_tokens,
        max_queue_s=max_queue_s,
        max_candidates=max_candidates,
        max_bytes=max_bytes,
        grace_s=grace_s,
    )
    of_reranker = {
        "scale": scale_for(engine, scale),
        "threads": threads or max(1, len(os.sched_getaffinity(0)) // workers),
        "kv_cache_mib": kv_cache_mib,
        "max_reasoning_tokens": max_reasoning_tokens,
        "item_cache_mib": item_cache_mib,
        "item_kv_dtype": item_kv_dtype.value if item_kv_dtype is not None else "",
        "catalog": catalog,
    }
    run(Worker(engine, options, of_reranker, store, otlp_endpoint or None), host, port, workers)
