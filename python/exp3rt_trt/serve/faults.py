"""The one shape of an error: {"error", "code", "field"}; clients of KServe and TEI want words in `error`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from exp3rt_trt.errors import EngineError, InvalidInputError
from exp3rt_trt.serve.record import record_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI, Request
    from starlette.types import Scope


class ErrorBody(BaseModel):
    """Body of every answer that is an error."""

    error: str
    code: str
    field: str | None


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

    def body(self) -> dict[str, Any]:
        """Return the answer's JSON."""
        return {"error": str(self), "code": self.code, "field": self.field}

    def response(self, scope: Scope) -> JSONResponse:
        """Return the answer, and note the code in the request's record."""
        record_of(scope).code = self.code
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return JSONResponse(self.body(), self.status, headers)


# What the OpenAPI document says of every route that ranks.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in (
        (400, "the body is no JSON of this shape"),
        (401, "the key is missing or wrong"),
        (404, "the store or the server does not know the name"),
        (413, "more bytes or tokens than the limit"),
        (415, "the header Content-Type does not say that the body is JSON"),
        (422, "a field cannot be used"),
        (429, "full; Retry-After says for how long"),
        (503, "the engine failed, or the server is going down"),
        (504, "the deadline passed first"),
    )
}
_TYPES = ("str", "TextDocument", "list[str]", "list[float]", "list[list[str]]")  # alternatives in `schemas`


def as_fault(error: Exception) -> Fault:
    """Return the answer to an error; one that nobody foresaw tells its kind and keeps its words to itself."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, InvalidInputError):
        return Fault(422, "invalid", str(error))
    if isinstance(error, EngineError):
        return Fault(503, "engine", str(error))
    if isinstance(error, RequestValidationError):
        return _fault_of_body(error)
    if isinstance(error, HTTPException):
        field = "body" if error.status_code == 400 else None  # FastAPI could not read it
        return Fault(error.status_code, "http", str(error.detail), field)
    return Fault(500, "internal", f"{type(error).__name__} in the server; its log has the place")


def _fault_of_body(error: RequestValidationError) -> Fault:
    if isinstance(error.body, bytes):  # FastAPI parsed nothing
        words = "Content-Type: this header must say application/json, as the body is"
        return Fault(415, "content_type", words, "Content-Type")
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        place = "".join(f" at character {part}" for part in first["loc"][1:])
        return Fault(422, "invalid", f"body: not valid JSON: {first['ctx']['error']}{place}", "body")
    field = _name(first["loc"])
    return Fault(422, "invalid", f"{field}: {first['msg']}", field)


def _name(place: Sequence[str | int]) -> str:
    """Return a field as the client wrote it: without pydantic's "body" in front and its names of types."""
    parts = [part for part in place[place[:1] == ("body",) :] if part not in _TYPES]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return name.removeprefix(".") or "body"


def add_errors(app: FastAPI) -> None:
    """Give every foreseen error of an application the one shape; `Observe` sees to the others."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        response = as_fault(error).response(request.scope)
        if isinstance(error, HTTPException):
            response.headers.update(error.headers or {})
        return response

    for kind in (Fault, InvalidInputError, EngineError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
