"""Logs as one JSON object a line. No text of users or items gets into them: see `Record`."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from exp3rt_trt.serve.record import Record

LOGGER = logging.getLogger("exp3rt_trt.serve")


class JsonFormatter(logging.Formatter):
    """A line with time, level, logger, message, and the fields given as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error_type"] = record.exc_info[0].__name__
            line["trace"] = places(record.exc_info[2])
        return json.dumps(line, ensure_ascii=False)


def configure() -> None:
    """Send our log and uvicorn's to standard error; uvicorn's own lines on requests are off."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("exp3rt_trt", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def log_request(record: Record, route: str, method: str, duration_s: float) -> None:
    """Write the line of a request that is over."""
    fields = {
        "request_id": record.request_id,
        "method": method,
        "route": route,
        "status": record.status,
        "code": record.code,
        "duration_s": round(duration_s, 6),
        "mode": record.mode,
        "candidates": record.candidates,
        "estimated_tokens": record.tokens,
        "queue_s": record.queue_s,
        "compute_s": record.compute_s,
    }
    LOGGER.info("request", extra={"fields": fields})


def log_failure(error: Exception, request_id: str) -> None:
    """Write where an error came from that nobody foresaw; its words may be a user's and are left out."""
    fields = {
        "request_id": request_id,
        "error_type": type(error).__name__,
        "trace": places(error.__traceback__),
    }
    LOGGER.error("failure", extra={"fields": fields})


def places(trace: TracebackType | None) -> list[str]:
    """Return the places of a traceback, without the words of the error."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
