"""What a model takes of a device's memory: weights, blocks of the KV cache, and what a step needs besides.

Of the CPU engine these are its real sizes. Of TensorRT-LLM they are computed from what its formats store;
what a step needs besides is an estimate, and none of it was held against a GPU yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from exp3rt_trt import _core
from exp3rt_trt.engines import families, sources
from exp3rt_trt.engines.checkpoints import read_json
from exp3rt_trt.engines.families import FAMILIES
from exp3rt_trt.engines.layout import EMBEDDING, OUTPUT, TABLES, layer_shapes, plan_weights
from exp3rt_trt.engines.manifest import MANIFEST, Manifest
from exp3rt_trt.engines.students import STUDENTS
from exp3rt_trt.engines.weights_file import weights_size
from exp3rt_trt.errors import BuildError
from exp3rt_trt.segments import CAUSAL, SegmentLayout, read_layout

if TYPE_CHECKING:
    from exp3rt_trt.engines.checkpoints import Checkpoint
    from exp3rt_trt.engines.manifest import ModelDims
    from exp3rt_trt.engines.recipes import EngineRecipe

ITEM_BYTES = {"fp32": 4, "bf16": 2, "fp8": 1, "int8": 1}
MULTIPLIED_FROM = {"fp32": "avx2", "bf16": "avx512_bf16", "int8": "avx512_vnni"}  # csrc/ops/isa.cc
PANEL = 64  # columns of a packed operand, and tokens of the CPU engine's blocks
GPU_RUNTIME_BYTES = 1 << 30  # CUDA's context, libraries and their workspaces; an estimate
CPU_RUNTIME_BYTES = 256 << 20  # Python and the tokenizer; an estimate


@dataclass(frozen=True)
class PlannedModel:
    """A model by its dimensions; dtype is that of a CPU engine, None for a checkpoint."""

    name: str
    family: str
    dims: ModelDims
    dtype: str | None = None
    layout: SegmentLayout = CAUSAL


def read_model(model: str) -> PlannedModel:
    """Reads the dimensions of a model; no weights are read, and of a hub's model none are downloaded.

    Args:
        model: Name of a base student, an engine or checkpoint directory (config.json is enough), a .gguf
            file, or a hub repository ("owner/name").

    Returns:
        The model.

    Raises:
        BuildError: It cannot be found, or its family is not supported.
        EngineError: An engine's manifest is damaged.
    """
    path = Path(model).expanduser()
    if (path / MANIFEST).exists():
        manifest = Manifest.load(path / MANIFEST)
        dtype = manifest.dtype if manifest.target.kind == "cpu" else None
        return PlannedModel(model, manifest.architecture, manifest.model, dtype, manifest.layout)
    layout = CAUSAL
    if (path / "config.json").exists():
        layout = read_layout(path)
        config, where = read_json(path / "config.json"), path / "config.json"
    elif model not in STUDENTS and not path.exists() and sources.HUB_NAME.fullmatch(model):
        where = _config_of_hub(model)
        config = read_json(where)
    else:
        checkpoint = sources.open_checkpoint(sources.resolve(model))
        config, where = dict(checkpoint.config), checkpoint.config_path
    family, dims = families.architecture(config, str(where)), families.dimensions(config, str(where))
    return PlannedModel(model, family, dims, layout=layout)


def gpu_weights_bytes(model: PlannedModel, quantization: str, dtype: str) -> int:
    """Computes what the weights take in a TensorRT engine.

    The layers' matrices are quantized; embedding, output matrix, norms and biases are not. Tied embeddings
    are stored once.

    Args:
        model: Whose weights.
        quantization: As in a recipe.
        dtype: Of what is not quantized.
    """
    dims, item = model.dims, ITEM_BYTES[dtype]
    tables = dims.vocab_size * dims.hidden_size * (1 if dims.tie_word_embeddings else 2)
    layer = 0
    for shape in _layer_shapes(model).values():
        layer += math.prod(shape) * item if len(shape) == 1 else _matrix_bytes(shape, quantization, item)
    return (tables + dims.hidden_size) * item + dims.num_layers * layer


def _matrix_bytes(shape: tuple[int, ...], quantization: str, item: int) -> int:
    rows, count = shape[0], math.prod(shape)
    sizes = {
        "none": count * item,
        "fp8": count,  # one scale for all
        "nvfp4": count // 2 + count // 16,  # an FP8 scale for 16 weights
        "int8_sq": count + 4 * rows,  # an fp32 scale for a row
        "int4_awq": count // 2 + count // 128 * item,  # a scale for 128 weights
    }
    return sizes[quantization]


def gpu_block_bytes(dims: ModelDims, kv_dtype: str, tokens_per_block: int) -> int:
    """Computes what a block takes in TensorRT-LLM: keys and values of all layers."""
    token = 2 * dims.num_layers * dims.num_kv_heads * dims.head_dim * ITEM_BYTES[kv_dtype]
    return token * tokens_per_block


def gpu_working_bytes(dims: ModelDims, recipe: EngineRecipe) -> int:
    """Estimates what a step needs: activations of its tokens, fp32 logits of its sequences, the runtime."""
    logits = recipe.max_batch_size * dims.vocab_size * 4
    return recipe.max_num_tokens * _widths(dims) * 2 + logits + GPU_RUNTIME_BYTES


def cpu_weights_bytes(model: PlannedModel, dtype: str, isa: str) -> int:
    """Computes what the weights take in the CPU engine.

    Args:
        model: Whose weights.
        dtype: Of the engine.
        isa: Matrices of a type that it does not multiply are widened to fp32 beside the file.
    """
    checkpoint = cast("Checkpoint", SimpleNamespace(shapes=_shapes(model)))  # only shapes are asked for
    plan = plan_weights(checkpoint, model.dims, dtype)
    widened = [name for name in ("bf16", "int8") if not _multiplies(isa, name)]
    stored = [{"bf16": "BF16", "int8": "I8"}[name] for name in widened]
    packed = [tensor for tensor in plan if len(tensor.shape) == 3]
    return weights_size(plan) + sum(
        math.prod(tensor.shape) * 4 for tensor in packed if tensor.dtype in stored
    )


def cpu_kv_dtype(dtype: str, isa: str) -> str:
    """Tells in which type the CPU engine keeps keys and values: that of its products."""
    return "bf16" if TABLES[dtype] == "bf16" and _multiplies(isa, "bf16") else "fp32"


def cpu_block_bytes(dims: ModelDims, kv_dtype: str) -> int:
    """Computes what a block of 64 tokens takes in the CPU engine: packed operands of its products.

    In bf16 a key is kept as two halves (csrc/ops/attention.h).
    """
    item = ITEM_BYTES[kv_dtype]
    key = dims.head_dim * (2 if kv_dtype == "bf16" else 1)
    padded_key = _round_up(key, 64 // item)
    panels = -(-dims.head_dim // PANEL)
    return dims.num_layers * dims.num_kv_heads * (padded_key + panels * PANEL) * PANEL * item


def cpu_item_bytes(dims: ModelDims, kv_dtype: str, num_tokens: int) -> int:
    """Computes what an item of a segmented student takes, in memory and in a catalogue.

    Whole blocks of 64 tokens, with keys rounded once; int8 has fp32 scales beside them, of keys by channel
    and of values by token (csrc/ops/item_format.h).

    Args:
        dims: Of the model.
        kv_dtype: Of items: "int8", or what `cpu_kv_dtype` tells.
        num_tokens: Of the item.
    """
    panels = -(-dims.head_dim // PANEL)
    numbers = (dims.head_dim + panels * PANEL) * PANEL
    scales = (dims.head_dim + PANEL) * 4 if kv_dtype == "int8" else 0
    head = _round_up(numbers * ITEM_BYTES[kv_dtype] + scales, 64)
    return dims.num_layers * -(-num_tokens // PANEL) * dims.num_kv_heads * head


def cpu_working_bytes(dims: ModelDims, recipe: EngineRecipe) -> int:
    """Estimates what a step of the CPU engine needs, and the process around it."""
    return recipe.max_num_tokens * _widths(dims) * 4 + CPU_RUNTIME_BYTES


def _widths(dims: ModelDims) -> int:
    """Numbers of a token within a layer: residual and norm, in and out; qkv; gate, up and their product."""
    qkv = (dims.num_heads + 2 * dims.num_kv_heads) * dims.head_dim
    return 4 * dims.hidden_size + qkv + 3 * dims.intermediate_size


def _multiplies(isa: str, dtype: str) -> bool:
    return _core.isa_at_least(isa, MULTIPLIED_FROM[dtype])


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _layer_shapes(model: PlannedModel) -> dict[str, tuple[int, ...]]:
    family = FAMILIES[model.family]
    return layer_shapes(model.dims, qkv_bias=family.qkv_bias, qk_norm=family.qk_norm)


def _shapes(model: PlannedModel) -> dict[str, tuple[int, ...]]:
    dims = model.dims
    table = (dims.vocab_size, dims.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: table, "model.norm.weight": (dims.hidden_size,)}
    if not dims.tie_word_embeddings:
        shapes[OUTPUT] = table
    layer = _layer_shapes(model)
    for index in range(dims.num_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return shapes


def _config_of_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    try:
        return Path(hf_hub_download(name, "config.json"))
    except Exception as error:  # the hub's client raises its own and its HTTP library's errors
        raise BuildError(
            f"model {name!r}: not a local path, and the hub could not give it: {error}"
        ) from error
