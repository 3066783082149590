"""The one shape of an error: {"error": {"code", "message", "field"}}."""

from __future__ import annotations

from fastapi.responses import JSONResponse


class Fault(Exception):  # noqa: N818  (an answer, not a failure of this program)
    """An answer that is an error.

    Args:
        status: HTTP status.
        code: for programs, such as "over_capacity".
        message: for people; names the limit.
        field: of the request, where one is at fault.
        retry_after_s: seconds after which to try again, for the header.
    """

    def __init__(
        self, status: int, code: str, message: str, field: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.retry_after_s = retry_after_s

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        body = {"error": {"code": self.code, "message": str(self), "field": self.field}}
        return JSONResponse(body, self.status, headers)
