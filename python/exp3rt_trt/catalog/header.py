"""catalog.json: what the items of a catalogue were computed with, and who may therefore read them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from exp3rt_trt.engines.staging import sync
from exp3rt_trt.errors import CatalogError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exp3rt_trt.engines.manifest import Manifest

FORMAT_VERSION = 1
HEADER = "catalog.json"
_MEANING = {
    "format_version": "it was made by another version of exp3rt_trt",
    "engine": "its items were computed with another engine, or one whose segments lie elsewhere",
    "instructions": "its items were computed behind other instructions: another template or rating scale",
    "item_position": "its items stand at another position",
    "item_format": "its items are kept in another form, which item_kv_dtype and the machine decide",
}


@dataclass(frozen=True)
class CatalogHeader:
    """What decides an item's keys and values, beside its own tokens.

    Args:
        engine: sha256 over the sha256 of the engine's files and its layout.
        instructions: sha256 of the instructions' token ids.
        item_position: rotary position of an item's first token.
        item_format: how the executor keeps keys and values.
        item_kv_dtype: what it was asked for; "" for its own type.
        format_version: of the folder.
    """

    engine: str
    instructions: str
    item_position: int
    item_format: str
    item_kv_dtype: str
    format_version: int = FORMAT_VERSION

    @staticmethod
    def of(
        manifest: Manifest, instructions: Sequence[int], item_format: str, item_kv_dtype: str
    ) -> CatalogHeader:
        """Describe what items are computed with here.

        Args:
            manifest: of the engine.
            instructions: token ids.
            item_format: of the executor.
            item_kv_dtype: that it was asked for.
        """
        files = {name: record.sha256 for name, record in manifest.files.items()}
        engine = json.dumps([files, asdict(manifest.layout)], sort_keys=True)
        return CatalogHeader(
            hashlib.sha256(engine.encode()).hexdigest(),
            item_key(instructions).hex(),
            manifest.layout.item_position,
            item_format,
            item_kv_dtype,
        )

    @staticmethod
    def load(folder: Path) -> CatalogHeader:
        """Read the header of a catalogue.

        Raises:
            CatalogError: naming the file, and the field that is missing or of another kind.
        """
        path = folder / HEADER
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CatalogError(f"{folder}: no {HEADER}: not a catalogue") from None
        except (OSError, ValueError) as error:
            raise CatalogError(
                f"{path}: cannot be read: {error}; remove the folder and build the catalogue anew"
            ) from error
        return _checked(given, path)

    def save(self, folder: Path) -> None:
        """Write the header at once, so that a kill leaves it whole or not there.

        Raises:
            OSError: if the folder cannot be written.
        """
        fresh = folder / f".{HEADER}"
        with fresh.open("w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self), indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(folder / HEADER)
        sync(folder)

    def check(self, folder: Path, expected: CatalogHeader) -> None:
        """Refuse a catalogue whose items are not those that would be computed here.

        Raises:
            CatalogError: naming the field, what it says there and what it is here.
        """
        for field, meaning in _MEANING.items():
            there, here = getattr(self, field), getattr(expected, field)
            if there != here:
                raise CatalogError(
                    f"{folder / HEADER}: {field}: {meaning} ({there!r} there, {here!r} here); build a "
                    "catalogue of its own with `exp3rt-trt catalog build`"
                )


def item_key(tokens: Sequence[int]) -> bytes:
    """Return what stands for an item's token ids: their sha256, as little-endian int32."""
    return hashlib.sha256(np.asarray(tokens, "<i4").tobytes()).digest()


def _checked(given: Any, path: Path) -> CatalogHeader:  # noqa: ANN401  (what JSON gave)
    if not isinstance(given, dict):
        raise CatalogError(f"{path}: must be an object, not {type(given).__name__}")
    for field in fields(CatalogHeader):
        kind = int if field.name in ("format_version", "item_position") else str
        if type(given.get(field.name)) is not kind:
            raise CatalogError(
                f"{path}: {field.name} must be of type {kind.__name__}, not {given.get(field.name)!r}"
            )
    return CatalogHeader(**{field.name: given[field.name] for field in fields(CatalogHeader)})
