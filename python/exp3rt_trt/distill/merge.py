"""Merges an adapter into its base, and saves the student as a Hugging Face checkpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from exp3rt_trt import _core
from exp3rt_trt.engines.adapters import AdaptedCheckpoint
from exp3rt_trt.engines.sources import open_checkpoint, resolve
from exp3rt_trt.engines.weights_file import PlannedTensor, write_weights
from exp3rt_trt.rating import SCALE_FILE
from exp3rt_trt.segments import LAYOUT_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from exp3rt_trt.engines.checkpoints import Checkpoint

CHUNK_ROWS = 4096


def merge_adapter(base: str, adapter: Path, out: Path) -> None:
    """Write config, tokenizer and bf16 weights of a base with its adapter merged.

    Tensor by tensor: peak memory is one chunk of rows, whatever the model's size.

    Args:
        base: name of a base student, a checkpoint directory or a .gguf file.
        adapter: directory in PEFT's form.
        out: the checkpoint's directory.

    Raises:
        BuildError: if the two do not fit, or a file is damaged.
    """
    save_checkpoint(AdaptedCheckpoint(open_checkpoint(resolve(base)), adapter), out)


def save_checkpoint(student: Checkpoint, out: Path) -> None:
    """Write any checkpoint (a GGUF file, a merged adapter) as a Hugging Face directory in bf16."""
    out.mkdir(parents=True, exist_ok=True)
    student.tokenizer().save_pretrained(out)
    config = {**student.config, "dtype": "bfloat16"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    ends = {"eos_token_id": sorted(set(student.eos_tokens))}
    (out / "generation_config.json").write_text(json.dumps(ends) + "\n", encoding="utf-8")
    if student.layout.segmented:
        (out / LAYOUT_FILE).write_text(student.layout.to_json(), encoding="utf-8")
    if student.scale is not None:
        (out / SCALE_FILE).write_text(student.scale.to_json(), encoding="utf-8")
    write_weights(out / "model.safetensors", [_planned(student, name) for name in student.shapes])


def _planned(student: Checkpoint, name: str) -> PlannedTensor:
    shape = student.shapes[name]

    def chunks() -> Iterator[NDArray[np.uint16]]:
        for start in range(0, shape[0], CHUNK_ROWS):
            yield _core.to_bf16(student.rows(name, start, min(start + CHUNK_ROWS, shape[0])))

    return PlannedTensor(name, "BF16", shape, chunks)
