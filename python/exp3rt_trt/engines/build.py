"""Builds an engine directory from a checkpoint, tensor by tensor."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt.engines import families, sources
from exp3rt_trt.engines.adapters import AdaptedCheckpoint
from exp3rt_trt.engines.cache import remember_verified
from exp3rt_trt.engines.layout import check_tensors, plan_weights
from exp3rt_trt.engines.manifest import (
    DTYPES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    Manifest,
    Source,
    Target,
)
from exp3rt_trt.engines.plan_text import plan_text
from exp3rt_trt.engines.records import BUILDER, record_file, write_manifest
from exp3rt_trt.engines.staging import check_replaceable, staged
from exp3rt_trt.engines.target_choice import CPU, Choice, choose
from exp3rt_trt.engines.tokenizers import write_tokenizer
from exp3rt_trt.engines.trtllm.build import build_for_gpu
from exp3rt_trt.engines.trtllm.needs import check_can_build
from exp3rt_trt.engines.weights_file import sha256_of, weights_size, write_weights
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.engines.checkpoints import Checkpoint
    from exp3rt_trt.engines.weights_file import PlannedTensor, Progress

LEAST_ISA = "avx2"  # bf16 weights are widened at load where the machine does not multiply them


def build_engine(
    model: str | os.PathLike[str],
    out: Path,
    dtype: str | None = None,
    target: str = CPU,
    *,
    adapter: str | os.PathLike[str] | None = None,
    calibration: Path | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Builds an engine directory.

    The engine appears at `out` whole or not at all: it is written beside it and renamed, and an older
    engine stays usable until then. Peak memory is a few chunks of the weights and the tokenizer, whatever
    the model's size.

    Args:
        model: Name of a base student, a checkpoint directory, a .gguf file, or a hub repository.
        out: The engine directory; an engine that is there is replaced.
        dtype: Of a CPU engine's weights: "fp32", "bf16" or "int8"; None for what the target's recipe says,
            and bf16 for target "cpu".
        target: "cpu"; "auto" for the first GPU of this machine, or its processor if there is none; or the
            name of a recipe, such as "h100".
        adapter: Directory of a LoRA adapter in PEFT's form, merged into the model's weights as they are read.
        calibration: JSONL of prompts, for recipes that quantize; see `trtllm.calibration.read_texts`.
        progress: Called with the tensor being written, the bytes written and the bytes in all.

    Returns:
        The engine's manifest.

    Raises:
        BuildError: The model cannot be found or is not supported, `out` cannot be written, or the target's
            GPU or TensorRT-LLM is not here.

    Example:
        >>> build_engine("smollm2-135m-instruct", Path("engines/smollm2-135m"))
    """
    choice = choose(target)
    dtype = _dtype(dtype, choice)
    out = out.expanduser().absolute()
    check_replaceable(out)
    if not choice.on_cpu:
        check_can_build(choice, calibration)
    checkpoint, source = (
        sources.open_checkpoint(sources.resolve(os.fspath(model))),
        name_source(model, adapter),
    )
    if adapter is not None:
        checkpoint, source = AdaptedCheckpoint(checkpoint, Path(adapter)), name_source(model, adapter)
    if not choice.on_cpu:
        return build_for_gpu(checkpoint, source, out, choice, calibration)
    with staged(out) as directory:
        try:
            manifest = _write(checkpoint, directory, source, dtype, progress)
        except OSError as error:
            raise BuildError(f"{out}: cannot be written: {error}") from error
    for name, record in manifest.files.items():
        remember_verified(out / name, record.sha256)
    return manifest


def plan_build(
    model: str | os.PathLike[str],
    out: Path,
    dtype: str | None = None,
    target: str = CPU,
    *,
    adapter: str | os.PathLike[str] | None = None,
    calibration: Path | None = None,
) -> str:
    """Describes what `build_engine` would do, as text; runs nothing, fetches nothing, and needs no GPU.

    Args:
        model: As of `build_engine`.
        out: The same.
        dtype: The same.
        target: The same.
        adapter: The same.
        calibration: The same.

    Returns:
        Every command line and every file, and what is missing here.

    Raises:
        BuildError: The target or dtype is not known, or `out` is something else than an engine.
    """
    choice = choose(target)
    dtype = _dtype(dtype, choice)
    out = out.expanduser().absolute()
    check_replaceable(out)
    return plan_text(name_source(model, adapter), out, dtype, choice, calibration)


def name_source(model: str | os.PathLike[str], adapter: str | os.PathLike[str] | None) -> str:
    """Names what an engine is built from, as its manifest does."""
    return os.fspath(model) if adapter is None else f"{os.fspath(model)} + {os.fspath(adapter)}"


def _dtype(asked: str | None, choice: Choice) -> str:
    """The weights' type: as asked, else as the recipe says, else bf16."""
    usual = choice.recipe.dtype if choice.recipe is not None else "bf16"
    dtype = asked or usual
    if dtype not in DTYPES:
        raise BuildError(f"dtype {dtype!r} is not supported; supported: {', '.join(DTYPES)}")
    if not choice.on_cpu and dtype != usual:
        raise BuildError(f"dtype {dtype}: for a GPU, the recipe decides, which says {usual}")
    return dtype


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
    files |= {name: record_file(directory / name) for name in (TOKENIZER, TOKENIZER_CONFIG)}
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
        layout=checkpoint.layout,
        scale=checkpoint.scale,
    )
    write_manifest(directory, manifest)
    return manifest


def _check_space(directory: Path, plan: Sequence[PlannedTensor]) -> None:
    needed, free = weights_size(plan), shutil.disk_usage(directory).free
    if needed > free:
        raise BuildError(
            f"{directory.parent}: the engine takes {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free"
        )
