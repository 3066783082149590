"""One process that serves, with an engine of its own."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from exp3rt_trt.serve import logs

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from exp3rt_trt.serve.options import ServeOptions
    from exp3rt_trt.serve.ranking import Ranking

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
LAST_WORDS_S = 2  # to send the answers of what was handed back


@dataclass(frozen=True)
class Worker:
    """What a process needs to serve; can be sent to it.

    Args:
        engine: see `Reranker.from_pretrained`.
        options: of the server.
        reranker: more arguments of `Reranker.from_pretrained`.
        store: file of stored profiles, or None.
        otlp_endpoint: where traces go, or None.
    """

    engine: str
    options: ServeOptions
    reranker: dict[str, Any]
    store: Path | None = None
    otlp_endpoint: str | None = None

    def run(self, listening: socket.socket) -> None:
        """Serve on a bound socket until a signal."""
        logs.configure()
        _forget_the_dead()
        with ExitStack() as stack:
            app = self._open(stack)
            gc.collect()
            gc.freeze()  # what is there now stays: walking it again and again would stop everyone for long
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=int(self.options.grace_s + LAST_WORDS_S),
            )
            Server(config, app.state.ranking, self.options.grace_s).run(sockets=[listening])

    def _open(self, stack: ExitStack) -> FastAPI:
        from exp3rt_trt.reranker import Reranker  # noqa: PLC0415  (heavy, and not needed by the supervisor)
        from exp3rt_trt.serve.app import make_app  # noqa: PLC0415
        from exp3rt_trt.serve.stored import StoredProfiles  # noqa: PLC0415
        from exp3rt_trt.serve.traces import Traces  # noqa: PLC0415

        reranker = stack.enter_context(Reranker.from_pretrained(self.engine, **self.reranker))
        store = stack.enter_context(closing(StoredProfiles(self.store))) if self.store is not None else None
        endpoint = self.otlp_endpoint
        traces = stack.enter_context(closing(Traces(endpoint))) if endpoint is not None else None
        return make_app(reranker, self.options, store, traces)


class Server(uvicorn.Server):
    """Uvicorn, with an end on which every request that was admitted gets an answer.

    Told to end, it takes no new connections and lets what was admitted go on for `grace_s`; what is not
    finished then is answered with 503, so that the client can turn to another server.

    Args:
        config: with an application of `make_app`.
        ranking: that application's.
        grace_s: seconds.
    """

    def __init__(self, config: uvicorn.Config, ranking: Ranking, grace_s: float) -> None:
        super().__init__(config)
        self._ranking = ranking
        self._grace_s = grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as the class says."""
        timer = asyncio.get_running_loop().call_later(self._grace_s, self._ranking.hand_back)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


def _forget_the_dead() -> None:
    """Take the gauges of workers that were killed out of the metrics."""
    folder = os.environ.get(METRICS_FOLDER)
    if folder is None:
        return
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

    for path in Path(folder).glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid)
