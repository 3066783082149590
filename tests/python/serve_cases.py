"""A server on loopback and what to ask it, for all tests of serving."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

httpx = pytest.importorskip("httpx", reason="the extra test is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra test is not installed")

from exp3rt_trt.serve.app import make_app  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exp3rt_trt import Reranker
    from exp3rt_trt.serve.options import ServeOptions
    from fastapi import FastAPI

QUERY = "Likes slow films about work."
TEXTS = ["A baker at work.", "A war.", "A ship at sea."]
BODY = {"user": {"profile": QUERY}, "items": [{"item_id": t, "description": t} for t in TEXTS]}
PROFILE = "/v1/rerank/profile"
# Far more than any test waits for.
LONG = {
    **BODY,
    "mode": "reason",
    "items": [{"item_id": str(n), "description": f"Number {n}. " * 20} for n in range(500)],
}


@contextmanager
def served(reranker: Reranker, options: ServeOptions, **parts: Any) -> Iterator[httpx.Client]:
    """Serves on a free port; in the end, every slot was given back."""
    app = make_app(reranker, options, **parts)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
        admission = app.state.ranking.admission
        until(lambda: admission.running == admission.waiting == 0)
        assert admission.running_tokens == admission.waiting_tokens == 0
    finally:
        server.should_exit = True
        thread.join()


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits for what must come; how long it takes is not tested."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
    return found


def metric(text: str, name: str) -> float:
    """Gives the sum of a metric's samples."""
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def ask(app: FastAPI, *bodies: dict[str, Any], path: str = PROFILE) -> list[httpx.Response]:
    """Asks an application in this process, all at once."""

    async def main() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=60) as client:
            return await asyncio.gather(*(client.post(path, json=body) for body in bodies))

    return asyncio.run(main())
