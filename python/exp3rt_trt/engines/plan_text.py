"""What a build would do, as text: `exp3rt-trt build --dry-run`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from exp3rt_trt.engines.manifest import MANIFEST, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS
from exp3rt_trt.engines.targets import CHECKPOINT_CONFIG, CHECKPOINT_WEIGHTS, PLAN, PLAN_CONFIG
from exp3rt_trt.engines.trtllm import commands, versions
from exp3rt_trt.engines.trtllm.needs import missing_here, notes_here

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.engines.recipes import EngineRecipe
    from exp3rt_trt.engines.target_choice import Choice


def plan_text(source: str, out: Path, dtype: str, choice: Choice, calibration: Path | None = None) -> str:
    """Describes a build without doing any of it; needs no GPU, no TensorRT-LLM and no model.

    Args:
        source: The model, and the adapter that is merged into it.
        out: The engine directory.
        dtype: Of a CPU engine.
        choice: What it is for.
        calibration: Texts for scales.

    Returns:
        Lines: every command, every file, and what is missing here.
    """
    lines = [f"note: {note}" for note in notes_here(choice)]
    if choice.recipe is None or choice.on_cpu:
        return "\n".join([*lines, *_cpu(source, out, dtype)])
    if versions.has_llm_api(versions.tensorrt_llm_version()):
        return "\n".join([*lines, *_llm_api(source, out, choice.recipe)])
    lines += _tensorrt(source, out, choice.recipe, calibration)
    lines.append("(lengths are the recipe's; of a model with a shorter context, its own)")
    lines += [f"missing here: {each}" for each in missing_here(choice, calibration)]
    return "\n".join(lines)


def _cpu(source: str, out: Path, dtype: str) -> list[str]:
    return [
        f"engine {out} for the CPU, {dtype}",
        f"1. read {source}, tensor by tensor",
        *_files(out, [WEIGHTS, TOKENIZER, TOKENIZER_CONFIG], 2),
    ]


def _llm_api(source: str, out: Path, recipe: EngineRecipe) -> list[str]:
    version = versions.tensorrt_llm_version()
    return [
        f"engine {out} for TensorRT-LLM's LLM API by recipe {recipe.name}; installed: {version}",
        f"1. read {source}, and write it as a Hugging Face checkpoint in bf16",
        *_files(out, [CHECKPOINT_WEIGHTS, CHECKPOINT_CONFIG, TOKENIZER, TOKENIZER_CONFIG], 2),
    ]


def _tensorrt(source: str, out: Path, recipe: EngineRecipe, calibration: Path | None) -> list[str]:
    work = f".{out.name}.building-*/work"
    lines = [
        f"engine {out} for {', '.join(recipe.gpu_names)} (SM {recipe.sm}) by recipe {recipe.name}",
        f"1. in {out.parent / work}: read {source}, and write it as a Hugging Face checkpoint in "
        f"{commands.STUDENT}/",
    ]
    if commands.needs_calibration(recipe):
        lines.append(f"   texts of {calibration or '--calibration FILE.jsonl'} in {commands.CALIBRATION}/")
    for number, command in enumerate((commands.convert_command(recipe), commands.build_command(recipe)), 2):
        lines += [f"{number}. {command.title}", f"   $ {shlex.join(command.arguments)}"]
    return [*lines, *_files(out, [PLAN, PLAN_CONFIG, TOKENIZER, TOKENIZER_CONFIG, commands.LOG], 4)]


def _files(out: Path, names: list[str], number: int) -> list[str]:
    return [
        f"{number}. write {', '.join(names)}, and last {MANIFEST} with their sizes and sha256",
        f"{number + 1}. put all of it at {out} at once",
    ]
