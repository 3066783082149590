"""A request on its way through the Reranker: admitted, ranked, given up if its client goes away."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.serve.admission import Admission
from exp3rt_trt.serve.faults import Fault
from exp3rt_trt.serve.record import record_of
from exp3rt_trt.serve.words import fault_of, renamed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from fastapi import Request

    from exp3rt_trt.inputs import ItemLike, UserLike
    from exp3rt_trt.prompts import RankingMode
    from exp3rt_trt.reranker import Reranker
    from exp3rt_trt.results import RankedItem, RankedResults
    from exp3rt_trt.serve.options import ServeOptions
    from exp3rt_trt.streams import CandidateStream

BYTES_PER_TOKEN = 4  # of English, roughly; the budget is a bound on work, not a count
TENANT = "X-Tenant"  # a header for the gateway in front to set: tenants share no keys and values
_T = TypeVar("_T")


@dataclass(frozen=True)
class Work:
    """What a request asks for.

    `field` and `user_field` are its names of the candidates and of the user's profile; `positions` are the
    candidates' places there, if some are left out.
    """

    user: UserLike
    items: Sequence[ItemLike]
    field: str
    top_k: int | None = None
    mode: RankingMode = "score"
    deadline_ms: int | None = None
    user_field: str = "user.profile"
    positions: Sequence[int] | None = None

    def place(self, number: int) -> str:
        """Return the request's name of a candidate."""
        return f"{self.field}[{number if self.positions is None else self.positions[number]}]"


class Ranking:
    """Ranks for many clients at once, in front of one Reranker."""

    def __init__(self, reranker: Reranker, options: ServeOptions) -> None:
        self.reranker = reranker
        self.admission = Admission(options)
        self._options = options
        self._handing_back: asyncio.Event | None = None

    async def rank(self, request: Request, work: Work) -> RankedResults:
        """Rank, or raise the Fault that answers the request."""
        async with self._slot(request, work) as limits:
            ranked = await self.while_wanted(
                request, self.reranker.arank(work.user, work.items, **limits, mode=work.mode)
            )
        self._note(request, ranked)
        if ranked and all(item.status == "expired" for item in ranked):
            raise _late(work)
        return replace(ranked, items=tuple(renamed(item, work) for item in ranked))

    @asynccontextmanager
    async def stream(self, request: Request, work: Work) -> AsyncIterator[Running]:
        """Rank candidate by candidate, or raise the Fault that answers the request; see `rank`."""
        async with self._slot(request, work) as limits:
            if work.mode == "adaptive":
                raise Fault(422, "invalid", 'mode: "adaptive" cannot be streamed', "mode")
            stream = await self.while_wanted(
                request, self.reranker.stream(work.user, work.items, **limits, mode=work.mode)
            )
            try:
                yield Running(self, request, work, stream)
            finally:
                stream.cancel()
                self._note(request, stream.ranking())

    def check_number(self, candidates: int, field: str) -> None:
        """Turn away more candidates than the limit.

        Raises:
            Fault: 422 naming the field and the limit.
        """
        limit = self._options.max_candidates
        if candidates > limit:
            raise Fault(422, "too_many", f"{field}: {candidates} candidates, the limit is {limit}", field)

    def hand_back(self) -> None:
        """Answer 503 to whoever has no answer yet."""
        self._event().set()

    @asynccontextmanager
    async def _slot(self, request: Request, work: Work) -> AsyncIterator[dict[str, Any]]:
        arrived = time.monotonic()
        record = record_of(request.scope)
        record.mode, record.candidates = work.mode, len(work.items)
        self.check_number(len(work.items), work.field)
        record.tokens = tokens = self._tokens(work)
        timeout_s = None if work.deadline_ms is None else work.deadline_ms / 1000
        async with AsyncExitStack() as stack:
            waiting = stack.enter_async_context(self.admission.slot(tokens, timeout_s))
            await self.while_wanted(request, waiting)
            record.queue_s = time.monotonic() - arrived
            rest = None if timeout_s is None else timeout_s - record.queue_s
            if rest is not None and rest <= 0:
                raise _late(work)
            salt = request.headers.get(TENANT, "")
            try:
                yield {"top_k": work.top_k, "timeout_s": rest, "cache_salt": salt}
            except InvalidInputError as error:
                raise fault_of(error, work) from error

    def _note(self, request: Request, ranked: RankedResults) -> None:
        record = record_of(request.scope)
        record.queue_s = (record.queue_s or 0.0) + ranked.queue_s
        record.compute_s = ranked.compute_s

    async def while_wanted(self, request: Request, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Await; give up when the client goes away, or when everything is handed back."""
        work = asyncio.ensure_future(coroutine)
        gone = asyncio.ensure_future(_disconnected(request))
        ending = asyncio.ensure_future(self._event().wait())
        try:
            await asyncio.wait([work, gone, ending], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if gone.done():
                raise Fault(499, "client_gone", "the client went away")
            raise Fault(503, "shutting_down", "the server is going down", retry_after_s=1)
        finally:
            gone.cancel()
            ending.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait([work])  # its slot is free before anyone is answered

    def _event(self) -> asyncio.Event:
        if self._handing_back is None:  # Python 3.10 ties it to the loop that is running
            self._handing_back = asyncio.Event()
        return self._handing_back

    def _tokens(self, work: Work) -> int:
        texts = _tokens(work.user) + sum(map(_tokens, work.items))
        reasoned = {"score": 0, "reason": len(work.items)}.get(work.mode, work.top_k or 0)
        return texts + reasoned * self.reranker.max_reasoning_tokens


class Running:
    """A stream under way: candidates as they finish, then the ranking."""

    def __init__(self, ranking: Ranking, request: Request, work: Work, stream: CandidateStream) -> None:
        self._ranking = ranking
        self._request = request
        self._work = work
        self._stream = stream
        self._items = stream.__aiter__()

    async def next(self) -> RankedItem | None:
        """Return the next candidate, None behind the last; or raise the Fault that ends the stream."""
        return await self._ranking.while_wanted(self._request, self._next())

    def ranking(self) -> RankedResults:
        """Return the ranking of those that are finished."""
        return self._stream.ranking()

    async def _next(self) -> RankedItem | None:
        async for item in self._items:
            return renamed(item, self._work)
        return None


def _late(work: Work) -> Fault:
    return Fault(504, "deadline", f"deadline_ms: {work.deadline_ms} ms passed first", "deadline_ms")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _tokens(source: UserLike | ItemLike) -> int:
    if isinstance(source, str):
        values: list[object] = [source]
    else:
        values = list(source.values()) if isinstance(source, dict) else list(vars(source).values())
    texts = (value for value in values if isinstance(value, str))
    return 1 + sum(len(text.encode("utf-8", "replace")) for text in texts) // BYTES_PER_TOKEN
