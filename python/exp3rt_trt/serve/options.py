"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeOptions:
    """Limits of a server.

    Tokens are estimated before anything is tokenized: a quarter of the bytes of the texts, and what a
    reasoning may be long.

    Args:
        api_key: that every route but health asks for; None for none.
        model_name: in the routes of KServe.
        max_running_tokens: where the engine is kept busy enough: beyond, requests wait here. By default, two
            of the CPU's largest batches: one is computed, and the next is there.
        max_waiting_tokens: most tokens of requests that wait; also the most of one request.
        max_queue_s: longest expected wait with which a request is admitted.
        max_candidates: most candidates of a request.
        max_bytes: most bytes of a request's body.
        grace_s: how long what was admitted may go on when the server is told to end.
    """

    api_key: str | None = None
    model_name: str = "exp3rt"
    max_running_tokens: int = 4096
    max_waiting_tokens: int = 200_000
    max_queue_s: float = 0.5
    max_candidates: int = 1000
    max_bytes: int = 8_000_000
    grace_s: float = 30.0
