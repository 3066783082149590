"""The last strokes of every build: who built, and what was written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from exp3rt_trt import _core
from exp3rt_trt.engines.manifest import MANIFEST, FileRecord, Manifest
from exp3rt_trt.engines.weights_file import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

BUILDER = f"exp3rt_trt {_core.__version__}"


def record_file(path: Path) -> FileRecord:
    """Flushes a file to the disk, and gives its size and sha256."""
    _flush(path)
    return FileRecord(path.stat().st_size, sha256_of(path))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes manifest.json, which comes last, and flushes it to the disk."""
    (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    _flush(directory / MANIFEST)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
