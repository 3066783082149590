"""Texts that scales are measured on, when weights or keys and values are quantized."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from exp3rt_trt.engines.trtllm.commands import CALIBRATION_TEXTS
from exp3rt_trt.errors import BuildError
from exp3rt_trt.jsonl import read_lines

if TYPE_CHECKING:
    from pathlib import Path

LEAST_TEXTS = 16
FORMS = '{"text": ...} or {"prefix": ..., "candidates": [{"suffix": ...}, ...]} a line'


def read_texts(path: Path) -> list[str]:
    """Reads calibration texts.

    Args:
        path: JSONL of texts, or a workload as `exp3rt-trt bench` takes it; prompts as the student sees them.

    Returns:
        At most as many as are measured.

    Raises:
        BuildError: The file cannot be read, a line is of another form, or there are too few texts.
    """
    texts: list[str] = []
    for line in read_lines(str(path)):
        if line.error is not None:
            raise BuildError(f"{line.where}: {line.error}")
        texts += _texts(line.value, line.where)
    if len(texts) < LEAST_TEXTS:
        raise BuildError(f"{path}: {len(texts)} calibration texts; at least {LEAST_TEXTS} are needed")
    step = max(1, len(texts) // CALIBRATION_TEXTS)  # from all users
    return texts[::step][:CALIBRATION_TEXTS]


def write_texts(texts: list[str], folder: Path) -> None:
    """Writes the folder that TensorRT-LLM reads: split train, column text."""
    folder.mkdir()
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def _texts(value: dict[str, Any], where: str) -> list[str]:
    candidates = value.get("candidates")
    if isinstance(value.get("text"), str):
        return [value["text"]]
    if isinstance(value.get("prefix"), str) and isinstance(candidates, list):
        suffixes = [each.get("suffix") if isinstance(each, dict) else None for each in candidates]
        if all(isinstance(suffix, str) for suffix in suffixes):
            return [value["prefix"] + suffix for suffix in suffixes]
    raise BuildError(f"{where}: expected {FORMS}")
