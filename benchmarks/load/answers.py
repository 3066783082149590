"""What became of the requests of a run: counts, latencies, and whether each got one answer, and its own."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from records import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return counts, rates and latencies.

    Args:
        rows: of `locustfile.py`; status 0 is a connection that broke.

    Returns:
        A latency begins when its request was due; `late_p99_s` is how late locust was to send it.
    """
    seconds = max(row["at_s"] + row["late_s"] + row["took_s"] for row in rows)
    admitted = [row for row in rows if row["status"] == 200]
    statuses = Counter(str(row["status"]) for row in rows)
    return {
        "requests": len(rows),
        "seconds": seconds,
        "by_status": dict(sorted(statuses.items())),
        "admitted_per_s": len(admitted) / seconds,
        **_percentiles("admitted", [row["late_s"] + row["took_s"] for row in admitted]),
        **_percentiles("turned_away", [row["took_s"] for row in rows if row["status"] == 429]),
        **_percentiles("late", [row["late_s"] for row in rows]),
    }


def faults(rows: Sequence[Row], logged: Sequence[Row]) -> dict[str, int]:
    """Return how many requests were lost, doubled, or got an answer that is not theirs.

    Args:
        rows: of `locustfile.py`.
        logged: the server's lines on requests, of these and others.
    """
    seen = Counter(row["id"] for row in rows)
    status = {row["id"]: row["status"] for row in rows if row["status"]}
    told = [line for line in logged if line["request_id"] in status]
    served = Counter(line["request_id"] for line in told)
    return {
        "lost": len(set(status) - set(served)),
        "doubled": sum(count > 1 for count in (seen | served).values()),
        "not_their_own": sum(not row["own"] for row in rows),
        "logged_otherwise": sum(line["status"] != status[line["request_id"]] for line in told),
    }


def broken(rows: Sequence[Row]) -> dict[str, float]:
    """Return how many requests had no answer when a worker was killed, and over how long their ends lie."""
    ends = [row["at_s"] + row["late_s"] + row["took_s"] for row in rows if row["status"] == 0]
    if not ends:
        return {"broken": 0}
    after = [row for row in rows if row["at_s"] > max(ends)]
    return {
        "broken": len(ends),
        "broken_within_s": max(ends) - min(ends),
        "asked_after": len(after),
        "ranked_after": sum(row["status"] == 200 for row in after),
        "turned_away_after": sum(row["status"] == 429 for row in after),
    }


def _percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_p{p}_s": percentile(values, p) for p in (50, 99)} if values else {}
