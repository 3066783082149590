"""What must be here before an engine for a GPU can be built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exp3rt_trt.engines import devices
from exp3rt_trt.engines.trtllm import commands, versions
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.engines.recipes import EngineRecipe
    from exp3rt_trt.engines.target_choice import Choice


def check_can_build(choice: Choice, calibration: Path | None) -> tuple[EngineRecipe, str]:
    """Refuses a build that this machine cannot do.

    Args:
        choice: Of a recipe for a GPU.
        calibration: Texts for it.

    Returns:
        The recipe, and the installed TensorRT-LLM's version.

    Raises:
        BuildError: Saying all that is needed, and the command that installs it.
    """
    recipe, version = choice.recipe, versions.tensorrt_llm_version()
    if recipe is None:
        raise BuildError("target cpu is not built by TensorRT-LLM")
    missing = missing_here(choice, calibration)
    if missing or version is None:
        raise BuildError(f"target {recipe.name}: " + "; ".join(missing))
    return recipe, version


def notes_here(choice: Choice) -> list[str]:
    """Says what a reader should know about a build for this choice with the TensorRT-LLM that is here."""
    recipe, version = choice.recipe, versions.tensorrt_llm_version()
    notes = list(choice.notes)
    if recipe is not None and recipe.kind != "cpu" and versions.has_llm_api(version):
        notes.append(
            f"TensorRT-LLM {version} has no TensorRT engines: this one is a checkpoint for its LLM API"
        )
        if commands.needs_calibration(recipe):
            notes.append(
                f"weights and KV cache will be bf16; the recipe's {recipe.quantization} weights and "
                f"{recipe.kv_dtype} KV cache are of TensorRT engines"
            )
    return notes


def missing_here(choice: Choice, calibration: Path | None) -> list[str]:
    """Lists what a build for a GPU needs and this machine or the call lacks; arguments as above."""
    recipe, version = choice.recipe, versions.tensorrt_llm_version()
    if recipe is None or recipe.kind == "cpu":
        return []
    if versions.has_llm_api(version):
        return []  # it writes a checkpoint, which needs no GPU
    missing = []
    if not versions.builds_engines(version):
        here = "is not installed" if version is None else f"{version} is installed"
        missing.append(
            f"TensorRT-LLM 1.2.1 or a later 1.2.x is needed (CPython 3.12), {here}: "
            f"`{versions.INSTALL_ENGINES}`"
        )
    if choice.device is None:
        found = ", ".join(map(str, devices.gpu_devices())) or "no NVIDIA GPU"
        missing.append(
            f"a GPU of SM {recipe.sm} ({', '.join(recipe.gpu_names)}) is needed, here is {found}; an engine "
            "is compiled on the GPU that will run it (`--target cpu` builds for the processor)"
        )
    if commands.needs_calibration(recipe) and calibration is None:
        missing.append(
            f"texts to measure {recipe.quantization} weights and a {recipe.kv_dtype} KV cache on are needed: "
            "--calibration FILE.jsonl with prompts as the student sees them"
        )
    return missing
