"""Our own route: users and items in full or by id, all of a rating, streams."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from exp3rt_trt.serve.faults import RESPONSES, Fault, as_fault
from exp3rt_trt.serve.logs import log_failure
from exp3rt_trt.serve.ranking import Running, Work
from exp3rt_trt.serve.record import record_of
from exp3rt_trt.serve.schemas import ProfileAnswer, ProfileRequest

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from exp3rt_trt.inputs import UserLike
    from exp3rt_trt.results import RankedItem, RankedResults
    from exp3rt_trt.serve.ranking import Ranking
    from exp3rt_trt.serve.stored import StoredProfiles

LINES = "application/x-ndjson"
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {LINES: {}}, "description": "the ranking; with stream, lines of JSON as they come"}
}


def routes(ranking: Ranking, store: StoredProfiles | None) -> APIRouter:
    """Return /v1/rerank/profile."""
    router = APIRouter()

    @router.post("/v1/rerank/profile", response_model=ProfileAnswer, responses={**RESPONSES, **_STREAMED})
    async def profile(body: ProfileRequest, request: Request) -> Response:
        if body.mode == "adaptive" and body.top_k is None:
            words = "top_k is missing: adaptive mode reasons for those that can be among them"
            raise Fault(422, "invalid", words, "top_k")
        work, unknown = await _look_up(body, store, ranking)
        if not body.stream:
            return JSONResponse(answer(await ranking.rank(request, work), unknown))
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(ranking.stream(request, work))
            first = await running.next()
            if first is not None and first.status == "expired":
                raise Fault(
                    504, "deadline", f"deadline_ms: {body.deadline_ms} ms passed first", "deadline_ms"
                )
            return Lines(running, first, unknown, stack.pop_all())

    return router


class Lines(Response):
    """Candidates as they finish, one JSON object a line, then the ids in order, or the error."""

    media_type = LINES

    def __init__(
        self, running: Running, first: RankedItem | None, unknown: list[dict[str, Any]], stack: AsyncExitStack
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._running = running
        self._first = first
        self._unknown = unknown
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send them, and give the slot back in the end."""
        async with self._stack:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                await self._send_lines(send)
            except Exception as error:  # the status is sent: only a line can tell
                fault = as_fault(error)
                record = record_of(scope)
                record.code = fault.code
                if fault.status == 500:
                    log_failure(error, record.request_id)
                if fault.status != 499:
                    await _line(send, fault.body())
            await send({"type": "http.response.body", "body": b""})

    async def _send_lines(self, send: Send) -> None:
        for each in self._unknown:
            await _line(send, {"candidate": each})
        item = self._first
        while item is not None:
            await _line(send, {"candidate": item.to_dict()})
            item = await self._running.next()
        whole = answer(self._running.ranking(), [])
        ids = [each["item_id"] for each in whole.pop("results") if each["rank"] is not None]
        await _line(send, {"ranking": ids, **whole})


def answer(ranked: RankedResults, unknown: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a ranking as JSON; candidates that the store does not know come last."""
    return {
        "user_id": ranked.user_id,
        "results": [*ranked.to_dicts(), *unknown],
        "partial": any(item.status == "expired" for item in ranked),
        "timings": {"queue_s": ranked.queue_s, "compute_s": ranked.compute_s},
    }


async def _line(send: Send, content: dict[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False) + "\n"
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _look_up(
    body: ProfileRequest, store: StoredProfiles | None, ranking: Ranking
) -> tuple[Work, list[dict[str, Any]]]:
    """Return what to rank, and as answers those items that the store does not know."""
    given = body.user.model_dump() if body.user is not None else None
    user: UserLike | None = given
    if body.user_id is not None:
        user = await _needed(store, "user_id").user(body.user_id)
    if user is None:
        raise Fault(404, "not_found", f"user_id: no review by user {body.user_id!r} in the store", "user_id")
    asked = (body.top_k, body.mode, body.deadline_ms)
    if body.item_ids is None:
        return Work(user, [item.model_dump() for item in body.items or ()], "items", *asked), []
    ranking.check_number(len(body.item_ids), "item_ids")
    user_id = body.user_id if given is None else given["user_id"]
    found = await _needed(store, "item_ids").items(body.item_ids, user_id)
    unknown = [
        _unknown(number, item_id)
        for number, (item_id, item) in enumerate(zip(body.item_ids, found, strict=True))
        if item is None
    ]
    known = {number: item for number, item in enumerate(found) if item is not None}
    return Work(user, list(known.values()), "item_ids", *asked, positions=list(known)), unknown


def _needed(store: StoredProfiles | None, field: str) -> StoredProfiles:
    if store is None:
        raise Fault(422, "no_store", f"{field}: this server was started without --store", field)
    return store


def _unknown(number: int, item_id: str) -> dict[str, Any]:
    names = ("rank", "title", "expected_rating", "probabilities", "reasoning")
    error = f"item_ids[{number}]: nothing is known of item {item_id!r}"
    return {**dict.fromkeys(names), "item_id": item_id, "status": "invalid", "error": error}
