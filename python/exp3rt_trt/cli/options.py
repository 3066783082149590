"""Options that several commands have."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class Mode(str, Enum):
    """How a rating is made."""

    score = "score"
    reason = "reason"


class RankingMode(str, Enum):
    """How a ranking is made of ratings."""

    score = "score"
    reason = "reason"
    adaptive = "adaptive"


class Dtype(str, Enum):
    """Type of an engine's weights."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class ItemKvDtype(str, Enum):
    """Type of the keys and values of items, if it is not the engine's own."""

    int8 = "int8"


class Scale(str, Enum):
    """Highest rating of the scale."""

    five = "5"
    ten = "10"


class TeacherTask(str, Enum):
    """What a teacher is asked for."""

    extraction = "extraction"
    profiles = "profiles"
    rationale = "rationale"


class Extraction(str, Enum):
    """How preferences are extracted from reviews."""

    clauses = "clauses"
    lists = "lists"


class ReviewChoice(str, Enum):
    """Which reviews stand behind an item's profile first."""

    helpful = "helpful"
    newest = "newest"
    similar = "similar"


class Method(str, Enum):
    """Shape of a calibration."""

    isotonic = "isotonic"
    linear = "linear"


EngineOption = Annotated[
    str,
    typer.Option(
        help="Engine directory; or a checkpoint, a GGUF file, a hub name, to build one in the cache."
    ),
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Cores to compute on; 0 for all.")]
CacheOption = Annotated[int, typer.Option(min=1, help="Memory for keys and values, in MiB.")]
