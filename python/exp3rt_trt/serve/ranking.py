"""A request on its way through the Reranker: admitted, ranked, given up if its client goes away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from exp3rt_trt.serve.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import Request

    from exp3rt_trt.prompts import RankingMode
    from exp3rt_trt.reranker import Reranker
    from exp3rt_trt.results import RankedResults
    from exp3rt_trt.serve.options import ServeOptions

BYTES_PER_TOKEN = 4  # of English, roughly; the budget is a bound on work, not a count
POLL_S = 0.05
TENANT = "X-Tenant"  # a header for the gateway in front to set: tenants share no keys and values


class Ranking:
    """Ranks for many clients at once, within a budget of tokens that are admitted and not answered."""

    def __init__(self, reranker: Reranker, options: ServeOptions) -> None:
        self.reranker = reranker
        self._options = options
        self.waiting_tokens = 0
        self.running = 0

    async def rank(
        self,
        request: Request,
        user: dict[str, Any] | str,
        items: Sequence[dict[str, Any] | str],
        *,
        field: str,
        top_k: int | None = None,
        mode: RankingMode = "score",
        deadline_ms: int | None = None,
    ) -> RankedResults:
        """Rank, or raise the Fault that answers the request; `field` names the candidates in it."""
        if len(items) > self._options.max_candidates:
            limit = self._options.max_candidates
            raise Fault(422, "too_many", f"{field}: {len(items)} candidates, the limit is {limit}", field)
        tokens = _tokens(user) + sum(map(_tokens, items))
        self._admit(tokens)
        try:
            timeout_s = None if deadline_ms is None else deadline_ms / 1000
            tenant = request.headers.get(TENANT, "")
            work = self.reranker.arank(
                user, items, top_k=top_k, mode=mode, timeout_s=timeout_s, cache_salt=tenant
            )
            results = await _unless_gone(request, asyncio.ensure_future(work))
        finally:
            self.waiting_tokens -= tokens
            self.running -= 1
        if results and all(item.status == "expired" for item in results):
            raise Fault(504, "deadline", f"deadline_ms: {deadline_ms} ms passed first", "deadline_ms")
        return results

    def _admit(self, tokens: int) -> None:
        limit = self._options.max_waiting_tokens
        if tokens > limit:
            raise Fault(413, "too_large", f"about {tokens} tokens, the limit is {limit}", "body")
        if self.waiting_tokens + tokens > limit:
            raise Fault(429, "over_capacity", f"{limit} tokens are waiting already", retry_after_s=1)
        self.waiting_tokens += tokens
        self.running += 1


async def _unless_gone(request: Request, work: asyncio.Future[RankedResults]) -> RankedResults:
    try:
        while True:
            done, _ = await asyncio.wait([work], timeout=POLL_S)
            if done:
                return work.result()
            if await request.is_disconnected():
                raise Fault(499, "client_gone", "the client went away")
    finally:
        work.cancel()


def _tokens(texts: dict[str, Any] | str) -> int:
    values = [texts] if isinstance(texts, str) else [text for text in texts.values() if isinstance(text, str)]
    return 1 + sum(len(text.encode("utf-8", "replace")) for text in values) // BYTES_PER_TOKEN
