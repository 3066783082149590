"""The student as a Hugging Face checkpoint that TensorRT-LLM reads: merged, in bf16, without code."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING

from exp3rt_trt.distill.merge import save_checkpoint
from exp3rt_trt.engines import families
from exp3rt_trt.engines.layout import check_tensors
from exp3rt_trt.engines.manifest import TOKENIZER_CONFIG
from exp3rt_trt.engines.rope import scaling_type
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.engines.checkpoints import Checkpoint
    from exp3rt_trt.engines.manifest import ModelDims

SPACE = 4  # times the student's size: the student, TensorRT-LLM's checkpoint, the engine, and what they pass


def check_student(checkpoint: Checkpoint, folder: Path) -> tuple[str, ModelDims]:
    """Refuses what cannot become an engine, before hours are spent on it.

    Args:
        checkpoint: The student.
        folder: Where it will be written.

    Returns:
        The family and the dimensions.

    Raises:
        BuildError: The family or a tensor is not supported, or the disk is too full.
    """
    where = str(checkpoint.config_path)
    family = families.architecture(checkpoint.config, where)
    dims = families.dimensions(checkpoint.config, where)
    check_tensors(checkpoint, family, dims)
    if scaling_type(dims.rope_scaling) == "factors":
        raise BuildError(
            f"{where}: rope_scaling of type factors (of a GGUF file) is not known to TensorRT-LLM; build "
            "from the model's Hugging Face checkpoint"
        )
    items = sum(math.prod(shape) for shape in checkpoint.shapes.values())
    needed, free = SPACE * 2 * items, shutil.disk_usage(folder).free
    if needed > free:
        raise BuildError(
            f"{folder}: the build takes {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
        )
    return family, dims


def write_student(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes config, tokenizer and weights.

    The configs may name code to be fetched (auto_map), which TensorRT-LLM would run; it is left out.
    """
    save_checkpoint(checkpoint, folder)
    for name in ("config.json", TOKENIZER_CONFIG):
        path = folder / name
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("auto_map", None)
        if name == "config.json" and not config.get("architectures"):
            config["architectures"] = [families.FAMILIES[config["model_type"]].causal_lm]
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
