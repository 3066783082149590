"""How a checkpoint's tensors become the engine's: what must be there, what is joined, packed, rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exp3rt_trt import _core
from exp3rt_trt.engines import rope
from exp3rt_trt.engines.families import FAMILIES
from exp3rt_trt.engines.weights_file import PlannedTensor
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from exp3rt_trt.engines.checkpoints import Checkpoint
    from exp3rt_trt.engines.manifest import ModelDims

CHUNK_BYTES = 32 << 20  # float32 rows that are in memory at a time
PANEL = 64  # columns of a packed panel
STORED = {"fp32": "F32", "bf16": "BF16", "int8": "I8"}
PADDING = {"fp32": 16, "bf16": 32, "int8": 64}  # a packed matrix's depth is rounded up to this
INT8_MATRICES = ("o", "gate_up")  # the others in int8 cost too much accuracy (docs/accuracy.md)
TABLES = {"fp32": "fp32", "bf16": "bf16", "int8": "bf16"}  # type of the embedding and the output matrix
EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"
IGNORED = ("rotary_emb.inv_freq",)  # buffers that old checkpoints carry; computed anew
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def check_tensors(checkpoint: Checkpoint, family: str, dims: ModelDims) -> None:
    """Holds a checkpoint's tensors against its config.

    Args:
        checkpoint: What is to be built.
        family: Key of FAMILIES.
        dims: As the config says.

    Raises:
        BuildError: Tensors are missing, unexpected, or of another shape; the message names them.
    """
    expected = _expected_shapes(checkpoint, family, dims)
    found = {name: shape for name, shape in checkpoint.shapes.items() if not name.endswith(IGNORED)}
    where = (
        checkpoint.config_path.parent if checkpoint.config_path.suffix == ".json" else checkpoint.config_path
    )
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise BuildError(f"{where}: missing {_names(missing)}")
    unexpected = sorted(found.keys() - expected.keys())
    if unexpected:
        raise BuildError(
            f"{where}: unexpected {_names(unexpected)}; a {family} without them is what is supported"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise BuildError(f"{where}: tensor {name} is {list(found[name])}, by the config {list(shape)}")


def plan_weights(checkpoint: Checkpoint, dims: ModelDims, dtype: str) -> list[PlannedTensor]:
    """Lists the engine's tensors in the order of the weights file.

    Packed matrices come first, so that each starts at a multiple of 64 bytes, and the embedding last.

    Args:
        checkpoint: Checked by `check_tensors`.
        dims: Of the model.
        dtype: "fp32", "bf16" or "int8".

    Returns:
        The plan; its chunks are read from the checkpoint when they are written.
    """
    shapes = checkpoint.shapes
    embedding = EMBEDDING if EMBEDDING in shapes else OUTPUT
    output = OUTPUT if OUTPUT in shapes else EMBEDDING
    layers = range(dims.num_layers)
    rows = _Rows(checkpoint, (embedding,))
    matrices = [
        _matrix(name, each, dtype)
        for layer in layers
        for name, each in _layer_rows(checkpoint, layer).items()
    ]
    inv_freq = rope.inverse_frequencies(dims.head_dim, dims.rope_theta, dims.rope_scaling)
    return [
        *(matrix for matrix, *_ in matrices),
        _packed("lm_head", _Rows(checkpoint, (output,)), TABLES[dtype]),
        *(tensor for _, *scales in matrices for tensor in scales),
        *(tensor for layer in layers for tensor in _layer_vectors(checkpoint, layer)),
        _vector("final_norm", _Rows(checkpoint, ("model.norm.weight",))),
        PlannedTensor("rope.inv_freq", "F32", inv_freq.shape, lambda: [inv_freq]),
        PlannedTensor("embed", STORED[TABLES[dtype]], rows.shape, lambda: _rounded(rows, TABLES[dtype])),
    ]


@dataclass(frozen=True)
class _Rows:
    """The rows of several tensors of a checkpoint, one after the other."""

    checkpoint: Checkpoint
    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        shapes = [self.checkpoint.shapes[name] for name in self.names]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """float32 [stop - start, ...]."""
        pieces = []
        for name in self.names:
            count = self.checkpoint.shapes[name][0]
            first, last = max(start, 0), min(stop, count)
            if first < last:
                pieces.append(self.checkpoint.rows(name, first, last))
            start, stop = start - count, stop - count
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """All rows, in chunks of whole panels, so that packed chunks can be written one after the other."""
        count, depth = self.shape
        step = max(1, CHUNK_BYTES // (4 * PANEL * depth)) * PANEL
        for start in range(0, count, step):
            yield self.read(start, min(start + step, count))


def _matrix(name: str, rows: _Rows, dtype: str) -> list[PlannedTensor]:
    """Plans a layer's matrix, and behind it what else belongs to it."""
    in_int8 = dtype == "int8" and name.rpartition(".")[2] in INT8_MATRICES
    return _quantized(name, rows) if in_int8 else [_packed(name, rows, TABLES[dtype])]


