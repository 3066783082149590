"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeOptions:
    """Limits of a server.

    Args:
        api_key: that every route but health asks for; None for none.
        max_waiting_tokens: most estimated tokens of requests that were admitted and are not answered.
        max_candidates: most candidates of a request.
        max_bytes: most bytes of a request's body.
    """

    api_key: str | None = None
    max_waiting_tokens: int = 200_000
    max_candidates: int = 1000
    max_bytes: int = 8_000_000
