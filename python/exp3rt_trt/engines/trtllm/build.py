"""Builds engines for NVIDIA GPUs: by TensorRT-LLM 1.2.x, or for the LLM API of 1.3 and newer."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exp3rt_trt.engines.cache import exclusive, remember_verified
from exp3rt_trt.engines.manifest import MANIFEST, Manifest, Source
from exp3rt_trt.engines.records import BUILDER, record_file, write_manifest
from exp3rt_trt.engines.staging import staged
from exp3rt_trt.engines.targets import (
    LLM_API,
    PLAN,
    PLAN_CONFIG,
    TENSORRT_LLM,
    LlmApiTarget,
    TensorRtTarget,
)
from exp3rt_trt.engines.tokenizers import write_tokenizer
from exp3rt_trt.engines.trtllm import commands, versions
from exp3rt_trt.engines.trtllm.calibration import read_texts, write_texts
from exp3rt_trt.engines.trtllm.needs import check_can_build
from exp3rt_trt.engines.trtllm.run import last_lines, run_command
from exp3rt_trt.engines.trtllm.student import check_student, write_student
from exp3rt_trt.engines.weights_file import sha256_of
from exp3rt_trt.errors import BuildError, EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.engines.checkpoints import Checkpoint
    from exp3rt_trt.engines.devices import GpuDevice
    from exp3rt_trt.engines.recipes import EngineRecipe
    from exp3rt_trt.engines.target_choice import Choice
    from exp3rt_trt.engines.targets import AnyTarget


WORK = "work"


@dataclass(frozen=True)
class GpuBuild:
    """What an engine for a GPU is made of.

    Attributes:
        checkpoint: The student, an adapter merged into it.
        source: The model as it was named.
        out: The engine directory.
        recipe: How.
        device: The GPU it is for; None for the LLM API, which compiles nothing.
        calibration: Texts to measure scales on; None if nothing is quantized.
    """

    checkpoint: Checkpoint
    source: str
    out: Path
    recipe: EngineRecipe
    device: GpuDevice | None
    calibration: Path | None


def build_for_gpu(
    checkpoint: Checkpoint, source: str, out: Path, choice: Choice, calibration: Path | None
) -> Manifest:
    """Builds an engine directory for a GPU of this machine.

    Of two builds of one engine at once, the second waits and takes what the first one made.

    Args:
        checkpoint: The student, an adapter merged into it.
        source: The model as it was named.
        out: The engine directory; an engine that is there is replaced.
        choice: Recipe and GPU.
        calibration: Texts to measure scales on, if the recipe quantizes; see `calibration.read_texts`.

    Returns:
        The engine's manifest.

    Raises:
        BuildError: Something is missing here, a command failed, or `out` cannot be written.
    """
    if checkpoint.layout.segmented:
        raise BuildError(
            f"{checkpoint.config_path}: a segmented student: TensorRT-LLM attends causally; "
            "build it with --target cpu"
        )
    recipe, version = check_can_build(choice, calibration)
    build = GpuBuild(checkpoint, source, out, recipe, choice.device, calibration)
    before = _state(out)
    with exclusive(out.with_name(f".{out.name}.lock"), advice=""):
        done = _done_meanwhile(build, before)
        if done is not None:
            return done
        try:
            with staged(out) as directory:
                manifest = _write(build, directory, version)
        except OSError as error:
            raise BuildError(f"{out}: cannot be written: {error}") from error
    for name, each in manifest.files.items():
        remember_verified(out / name, each.sha256)
    return manifest


def _write(build: GpuBuild, directory: Path, version: str) -> Manifest:
    """Writes all files of the engine, the manifest last."""
    family, model = check_student(build.checkpoint, directory)
    dims = replace(model, max_context=min(model.max_context, build.recipe.max_seq_len))
    build = replace(build, recipe=replace(build.recipe, max_seq_len=dims.max_context))
    if versions.has_llm_api(version):
        write_student(build.checkpoint, directory)
        target: AnyTarget = _llm_api_target(build.recipe, version)
    else:
        _compile(build, directory)
        target = _tensorrt_target(build, version)
    where = str(build.checkpoint.config_path)
    tokenizer = write_tokenizer(build.checkpoint, directory, dims.vocab_size, where)
    manifest = Manifest(
        builder=BUILDER,
        architecture=family,
        model=dims,
        dtype=build.recipe.dtype,
        target=target,
        label_tokens=tokenizer.label_tokens,
        end_tokens=tokenizer.end_tokens,
        chat=tokenizer.chat,
        source=_source(build),
        files={path.name: record_file(path) for path in sorted(directory.iterdir())},
        scale=build.checkpoint.scale,
    )
    write_manifest(directory, manifest)
    return manifest


def _compile(build: GpuBuild, directory: Path) -> None:
    """Makes the TensorRT engine in the directory; the log lies beside it until all is well."""
    device = build.device
    if device is None:
        raise BuildError(f"{build.out}: a TensorRT engine is compiled on its GPU, and none was chosen")
    work, log = directory / WORK, build.out.with_name(f"{build.out.name}.{commands.LOG}")
    work.mkdir()
    log.unlink(missing_ok=True)
    if build.calibration is not None and commands.needs_calibration(build.recipe):
        write_texts(read_texts(build.calibration), work / commands.CALIBRATION)
    write_student(build.checkpoint, work / commands.STUDENT)
    for command in (commands.convert_command(build.recipe), commands.build_command(build.recipe)):
        run_command(command, work, log, device)
    for name in (PLAN, PLAN_CONFIG):
        made = work / commands.PLAN_FOLDER / name
        if not made.exists():
            raise BuildError(
                f"{commands.TRTLLM_BUILD}: wrote no {name}; the log is {log}; its last lines:\n"
                f"{last_lines(log)}"
            )
        made.rename(directory / name)
    shutil.rmtree(work)
    log.rename(directory / commands.LOG)


def _tensorrt_target(build: GpuBuild, version: str) -> TensorRtTarget:
    recipe, device = build.recipe, build.device
    return TensorRtTarget(
        kind=TENSORRT_LLM,
        recipe=recipe.name,
        gpu=device.name if device else "",
        sm=device.compute_capability if device else "",
        driver=device.driver if device else "",
        cuda=versions.cuda_version(),
        tensorrt=versions.tensorrt_version() or "",
        tensorrt_llm=version,
        quantization=recipe.quantization,
        kv_dtype=recipe.kv_dtype,
        kv_memory_fraction=recipe.kv_memory_fraction,
        flags=commands.build_flags(recipe),
    )


def _llm_api_target(recipe: EngineRecipe, version: str) -> LlmApiTarget:
    """The recipe's sizes; its quantization is of TensorRT engines only, and so is its KV cache's."""
    return LlmApiTarget(
        kind=LLM_API,
        recipe=recipe.name,
        tensorrt_llm=version,
        kv_dtype="bf16",
        kv_memory_fraction=recipe.kv_memory_fraction,
        max_batch_size=recipe.max_batch_size,
        max_num_tokens=recipe.max_num_tokens,
        max_seq_len=recipe.max_seq_len,
        tokens_per_block=recipe.tokens_per_block,
    )


def _source(build: GpuBuild) -> Source:
    files = [*build.checkpoint.files, *([build.calibration] if build.calibration is not None else [])]
    return Source(build.source, {file.name: sha256_of(file) for file in files})


def _state(out: Path) -> tuple[int, int] | None:
    """Tells one engine at `out` from the next."""
    try:
        stat = (out / MANIFEST).stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _done_meanwhile(build: GpuBuild, before: tuple[int, int] | None) -> Manifest | None:
    """The engine that another build made while this one waited, if it is the same."""
    if _state(build.out) in (None, before):
        return None
    try:
        made = Manifest.load(build.out / MANIFEST)
    except EngineError:
        return None
    if not isinstance(made.target, (TensorRtTarget, LlmApiTarget)):
        return None
    same = (made.target.recipe, made.source) == (build.recipe.name, _source(build))
    return made if same else None