def _packed(name: str, rows: _Rows, dtype: str) -> PlannedTensor:
    def chunks() -> Iterator[NDArray[Any]]:
        return (_core.pack_matrix(chunk, dtype) for chunk in rows.chunks())

    return PlannedTensor(name, STORED[dtype], _packed_shape(rows, dtype), chunks)


def _packed_shape(rows: _Rows, dtype: str) -> tuple[int, int, int]:
    count, depth = rows.shape
    return -(-count // PANEL), -(-depth // PADDING[dtype]) * PADDING[dtype], PANEL


def _quantized(name: str, rows: _Rows) -> list[PlannedTensor]:
    """Plans an int8 matrix, and its scales and sums, which are known once its integers are written."""
    kept: list[list[NDArray[np.float32]]] = []  # 8 bytes a row

    def integers() -> Iterator[NDArray[np.int8]]:
        kept.clear()
        for chunk in rows.chunks():
            packed, *scales = _core.pack_matrix_int8(chunk)
            kept.append(scales)
            yield packed

    def part(index: int) -> Iterator[NDArray[np.float32]]:
        return (scales[index] for scales in kept)

    return [
        PlannedTensor(name, STORED["int8"], _packed_shape(rows, "int8"), integers),
        PlannedTensor(f"{name}.scale", "F32", rows.shape[:1], lambda: part(0)),
        PlannedTensor(f"{name}.sum", "F32", rows.shape[:1], lambda: part(1)),
    ]


def _vector(name: str, rows: _Rows) -> PlannedTensor:
    return PlannedTensor(name, "F32", rows.shape, lambda: [rows.read(0, rows.shape[0])])


def _rounded(rows: _Rows, dtype: str) -> Iterable[NDArray[Any]]:
    return (_core.to_bf16(chunk) for chunk in rows.chunks()) if dtype == "bf16" else rows.chunks()


def _layer_rows(checkpoint: Checkpoint, layer: int) -> dict[str, _Rows]:
    at = f"model.layers.{layer}."
    sources = {
        "qkv": [f"self_attn.{name}" for name in PROJECTIONS],
        "o": ["self_attn.o_proj"],
        "gate_up": ["mlp.gate_proj", "mlp.up_proj"],
        "down": ["mlp.down_proj"],
    }
    return {
        f"layers.{layer}.{name}": _Rows(checkpoint, tuple(f"{at}{part}.weight" for part in parts))
        for name, parts in sources.items()
    }


def _layer_vectors(checkpoint: Checkpoint, layer: int) -> list[PlannedTensor]:
    at = f"model.layers.{layer}."
    sources = {
        "attn_norm": ["input_layernorm.weight"],
        "mlp_norm": ["post_attention_layernorm.weight"],
        "qkv_bias": [f"self_attn.{name}.bias" for name in PROJECTIONS],
        "q_norm": ["self_attn.q_norm.weight"],
        "k_norm": ["self_attn.k_norm.weight"],
    }
    return [
        _vector(f"layers.{layer}.{name}", _Rows(checkpoint, tuple(at + part for part in parts)))
        for name, parts in sources.items()
        if at + parts[0] in checkpoint.shapes
    ]


def _expected_shapes(checkpoint: Checkpoint, family: str, dims: ModelDims) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (dims.hidden_size,)}
    tables = [EMBEDDING, OUTPUT]
    if dims.tie_word_embeddings and any(name in checkpoint.shapes for name in tables):
        tables = [name for name in tables if name in checkpoint.shapes]  # one may stand for both
    shapes.update(dict.fromkeys(tables, (dims.vocab_size, dims.hidden_size)))
    bias = FAMILIES[family].qkv_bias or "model.layers.0.self_attn.q_proj.bias" in checkpoint.shapes
    for layer in range(dims.num_layers):
        for name, shape in layer_shapes(dims, qkv_bias=bias, qk_norm=FAMILIES[family].qk_norm).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    return shapes


def layer_shapes(dims: ModelDims, *, qkv_bias: bool, qk_norm: bool) -> dict[str, tuple[int, ...]]:
    """Tells the shapes of one layer's tensors in a checkpoint, by their names within the layer."""
    hidden, inner = dims.hidden_size, dims.intermediate_size
    query, key = dims.num_heads * dims.head_dim, dims.num_kv_heads * dims.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.o_proj.weight": (hidden, query),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    for name, rows in zip(PROJECTIONS, (query, key, key), strict=True):
        shapes[f"self_attn.{name}.weight"] = (rows, hidden)
        if qkv_bias:
            shapes[f"self_attn.{name}.bias"] = (rows,)
    if qk_norm:
        shapes |= {f"self_attn.{name}_norm.weight": (dims.head_dim,) for name in "qk"}
    return shapes


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"tensor{'s' if len(names) > 1 else ''} {shown}"
