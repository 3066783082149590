"""Work that is started in a thread, for those who wait in an event loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


class Cancellable(Protocol):
    """What can be called off."""

    def cancel(self) -> None:
        """Call off what is not finished."""


_Work = TypeVar("_Work", bound=Cancellable)


async def in_thread(start: Callable[[float | None], _Work], timeout_s: float | None) -> _Work:
    """Start work without blocking the event loop; if the task is cancelled meanwhile, so is the work.

    Args:
        start: tokenizes and submits; gets what is left of the time limit, which may be next to nothing.
        timeout_s: from now on; None for no limit.

    Returns:
        The work under way.
    """
    begun = time.monotonic()

    def run() -> _Work:
        return start(None if timeout_s is None else max(timeout_s - (time.monotonic() - begun), 1e-9))

    starting = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_call_off)
        raise


def _call_off(starting: asyncio.Future[_Work]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().cancel()
