"""What a GGUF file holds, read with the `gguf` package.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGUFReader

from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file; the shape is of its values, rows first."""

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    row_bytes: int
    offset: int  # bytes from the start of the file


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file's metadata (numbers, truth values, texts, lists of them) and its tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf(path: Path) -> GgufFile:
    """Reads what a GGUF file holds; the tensors' data stays on the disk.

    Args:
        path: The file.

    Returns:
        Its metadata and its tensors.

    Raises:
        BuildError: The file cannot be read, or a tensor lies outside it.
    """
    try:
        reader = _Reader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        tensors = {tensor.name: _tensor(tensor) for tensor in reader.tensors}
    except (OSError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise BuildError(f"{path}: not a readable GGUF file (damaged or truncated?): {error}") from error
    size = path.stat().st_size
    for name, tensor in tensors.items():
        end = tensor.offset + tensor.row_bytes * tensor.shape[0]
        if end > size:
            raise BuildError(
                f"{path}: tensor {name} ends at byte {end}, the file has {size} bytes: it is truncated"
            )
    return GgufFile(metadata, tensors)


class _Reader(GGUFReader):
    """Slices plain arrays: with mapped ones, as they come, each of some 500,000 texts takes twice as long."""

    @property  # type: ignore[override]
    def data(self) -> NDArray[np.uint8]:
        return self._plain

    @data.setter
    def data(self, mapped: NDArray[np.uint8]) -> None:
        self._plain = mapped.view(np.ndarray)


def _tensor(tensor: Any) -> GgufTensor:  # noqa: ANN401
    shape = tuple(int(size) for size in reversed(tensor.shape)) or (1,)
    return GgufTensor(
        tensor.tensor_type, shape, int(tensor.n_bytes) // max(1, shape[0]), int(tensor.data_offset)
    )
