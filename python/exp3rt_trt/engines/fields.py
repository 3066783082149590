"""Fields of JSON objects, taken one by one and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exp3rt_trt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Fields:
    """A JSON object whose fields are taken one by one, with messages that name the file and the field."""

    path: Path
    prefix: str
    raw: Mapping[str, Any]

    def fail(self, name: str, wanted: str) -> EngineError:
        """Makes the error about a field."""
        found = repr(self.raw[name]) if name in self.raw else "nothing"
        return EngineError(f"{self.path}: {self.prefix}{name}: expected {wanted}, found {found[:80]}")

    def integer(self, name: str, least: int = 1) -> int:
        """Takes an integer."""
        value = self.raw.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.fail(name, f"an integer of at least {least}")
        return value

    def number(self, name: str) -> float:
        """Takes a positive, finite number."""
        value = self.raw.get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self.fail(name, "a positive number")
        return float(value)

    def boolean(self, name: str) -> bool:
        """Takes true or false."""
        value = self.raw.get(name)
        if not isinstance(value, bool):
            raise self.fail(name, "true or false")
        return value

    def text(self, name: str, choices: tuple[str, ...] = ()) -> str:
        """Takes a text, one of the choices if there are any."""
        value = self.raw.get(name)
        if not isinstance(value, str) or (choices and value not in choices):
            raise self.fail(name, f"one of {', '.join(choices)}" if choices else "text")
        return value

    def object(self, name: str) -> Fields:
        """Takes an object."""
        value = self.raw.get(name)
        if not isinstance(value, dict):
            raise self.fail(name, "an object")
        return Fields(self.path, f"{self.prefix}{name}.", value)
