"""What is known of a request, for metrics, logs and traces; none of its text."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

_KEY = "exp3rt_trt.record"


@dataclass
class Record:
    """One request.

    Args:
        request_id: the client's X-Request-ID, or ours.
        started_ns: Unix time.
        started_s: on the monotonic clock.
        mode: how it is ranked; None for what ranks nothing.
        candidates: how many were sent.
        tokens: the estimate that admission goes by.
        queue_s: from admission until the first token is computed.
        compute_s: from there to the last result.
        status: HTTP status; 499 if the client went away first.
        code: of the error, if it is one.
    """

    request_id: str
    started_ns: int = field(default_factory=time.time_ns)
    started_s: float = field(default_factory=time.monotonic)
    mode: str | None = None
    candidates: int = 0
    tokens: int = 0
    queue_s: float | None = None
    compute_s: float | None = None
    status: int = 499
    code: str | None = None


def attach(scope: Scope, record: Record) -> None:
    """Tie a record to a request."""
    scope[_KEY] = record


def record_of(scope: Scope) -> Record:
    """Return the request's record; an unattached one for a request that nobody observes."""
    record: Record = scope.setdefault(_KEY, Record(""))
    return record
