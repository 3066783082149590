"""Options that several commands have."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exp3rt_trt.rating import RatingScale


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


ScaleOption = Annotated[
    Scale | None, typer.Option(help="Highest rating; by default what the engine says, else 5.")
]


def scale_for(engine: Path | str, chosen: Scale | None) -> RatingScale:
    """Return the scale that was chosen, or that an engine or a checkpoint says, or 1 to 5."""
    from exp3rt_trt.engines.manifest import MANIFEST, Manifest  # noqa: PLC0415  (not needed for the help)
    from exp3rt_trt.rating import RatingScale, read_scale  # noqa: PLC0415

    if chosen is not None:
        return RatingScale.one_to_five() if chosen is Scale.five else RatingScale.one_to_ten()
    manifest = Path(engine) / MANIFEST
    known = Manifest.load(manifest).scale if manifest.is_file() else read_scale(Path(engine))
    return known or RatingScale.one_to_five()


def keep_inputs(outputs: Mapping[str, Path | None], inputs: Iterable[tuple[str, Path | str | None]]) -> None:
    """Refuse an output that is a file which is read, under whatever name; call it before anything is written.

    Args:
        outputs: file by option; None for an option that was not given.
        inputs: options and their files; what is no regular file cannot be destroyed and may stand here, too.

    Raises:
        InvalidInputError: naming both options and the file.
    """
    given = [(option, Path(path)) for option, path in inputs if path is not None]
    for output, out in outputs.items():
        for option, path in given:
            if out is not None and _same_file(out, path):
                raise InvalidInputError(
                    f"{output} {out} is the same file as {option} {path}, which it would overwrite"
                )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.is_file() and other.is_file() and one.samefile(other)
    except OSError:  # told by whoever opens it
        return False
