"""The teacher's answers as texts that a student learns to write: preferences, profiles, rationales."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypedDict

from exp3rt_trt.distill.ratings import parse_row
from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from exp3rt_trt.distill.encode import EncodedText, Encoder
    from exp3rt_trt.segments import SegmentName

UNTRAINED = -100  # torch's cross-entropy passes over it


class Text(TypedDict):
    """A text in the form of TRL's examples, and by segments.

    Args:
        input_ids: [num_tokens].
        labels: [num_tokens].
        lengths: of its segments, in tokens.
    """

    input_ids: list[int]
    labels: list[int]
    lengths: dict[SegmentName, int]


def read_texts(path: Path, encoder: Encoder) -> Iterator[Text]:
    """Read teacher's answers and encode them; the loss is on the answer alone.

    Args:
        path: JSONL. A row with `rationale` is a rating row (see `ratings`) and trains reason mode:
            reasoning, then the forced answer and the label. Any other has `instruction`, `input`,
            `output`.
        encoder: of the student.

    Raises:
        InvalidInputError: naming the line and the field, or what is too long for the student.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _laid_out(_encoded(line, encoder, f"{path}:{number}"))


def _encoded(line: str, encoder: Encoder, where: str) -> EncodedText:
    given = _object(line, where)
    if "rationale" not in given:
        return encoder.encode_task(
            *(_string(given, name, where) for name in ("instruction", "input", "output"))
        )
    row, rationale = parse_row(given, where), _string(given, "rationale", where)
    try:
        return encoder.encode_rationale(row, rationale)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from None


def _laid_out(text: EncodedText) -> Text:
    tokens = [token for segment in text.segments.values() for token in segment]
    untrained = len(tokens) - text.num_trained
    return {
        "input_ids": tokens,
        "labels": [UNTRAINED] * untrained + tokens[untrained:],
        "lengths": {name: len(segment) for name, segment in text.segments.items()},
    }


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        given = json.loads(line)
    except ValueError as error:
        raise InvalidInputError(f"{where}: {error}") from None
    if not isinstance(given, dict):
        raise InvalidInputError(f"{where}: not an object")
    return given


def _string(given: dict[str, Any], name: str, where: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{where}: field {name!r} must be a text that is not empty")
    return value.strip()
