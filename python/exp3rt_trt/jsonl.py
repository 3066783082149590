"""Files of JSON: of one object a line, or of one in all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Line(NamedTuple):
    """A line that is not empty: its place, and its object or what is wrong with it."""

    where: str  # file:line
    number: int
    value: dict[str, Any]
    error: InvalidInputError | None


def read_json_if_any(path: Path) -> Any:  # noqa: ANN401  (what JSON gives)
    """Return what a JSON file holds; None if there is no such file.

    Raises:
        InvalidInputError: naming the file that cannot be read, or holds nothing.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from None
    if given is None:
        raise InvalidInputError(f"{path}: must hold something, not null")
    return given


def read_lines(path: str) -> Iterator[Line]:
    """Read a file line by line.

    Args:
        path: the file; "-" for standard input.

    Yields:
        Every line that is not empty; one that is no JSON object has an error.

    Raises:
        InvalidInputError: if the file cannot be read.
    """
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield _line(f"{'<stdin>' if path == '-' else path}:{number}", number, raw)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be read: {error.strerror}") from error


def _line(where: str, number: int, raw: bytes) -> Line:
    try:
        value = json.loads(raw)
    except ValueError as error:  # UnicodeDecodeError is one, too
        return Line(where, number, {}, InvalidInputError(f"not valid JSON: {error}"))
    except RecursionError:
        return Line(where, number, {}, InvalidInputError("nested too deeply"))
    if not isinstance(value, dict):
        return Line(where, number, {}, InvalidInputError(f"not a JSON object, but {type(value).__name__}"))
    return Line(where, number, value, None)
