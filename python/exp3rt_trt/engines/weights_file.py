"""The safetensors format: a writer that streams, and a reader of headers.

The `safetensors` package wants all tensors in memory to write, cannot give bfloat16 to numpy, and does not
name the tensor that is damaged; the format itself is a length, a JSON header and the data
(https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from exp3rt_trt.engines.manifest import FileRecord
from exp3rt_trt.errors import BuildError, EngineError, Exp3rtError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Progress = Callable[[str, int, int], None]  # tensor being written, bytes written, bytes in all

ALIGNMENT = 64  # bytes; a cache line
MAX_HEADER_BYTES = 100_000_000  # as the safetensors package limits it
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file; offset and num_bytes in bytes, offset from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to be written: its size is known now, its data is made in chunks when its turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[NDArray[Any]]]  # C-contiguous; together they are the tensor

    @property
    def num_bytes(self) -> int:
        """Size of the tensor in bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def weights_size(plan: Sequence[PlannedTensor]) -> int:
    """Computes the size in bytes of the file that `write_weights` writes."""
    return len(_header(plan)) + sum(tensor.num_bytes for tensor in plan)


def write_weights(path: Path, plan: Sequence[PlannedTensor], progress: Progress | None = None) -> FileRecord:
    """Writes a safetensors file tensor by tensor, in the order of the plan, and flushes it to the disk.

    Args:
        path: The new file.
        plan: What to write; the data starts at a multiple of 64 bytes.
        progress: Called after each chunk.

    Returns:
        The file's size and sha256.

    Raises:
        BuildError: A tensor's chunks do not add up to its size.
    """
    header = _header(plan)
    total = len(header) + sum(tensor.num_bytes for tensor in plan)
    digest = hashlib.sha256(header)
    done = len(header)
    with path.open("wb") as file:
        file.write(header)
        for tensor in plan:
            end = done + tensor.num_bytes
            for chunk in tensor.chunks():
                data = chunk.data.cast("B")
                file.write(data)
                digest.update(data)
                done += len(data)
                if progress is not None:
                    progress(tensor.name, done, total)
            if done != end:
                raise BuildError(f"{path.name}: tensor {tensor.name}: {done - end:+} bytes against its size")
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(total, digest.hexdigest())


def sha256_of(path: Path) -> str:
    """Computes the sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def read_header(path: Path, error: type[Exp3rtError] = EngineError) -> list[StoredTensor]:
    """Reads what tensors a safetensors file holds, and checks that they lie in it without overlap.

    Args:
        path: The file.
        error: What to raise.

    Returns:
        The tensors in the order of their offsets.

    Raises:
        Exp3rtError: Of the class `error`: unreadable, truncated, or a header that contradicts itself.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise error(
                    f"{path}: the header does not fit into the file's {size} bytes: truncated or damaged"
                )
            raw = json.loads(file.read(length))
    except (OSError, ValueError) as problem:
        raise error(f"{path}: the header cannot be read: {problem}") from problem
    if not isinstance(raw, dict):
        raise error(f"{path}: the header is not a JSON object")
    raw.pop("__metadata__", None)
    start = 8 + length
    tensors = [_entry(name, value, start, f"{path}: tensor {name}", error) for name, value in raw.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.num_bytes))
    _check_layout(path, tensors, start, size, error)
    return tensors


def _header(plan: Sequence[PlannedTensor]) -> bytes:
    entries: dict[str, Any] = {}
    begin = 0
    for tensor in plan:
        end = begin + tensor.num_bytes
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)  # the format allows spaces after the header
    return len(text).to_bytes(8, "little") + text


def _entry(name: str, raw: object, start: int, where: str, error: type[Exp3rtError]) -> StoredTensor:
    fields = raw if isinstance(raw, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if dtype not in ITEM_BYTES:
        raise error(f"{where}: unknown dtype {dtype!r}")
    if not _is_counts(shape):
        raise error(f"{where}: bad shape {shape!r}")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise error(f"{where}: bad data_offsets {offsets!r}")
    num_bytes = offsets[1] - offsets[0]
    expected = math.prod(shape) * ITEM_BYTES[dtype]
    if num_bytes != expected:
        raise error(f"{where}: {dtype} {shape} takes {expected} bytes, data_offsets give it {num_bytes}")
    return StoredTensor(name, dtype, tuple(shape), start + offsets[0], num_bytes)


def _is_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(count) is int and count >= 0 for count in value)


def _check_layout(
    path: Path, tensors: list[StoredTensor], start: int, size: int, error: type[Exp3rtError]
) -> None:
    end, previous = start, "the header"
    for tensor in tensors:
        if tensor.offset < end:
            raise error(f"{path}: tensor {tensor.name} overlaps {previous}")
        end, previous = tensor.offset + tensor.num_bytes, tensor.name
        if end > size:
            raise error(
                f"{path}: tensor {tensor.name} ends at byte {end}, the file has {size} bytes: it is truncated"
            )
    if end != size:
        raise error(f"{path}: {size - end} bytes follow the last tensor")
