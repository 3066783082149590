"""The teacher's answers as texts that a student learns to write: preferences, profiles, rationales."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from exp3rt_trt.distill.ratings import parse_row
from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from exp3rt_trt.distill.encode import Encoder

UNTRAINED = -100  # torch's cross-entropy passes over it


def read_texts(path: Path, encoder: Encoder) -> Iterator[dict[str, list[int]]]:
    """Read teacher's answers and encode them; the loss is on the answer alone.

    Args:
        path: JSONL. A row with `rationale` is a rating row (see `ratings`) and trains reason mode:
            reasoning, then the forced answer and the label. Any other has `instruction`, `input`,
            `output`.
        encoder: of the student.

    Yields:
        `input_ids` and `labels`, [num_tokens].

    Raises:
        InvalidInputError: naming the line and the field.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            given = _object(line, where)
            if "rationale" in given:
                row = parse_row(given, where)
                prompt, answer = encoder.encode_rationale(row, _string(given, "rationale", where))
            else:
                instruction, text, output = (
                    _string(given, name, where) for name in ("instruction", "input", "output")
                )
                prompt, answer = encoder.encode_task(instruction, text, output)
            yield _example(prompt, answer)


def _example(prompt: Sequence[int], answer: Sequence[int]) -> dict[str, list[int]]:
    return {"input_ids": [*prompt, *answer], "labels": [UNTRAINED] * len(prompt) + list(answer)}


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
