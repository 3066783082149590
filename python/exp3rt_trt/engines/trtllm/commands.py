"""What is run to make a TensorRT engine of a checkpoint, by a recipe; TensorRT-LLM 1.2.x.

The options are those of trtllm-build (tensorrt_llm/commands/build.py and plugin/plugin.py) and of
`tensorrt_llm.quantization.quantize_and_export`, read at https://github.com/NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exp3rt_trt.engines.recipes import EngineRecipe

# Folders of the build. TensorRT-LLM looks for words such as "mpt" and "vila" in a model's path to tell its
# kind, so it gets these names, relative to where it runs, and never sees the user's path.
STUDENT = "student"
CHECKPOINT = "checkpoint"
CALIBRATION = "calibration"
PLAN_FOLDER = "engine"
TRTLLM_BUILD = "trtllm-build"
CONVERT = "exp3rt_trt.engines.trtllm.convert"
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
CALIBRATION_TEXTS = 512
LOG = "build.log"


@dataclass(frozen=True)
class Command:
    """A command line, and what it is for."""

    title: str
    arguments: list[str]


def needs_calibration(recipe: EngineRecipe) -> bool:
    """Tells whether scales of activations, keys or values must be measured on texts."""
    return recipe.quantization != "none" or recipe.kv_dtype != "bf16"


def convert_command(recipe: EngineRecipe) -> Command:
    """Gives the command that makes TensorRT-LLM's checkpoint of a Hugging Face one."""
    options = {"model_dir": STUDENT, "output_dir": CHECKPOINT, "dtype": DTYPES[recipe.dtype]}
    title = f"write it as a TensorRT-LLM checkpoint in {recipe.dtype}"
    if needs_calibration(recipe):
        options["qformat"] = "full_prec" if recipe.quantization == "none" else recipe.quantization
        if recipe.kv_dtype != "bf16":
            options["kv_cache_dtype"] = recipe.kv_dtype
        options["calib_dataset"] = CALIBRATION
        options["calib_size"] = str(CALIBRATION_TEXTS)
        options["calib_max_seq_length"] = str(recipe.max_seq_len)
        title = (
            f"measure it on texts, and quantize: {recipe.quantization} weights, {recipe.kv_dtype} KV cache"
        )
    return Command(title, [sys.executable, "-m", CONVERT, *_options(options)])


def build_flags(recipe: EngineRecipe) -> dict[str, str]:
    """Gives the options of trtllm-build that make the engine, without the directories.

    Logits are not gathered: those of a whole vocabulary at every step would be the larger part of what the
    GPU sends. The executor takes the labels' logits where they are computed.
    """
    fp8_attention = recipe.kv_dtype == "fp8" and recipe.quantization in ("fp8", "nvfp4")
    return {
        "max_batch_size": str(recipe.max_batch_size),
        "max_num_tokens": str(recipe.max_num_tokens),
        "max_seq_len": str(recipe.max_seq_len),
        "max_input_len": str(recipe.max_seq_len),
        "max_beam_width": "1",
        "kv_cache_type": "paged",
        "tokens_per_block": str(recipe.tokens_per_block),
        "remove_input_padding": "enable",
        "context_fmha": "enable",
        "use_paged_context_fmha": "enable" if recipe.paged_context_fmha else "disable",
        "use_fp8_context_fmha": "enable" if fp8_attention else "disable",
        "gpt_attention_plugin": "auto",
        "gemm_plugin": recipe.gemm_plugin,
        "logits_dtype": "float32",
    }


def build_command(recipe: EngineRecipe) -> Command:
    """Gives the command that makes the engine."""
    folders = {"checkpoint_dir": CHECKPOINT, "output_dir": PLAN_FOLDER}
    arguments = [trtllm_build() or TRTLLM_BUILD, *_options({**folders, **build_flags(recipe)})]
    return Command("compile the engine for this GPU", [*arguments, "--log_level", "info"])


def trtllm_build() -> str | None:
    """Finds trtllm-build: on the PATH, or beside this Python."""
    return shutil.which(TRTLLM_BUILD) or shutil.which(TRTLLM_BUILD, path=str(Path(sys.executable).parent))


def _options(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", value)]
