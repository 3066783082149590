"""Who runs, who waits, and who is turned away: by estimated tokens, first come, first served."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.serve.faults import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from exp3rt_trt.serve.options import ServeOptions

MEMORY_S = 10.0  # over which the rate of tokens is averaged


@dataclass(eq=False)
class _Waiter:
    tokens: int
    turn: asyncio.Future[None]


class Admission:
    """Hands out slots in front of an engine, from one event loop.

    What waits here costs nothing: it is neither tokenized nor known to the engine, which has just enough to
    fill its batches.

    Args:
        options: max_running_tokens, max_waiting_tokens and max_queue_s.
        clock: seconds, monotonic.
    """

    def __init__(self, options: ServeOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._waiters: deque[_Waiter] = deque()
        self._rate = Rate(clock)
        self.running = 0
        self.running_tokens = 0
        self.waiting_tokens = 0

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiters)

    def expected_wait_s(self, tokens: int = 0) -> float:
        """Return how long a request of so many tokens would wait, by the rate of late; 0 if none is known."""
        ahead = self.waiting_tokens + self.running_tokens - self._options.max_running_tokens
        return max(0.0, ahead + tokens) / self._rate.tokens_per_s if self._rate.tokens_per_s else 0.0

    def check(self, tokens: int = 1) -> None:
        """Turn away what finds no place.

        Raises:
            Fault: 413 for what never could, 429 for what cannot now.
        """
        limit, longest = self._options.max_waiting_tokens, self._options.max_queue_s
        if tokens > limit:
            raise Fault(413, "too_large", f"about {tokens} tokens, the limit is {limit}", "body")
        if self._is_free():
            return
        wait = self.expected_wait_s(tokens)
        retry_after_s = max(1, math.ceil(min(wait, 3600)))
        if self.waiting_tokens + tokens > limit:
            words = f"{self.waiting_tokens} tokens wait already, the limit is {limit}"
            raise Fault(429, "over_capacity", words, retry_after_s=retry_after_s)
        if wait > longest:
            words = f"the wait would be about {wait:.1f} s, the limit is {longest:g} s"
            raise Fault(429, "over_capacity", words, retry_after_s=retry_after_s)

    @asynccontextmanager
    async def slot(self, tokens: int, timeout_s: float | None) -> AsyncIterator[None]:
        """Wait for a slot, and give it back in the end.

        Args:
            tokens: of the request.
            timeout_s: for how long to wait at most; None for no limit.

        Raises:
            Fault: 413 or 429, see `check`; 504 if the time passed first.
        """
        self.check(tokens)
        await self._wait(tokens, timeout_s)
        done = 0
        try:
            yield
            done = tokens
        finally:
            self._rate.add(done, busy=True)
            self.running -= 1
            self.running_tokens -= tokens
            self._let_in()

    async def _wait(self, tokens: int, timeout_s: float | None) -> None:
        waiter = _Waiter(tokens, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self.waiting_tokens += tokens
        self._let_in()
        try:
            await asyncio.wait_for(asyncio.shield(waiter.turn), timeout_s)
        except BaseException as error:
            if waiter.turn.done():  # its turn came at the same moment
                self.running -= 1
                self.running_tokens -= tokens
            else:
                self._waiters.remove(waiter)
                self.waiting_tokens -= tokens
                waiter.turn.cancel()
            self._let_in()
            if isinstance(error, asyncio.TimeoutError):
                raise Fault(504, "deadline", "the deadline passed in the queue", "deadline_ms") from None
            raise

    def _is_free(self) -> bool:
        return not self._waiters and self.running_tokens < self._options.max_running_tokens

    def _let_in(self) -> None:
        while self._waiters and self.running_tokens < self._options.max_running_tokens:
            waiter = self._waiters.popleft()
            self._rate.add(0, busy=self.running > 0)
            self.waiting_tokens -= waiter.tokens
            self.running += 1
            self.running_tokens += waiter.tokens
            waiter.turn.set_result(None)


class Rate:
    """Tokens a second while there is something to do, an average that forgets."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()
        self._tokens = 0.0
        self._busy_s = 0.0

    @property
    def tokens_per_s(self) -> float:
        """The rate; 0 before anything was done."""
        return self._tokens / self._busy_s if self._busy_s > 0 else 0.0

    def add(self, tokens: int, *, busy: bool) -> None:
        """Count tokens that were done by now, and the time since the last call if it was a busy one."""
        now = self._clock()
        if busy:
            passed = now - self._last
            fading = math.exp(-passed / MEMORY_S)
            self._busy_s = self._busy_s * fading + passed
            self._tokens = self._tokens * fading + tokens
        self._last = now
