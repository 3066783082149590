"""The outermost layer: every request is answered, counted, logged and traced."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING

from exp3rt_trt.serve.faults import as_fault
from exp3rt_trt.serve.logs import log_failure, log_request
from exp3rt_trt.serve.record import Record, attach

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from exp3rt_trt.serve.metrics import Metrics
    from exp3rt_trt.serve.ranking import Ranking
    from exp3rt_trt.serve.traces import Traces

REQUEST_ID = b"x-request-id"
_USABLE = re.compile(rb"[\x21-\x7e]{1,128}")


class Observe:
    """ASGI middleware; the answer carries the X-Request-ID of the request, or one of ours."""

    def __init__(self, app: ASGIApp, ranking: Ranking, metrics: Metrics, traces: Traces | None) -> None:
        self._app = app
        self._ranking = ranking
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record(_request_id(scope))
        attach(scope, record)
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                record.status = 499 if record.code == "client_gone" else message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID, record.request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except Exception as error:  # whatever it is, it gets an answer
            log_failure(error, record.request_id)
            if not started:
                await as_fault(error).response(scope)(scope, receive, send_marked)
        finally:
            self._over(scope, record)

    def _over(self, scope: Scope, record: Record) -> None:
        duration_s = time.monotonic() - record.started_s
        route = str(getattr(scope.get("route"), "path", "other"))  # as declared: a path can hold anything
        self._metrics.observe(record, route, duration_s)
        self._metrics.update(self._ranking.admission, self._ranking.reranker.stats())
        log_request(record, route, scope["method"], duration_s)
        if self._traces is not None:
            self._traces.add(record, scope, route, duration_s)


def _request_id(scope: Scope) -> str:
    given: bytes = dict(scope["headers"]).get(REQUEST_ID, b"")
    return given.decode("ascii") if _USABLE.fullmatch(given) else uuid.uuid4().hex
