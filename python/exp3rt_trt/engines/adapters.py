"""LoRA adapters: a checkpoint whose weights are those of a base and an adapter, merged as they are read."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from exp3rt_trt.engines.checkpoints import Checkpoint, read_json, read_rows
from exp3rt_trt.engines.weights_file import read_header
from exp3rt_trt.errors import BuildError
from exp3rt_trt.rating import SCALE_FILE, read_scale
from exp3rt_trt.segments import LAYOUT_FILE, read_layout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from exp3rt_trt.engines.weights_file import StoredTensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_OFF = ("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern")


class AdaptedCheckpoint(Checkpoint):
    """A base checkpoint with a LoRA adapter: W + scale * B @ A, chunk by chunk, in float32.

    PEFT is not needed; the file's form is that of its `save_pretrained`.

    Args:
        base: What the adapter was trained on.
        path: Directory with adapter_config.json and adapter_model.safetensors.

    Raises:
        BuildError: A file is missing or damaged, the adapter is of another kind, or it does not fit the base.
    """

    def __init__(self, base: Checkpoint, path: Path) -> None:
        self._base = base
        self._scale = _scale(read_json(path / CONFIG), path / CONFIG)
        self._file = path / WEIGHTS
        if not self._file.exists():
            raise BuildError(f"{self._file}: missing")
        stored = {tensor.name: tensor for tensor in read_header(self._file, BuildError)}
        self._pairs = _pairs(stored, base.shapes, self._file)
        self.config, self.config_path = base.config, base.config_path
        self.shapes, self.eos_tokens = base.shapes, base.eos_tokens
        self.files = [*base.files, path / CONFIG, path / WEIGHTS]
        self.layout, self.scale = read_layout(path), read_scale(path)
        self.files += [path / name for name in (LAYOUT_FILE, SCALE_FILE) if (path / name).exists()]

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Reads some rows of a tensor, merged; see `Checkpoint.rows`."""
        rows = self._base.rows(name, start, stop)
        if name not in self._pairs:
            return rows
        stored_a, stored_b = self._pairs[name]
        a = read_rows(self._file, stored_a, 0, stored_a.shape[0])  # [rank, in_features]
        b = read_rows(self._file, stored_b, start, stop)  # [stop - start, rank]
        merged: NDArray[np.float32] = rows + np.float32(self._scale) * (b @ a)
        return merged

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Loads the base's tokenizer."""
        return self._base.tokenizer()

    @property
    def tokenizer_json(self) -> str | None:
        """The base's own tokenizer.json, if it has one."""
        return self._base.tokenizer_json


def _scale(config: Mapping[str, Any], where: Path) -> float:
    """The factor before B @ A; refuses what would need more than that product."""
    if config.get("peft_type") != "LORA":
        raise BuildError(f"{where}: peft_type {config.get('peft_type')!r} is not supported; supported: LORA")
    for field in _OFF:
        if config.get(field):
            raise BuildError(f"{where}: {field} is not supported: only W + scale * B @ A is merged")
    if config.get("bias", "none") != "none":
        raise BuildError(f"{where}: bias {config['bias']!r} is not supported; supported: none")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, (int, float)):
        raise BuildError(f"{where}: r {rank!r} and lora_alpha {alpha!r} must be numbers, r at least 1")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pairs(
    stored: Mapping[str, StoredTensor], base: Mapping[str, tuple[int, ...]], where: Path
) -> dict[str, tuple[StoredTensor, StoredTensor]]:
    """A and B by the name of the tensor that they change."""
    pairs = {}
    for name, a in stored.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise BuildError(f"{where}: tensor {name} is not a part of a LoRA adapter")
        if match["side"] == "B":
            continue
        target = match["module"] + ".weight"
        b = stored.get(name.replace(".lora_A.", ".lora_B."))
        if b is None:
            raise BuildError(f"{where}: tensor {name} has no lora_B beside it")
        if target not in base:
            raise BuildError(f"{where}: tensor {name}: the base has no {target}")
        if len(a.shape) != 2 or a.shape[0] != b.shape[-1] or (b.shape[0], a.shape[1]) != base[target]:
            shapes = f"{list(b.shape)} x {list(a.shape)}"
            raise BuildError(f"{where}: tensor {name}: {shapes} does not fit {target} {list(base[target])}")
        pairs[target] = (a, b)
    if 2 * len(pairs) != len(stored) or not pairs:
        raise BuildError(f"{where}: lora_A and lora_B do not come in pairs")
    return pairs
