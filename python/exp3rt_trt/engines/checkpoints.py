"""Checkpoints: what engines are built from. Here, the interface and Hugging Face directories."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from exp3rt_trt.engines.hugging_face import load_transformers
from exp3rt_trt.engines.weights_file import StoredTensor, read_header
from exp3rt_trt.errors import BuildError
from exp3rt_trt.rating import SCALE_FILE, read_scale
from exp3rt_trt.segments import CAUSAL, LAYOUT_FILE, read_layout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from exp3rt_trt.rating import RatingScale
    from exp3rt_trt.segments import SegmentLayout

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    LAYOUT_FILE,
    SCALE_FILE,
)


class Checkpoint(ABC):
    """A model's weights, config and tokenizer, under the names that Hugging Face gives them.

    Attributes:
        config: As in config.json.
        config_path: Where the config stands, for messages.
        files: Every file that the engine depends on.
        shapes: Of all tensors, by name.
        eos_tokens: Tokens that end a text, as the checkpoint's configs say.
        layout: How the student reads a prompt.
        scale: What the student answers on; None if that is not known.
    """

    config: Mapping[str, Any]
    config_path: Path
    files: list[Path]
    shapes: Mapping[str, tuple[int, ...]]
    eos_tokens: list[int]
    layout: SegmentLayout = CAUSAL
    scale: RatingScale | None = None

    @abstractmethod
    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Reads some rows of a tensor.

        Args:
            name: Of the tensor.
            start: First row.
            stop: Row after the last one.

        Returns:
            float32 [stop - start, ...], C-contiguous.

        Raises:
            BuildError: The tensor's type cannot be read.
        """

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Reads a tensor as float32; see `rows`."""
        return self.rows(name, 0, self.shapes[name][0])

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Loads the tokenizer with its chat template."""

    @property
    @abstractmethod
    def tokenizer_json(self) -> str | None:
        """The checkpoint's own tokenizer.json; None if the tokenizer has to be asked for it."""


class DirectoryCheckpoint(Checkpoint):
    """A Hugging Face checkpoint directory with safetensors, in one file or in shards.

    Args:
        path: The directory.

    Raises:
        BuildError: A file is missing or damaged, or there are only pickled weights.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        if (path / "adapter_config.json").exists() and not self.config_path.exists():
            raise BuildError(f"{path}: a LoRA adapter alone; give it as the adapter of its base model")
        if not self.config_path.exists():
            raise BuildError(f"{path}: neither an engine (manifest.json) nor a checkpoint (config.json)")
        self.config = read_json(self.config_path)
        self._tensors = _stored_tensors(path)
        self.shapes = {name: tensor.shape for name, (_, tensor) in self._tensors.items()}
        weights = sorted({file for file, _ in self._tensors.values()})
        self.files = [file for name in SIDE_FILES if (file := path / name).exists()] + weights
        self.layout, self.scale = read_layout(path), read_scale(path)
        self.eos_tokens = _eos_tokens(self.config)
        if (path / "generation_config.json").exists():
            self.eos_tokens += _eos_tokens(read_json(path / "generation_config.json"))

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Reads some rows of a tensor; see `Checkpoint.rows`."""
        return read_rows(*self._tensors[name], start, stop)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Loads the tokenizer with its chat template."""
        try:
            tokenizer: PreTrainedTokenizerBase = load_transformers().AutoTokenizer.from_pretrained(
                str(self.path), trust_remote_code=False, local_files_only=True
            )
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise BuildError(f"{self.path}: the tokenizer cannot be loaded: {error}") from error
        return tokenizer

    @property
    def tokenizer_json(self) -> str | None:
        """The checkpoint's own tokenizer.json, if it has one."""
        path = self.path / "tokenizer.json"
        return path.read_text(encoding="utf-8") if path.exists() else None


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a checkpoint.

    Raises:
        BuildError: The file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise BuildError(f"{path}: not a JSON object")
    return value


def read_rows(file: Path, stored: StoredTensor, start: int, stop: int) -> NDArray[np.float32]:
    """Reads some rows of a tensor of a safetensors file; see `Checkpoint.rows`."""
    row_bytes = stored.num_bytes // stored.shape[0]
    shape = (stop - start, *stored.shape[1:])
    raw = read_bytes(file, stored.offset + start * row_bytes, (stop - start) * row_bytes)
    return _widen(raw, stored, f"{file}: tensor {stored.name}").reshape(shape)


def read_bytes(path: Path, offset: int, count: int) -> NDArray[np.uint8]:
    """Reads a piece of a file.

    Read and not mapped: mapped pages of a checkpoint would stay in the process's memory as they are touched.

    Raises:
        BuildError: The file is too short.
    """
    raw = np.fromfile(path, dtype=np.uint8, count=count, offset=offset)
    if len(raw) != count:
        raise BuildError(
            f"{path}: ends at byte {offset + len(raw)}, expected {offset + count}: it is truncated"
        )
    return raw


def _widen(raw: NDArray[np.uint8], stored: StoredTensor, where: str) -> NDArray[np.float32]:
    if stored.dtype == "F32":
        return raw.view(np.float32)
    if stored.dtype == "F16":
        return raw.view(np.float16).astype(np.float32)
    if stored.dtype == "BF16":
        wide = raw.view(np.uint16).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    raise BuildError(f"{where}: type {stored.dtype} is not supported; supported: F32, F16, BF16")


def _stored_tensors(path: Path) -> dict[str, tuple[Path, StoredTensor]]:
    tensors: dict[str, tuple[Path, StoredTensor]] = {}
    index = _index(path)
    names = sorted(set(index.values())) if index else [SINGLE]
    for name in names:
        file = path / name
        if not file.exists():
            raise _no_weights(path, name)
        for stored in read_header(file, BuildError):
            if stored.name in tensors:
                raise BuildError(f"{file}: tensor {stored.name} is in {tensors[stored.name][0].name} too")
            tensors[stored.name] = (file, stored)
    for tensor, name in index.items():
        if tensor not in tensors:
            raise BuildError(f"{path / name}: tensor {tensor} is missing, which {INDEX} says is there")
    return tensors


def _index(path: Path) -> dict[str, str]:
    """File by tensor, or nothing if there are no shards."""
    file = path / INDEX
    if not file.exists():
        return {}
    weight_map = read_json(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BuildError(f"{file}: weight_map must be an object that names a file for each tensor")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors"):
            raise BuildError(f"{file}: tensor {tensor}: {name!r} is not the name of a safetensors file")
    return weight_map


def _no_weights(path: Path, name: str) -> BuildError:
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLES)
    if pickles:
        return BuildError(
            f"{path / pickles[0]}: pickled weights are never loaded, because a pickle can run any code; "
            "save the model as safetensors"
        )
    return BuildError(f"{path / name}: missing; needed: {SINGLE}, or {INDEX} with its shards")


def _eos_tokens(config: Mapping[str, Any]) -> list[int]:
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return [token for token in values if type(token) is int]
