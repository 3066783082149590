"""What every recorded JSON says about where it came from, and the few numbers that are computed of runs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
TEXTS = {"user_id", "item_id", "reasoning", "prefix", "suffix"}  # never recorded


def host() -> dict[str, Any]:
    """Return the CPU's name and those of its instruction sets that matter here, cores, and versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {
        "cpu": facts.get("model name", platform.processor()),
        "isa": [flag for flag in FLAGS if flag in facts.get("flags", "").split()],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "exp3rt_trt": version("exp3rt_trt"),
    }


def workload_facts(path: Path, users: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what may be said of a workload: its checksum and its sizes, no text."""
    return {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "users": len(users),
        "candidates": sum(len(user["candidates"]) for user in users),
    }


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of those that are there; None if none is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON.

    Raises:
        ValueError: if it holds what could be text of a workload.
    """
    found = sorted(_texts(record))
    if found:
        raise ValueError(f"{path}: texts and ids of a workload are not recorded: {', '.join(found)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _texts(value: object) -> set[str]:
    """Return the names of fields that may hold text of a workload; their sizes are numbers."""
    if isinstance(value, list):
        return set().union(*(_texts(part) for part in value))
    if not isinstance(value, dict):
        return set()
    own = {key for key, part in value.items() if key in TEXTS and isinstance(part, str)}
    return own.union(*(_texts(part) for part in value.values()))
