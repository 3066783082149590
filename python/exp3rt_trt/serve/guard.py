"""What is checked before a request is read: its key, whether there is a place for it, and its size."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from exp3rt_trt.serve.faults import Fault

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from exp3rt_trt.serve.admission import Admission
    from exp3rt_trt.serve.options import ServeOptions

OPEN = ("/health", "/v2/health/live", "/v2/health/ready")


class Guard:
    """ASGI middleware: 401 without the key, 429 when full, 413 for a body over the limit, however sent."""

    def __init__(self, app: ASGIApp, options: ServeOptions, admission: Admission) -> None:
        self._app = app
        self._options = options
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_key(scope)
            if scope["method"] == "POST":  # what ranks; when full, nobody's body is read
                self._admission.check()
            body = await self._read(receive)
        except Fault as fault:
            await fault.response(scope)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replayed(body, receive), send)

    def _check_key(self, scope: Scope) -> None:
        key = self._options.api_key
        if key is None or scope["path"] in OPEN:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + key.encode()):
            raise Fault(401, "unauthorized", "this route needs the header Authorization: Bearer KEY")

    async def _read(self, receive: Receive) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._options.max_bytes:
                raise Fault(413, "too_large", f"the body is over {self._options.max_bytes} bytes", "body")
            if not message.get("more_body", False):
                return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
