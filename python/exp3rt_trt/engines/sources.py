"""Finds the checkpoint that a name stands for: a base student, a path, or a repository of the hub."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from exp3rt_trt.engines.checkpoints import PICKLES, SIDE_FILES, Checkpoint, DirectoryCheckpoint
from exp3rt_trt.engines.gguf_checkpoint import GgufCheckpoint
from exp3rt_trt.engines.students import STUDENTS, fetch_student
from exp3rt_trt.errors import BuildError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ("*.safetensors", "*.safetensors.index.json", *SIDE_FILES)
HUB_IGNORED = ("*/*", "consolidated*")  # other formats of the same weights


def resolve(model: str) -> Path:
    """Finds, and where needed downloads, the checkpoint of a model.

    Args:
        model: Name of a base student, a directory, a .gguf file, or a hub repository ("owner/name").

    Returns:
        A local checkpoint directory or GGUF file.

    Raises:
        BuildError: There is none, or it could not be downloaded.
    """
    if model in STUDENTS:
        return fetch_student(model)
    path = Path(model).expanduser()
    if path.exists():
        return path
    if HUB_NAME.fullmatch(model) and not model.startswith("."):
        return _download_from_hub(model)
    known = ", ".join(STUDENTS)
    raise BuildError(
        f"model {model!r}: no such directory or file, and not a hub name (owner/name); base students: {known}"
    )


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint directory or GGUF file.

    Raises:
        BuildError: It is neither, or it is damaged.
    """
    if path.is_dir():
        return DirectoryCheckpoint(path)
    if path.suffix == ".gguf":
        return GgufCheckpoint(path)
    if path.suffix in PICKLES:
        raise BuildError(f"{path}: pickled weights are never loaded, because a pickle can run any code")
    raise BuildError(
        f"{path}: not a checkpoint; needed: a directory with config.json and safetensors, or a .gguf file"
    )


def fingerprint(path: Path) -> str:
    """Tells one state of a checkpoint's files from another, by their places, sizes and times of change."""
    files = [path]
    if path.is_dir():
        files = sorted(
            [*path.glob("*.safetensors"), *(path / name for name in SIDE_FILES if (path / name).exists())]
        )
    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def _download_from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        folder = snapshot_download(name, allow_patterns=list(HUB_FILES), ignore_patterns=list(HUB_IGNORED))
    except Exception as error:  # the hub's client raises its own and its HTTP library's errors
        raise BuildError(
            f"model {name!r}: not a local path, and the hub could not give it: {error}"
        ) from error
    return Path(folder)
