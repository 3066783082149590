"""Builds an engine directory from a checkpoint, tensor by tensor."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt import _core
from exp3rt_trt.engines import families, sources
from exp3rt_trt.engines.adapters import AdaptedCheckpoint
from exp3rt_trt.engines.cache import remember_verified
from exp3rt_trt.engines.devices import check_target
from exp3rt_trt.engines.layout import check_tensors, plan_weights
from exp3rt_trt.engines.manifest import (
    DTYPES,
    MANIFEST,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    FileRecord,
    Manifest,
    Source,
    Target,
)
from exp3rt_trt.engines.staging import check_replaceable, staged
from exp3rt_trt.engines.tokenizers import write_tokenizer
from exp3rt_trt.engines.weights_file import sha256_of, weights_size, write_weights
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.engines.checkpoints import Checkpoint
    from exp3rt_trt.engines.weights_file import PlannedTensor, Progress

BUILDER = f"exp3rt_trt {_core.__version__}"
LEAST_ISA = "avx2"  # bf16 weights are widened at load where the machine does not multiply them


def build_engine(
    model: str | os.PathLike[str],
    out: Path,
    dtype: str = "bf16",
    target: str = "cpu",
    *,
    adapter: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Builds an engine directory.

    The engine appears at `out` whole or not at all: it is written beside it and renamed, and an older
    engine stays usable until then. Peak memory is a few chunks of the weights and the tokenizer, whatever
    the model's size.

    Args:
        model: Name of a base student, a checkpoint directory, a .gguf file, or a hub repository.
        out: The engine directory; an engine that is there is replaced.
        dtype: Of the weights: "fp32", "bf16" or "int8".
        target: Kind of device: "cpu".
        adapter: Directory of a LoRA adapter in PEFT's form, merged into the model's weights as they are read.
        progress: Called with the tensor being written, the bytes written and the bytes in all.

    Returns:
        The engine's manifest.

    Raises:
        BuildError: The model cannot be found or is not supported, or `out` cannot be written.

    Example:
        >>> build_engine("smollm2-135m-instruct", Path("engines/smollm2-135m"))
    """
    if dtype not in DTYPES:
        raise BuildError(f"dtype {dtype!r} is not supported; supported: {', '.join(DTYPES)}")
    check_target(target)
    out = out.expanduser().absolute()
    check_replaceable(out)
    checkpoint, source = sources.open_checkpoint(sources.resolve(os.fspath(model))), os.fspath(model)
    if adapter is not None:
        checkpoint, source = AdaptedCheckpoint(checkpoint, Path(adapter)), f"{source} + {os.fspath(adapter)}"
    with staged(out) as directory:
        try:
            manifest = _write(checkpoint, directory, source, dtype, progress)
        except OSError as error:
            raise BuildError(f"{out}: cannot be written: {error}") from error
    for name, record in manifest.files.items():
        remember_verified(out / name, record.sha256)
    return manifest


def _write(
    checkpoint: Checkpoint, directory: Path, source: str, dtype: str, progress: Progress | None
) -> Manifest:
    """Writes all files of the engine, the manifest last, and flushes them to the disk."""
    where = str(checkpoint.config_path)
    family = families.architecture(checkpoint.config, where)
    dims = families.dimensions(checkpoint.config, where)
    check_tensors(checkpoint, family, dims)
    plan = plan_weights(checkpoint, dims, dtype)
    _check_space(directory, plan)
    tokenizer = write_tokenizer(checkpoint, directory, dims.vocab_size, where)
    files = {WEIGHTS: write_weights(directory / WEIGHTS, plan, progress)}
    files |= {name: _record(directory / name) for name in (TOKENIZER, TOKENIZER_CONFIG)}
    manifest = Manifest(
        builder=BUILDER,
        architecture=family,
        model=dims,
        dtype=dtype,
        target=Target("cpu", LEAST_ISA),
        label_tokens=tokenizer.label_tokens,
        end_tokens=tokenizer.end_tokens,
        chat=tokenizer.chat,
        source=Source(source, {file.name: sha256_of(file) for file in checkpoint.files}),
        files=files,
    )
    (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    _flush(directory / MANIFEST)
    return manifest


def _check_space(directory: Path, plan: Sequence[PlannedTensor]) -> None:
    needed, free = weights_size(plan), shutil.disk_usage(directory).free
    if needed > free:
        raise BuildError(
            f"{directory.parent}: the engine takes {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free"
        )


def _record(path: Path) -> FileRecord:
    _flush(path)
    return FileRecord(path.stat().st_size, sha256_of(path))


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
