"""Segments of a prompt: which sees which, and at what positions they stand.

A prompt is four segments: instructions, user, item, answer. A causal student reads them one after the
other. A segmented student reads an item without the user's part, at a fixed position, so that what it makes
of an item serves every user; only the answer sees both. Whatever lays prompts out, masks or trains asks here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.jsonl import read_json_if_any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Attention: TypeAlias = Literal["causal", "segmented"]
SegmentName: TypeAlias = Literal["instructions", "user", "item", "answer"]

SEGMENTS: tuple[SegmentName, ...] = ("instructions", "user", "item", "answer")
# The segments that each one sees beside itself; within itself, attention is causal.
SEES: dict[Attention, dict[SegmentName, tuple[SegmentName, ...]]] = {
    "causal": {
        "instructions": (),
        "user": ("instructions",),
        "item": ("instructions", "user"),
        "answer": ("instructions", "user", "item"),
    },
    "segmented": {
        "instructions": (),
        "user": ("instructions",),
        "item": ("instructions",),
        "answer": ("instructions", "user", "item"),
    },
}
LAYOUT_FILE = "segments.json"  # beside the weights of an adapter or a checkpoint; without it: causal


@dataclass(frozen=True)
class SegmentLayout:
    """How a student reads a prompt.

    Args:
        attention: "causal" or "segmented", a row of `SEES`.
        item_position: rotary position of an item's first token in a segmented prompt; instructions and user
            must end before it.
        answer_position: of the answer's first token; the item must end before it.

    Raises:
        InvalidInputError: naming the field that is out of range.

    Example:
        >>> SegmentLayout("segmented", 1024, 2048).sees("item")
        ('instructions',)
    """

    attention: Attention = "causal"
    item_position: int = 0
    answer_position: int = 0

    def __post_init__(self) -> None:
        if self.attention not in SEES:
            raise InvalidInputError(f"attention must be one of {', '.join(SEES)}, not {self.attention!r}")
        if not self.segmented:
            if self.item_position or self.answer_position:
                raise InvalidInputError("item_position and answer_position are for attention segmented only")
        elif not 0 < self.item_position < self.answer_position:
            raise InvalidInputError(
                "item_position must be positive and below answer_position, not "
                f"{self.item_position} and {self.answer_position}"
            )

    @property
    def segmented(self) -> bool:
        """Whether items are read without the user's part."""
        return self.attention == "segmented"

    def sees(self, segment: SegmentName) -> tuple[SegmentName, ...]:
        """Return the segments whose keys a segment's tokens meet beside those of its own before them."""
        return SEES[self.attention][segment]

    def starts(self, lengths: Mapping[SegmentName, int]) -> dict[SegmentName, int]:
        """Return the position of each segment's first token.

        Args:
            lengths: of the segments, in tokens.
        """
        user = lengths["instructions"]
        item = self.item_position if self.segmented else user + lengths["user"]
        answer = self.answer_position if self.segmented else item + lengths["item"]
        return {"instructions": 0, "user": user, "item": item, "answer": answer}

    def to_json(self) -> str:
        """Write the layout as JSON text, ending in a newline."""
        return json.dumps(asdict(self), indent=2) + "\n"


CAUSAL = SegmentLayout()


def read_layout(folder: Path) -> SegmentLayout:
    """Read the layout of a checkpoint or adapter; causal if the folder says nothing.

    Raises:
        InvalidInputError: naming the file and the field.
    """
    given = read_json_if_any(folder / LAYOUT_FILE)
    return CAUSAL if given is None else layout_of(given, str(folder / LAYOUT_FILE))


def layout_of(given: Any, where: str) -> SegmentLayout:  # noqa: ANN401  (what JSON gave)
    """Return the layout that a JSON object says.

    Raises:
        InvalidInputError: naming `where` and the field.
    """
    if not isinstance(given, dict):
        raise InvalidInputError(f"{where}: must be an object, not {given!r}")
    kinds = {"attention": str, "item_position": int, "answer_position": int}
    for name, value in given.items():
        if name not in kinds:
            raise InvalidInputError(f"{where}: unknown field {name!r}; known: {', '.join(kinds)}")
        if type(value) is not kinds[name]:
            raise InvalidInputError(f"{where}: {name} must be of type {kinds[name].__name__}, not {value!r}")
    try:
        return SegmentLayout(**given)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from None
