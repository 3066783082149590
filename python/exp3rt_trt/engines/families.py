"""The families of models that engines are built for: their configs, as dimensions of the decoder.

A config is a dict as in a Hugging Face config.json; keys that are absent take the family's defaults (the
same as in `transformers`, which writes every key but cannot be asked without knowing the version that wrote
the file).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exp3rt_trt.engines import rope
from exp3rt_trt.engines.manifest import ModelDims
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Family:
    """What sets a family apart, besides its dimensions."""

    causal_lm: str  # name of its class in `transformers`
    max_context: int  # default
    num_kv_heads: int | None = None  # default; None: as many as heads
    head_dim: int | None = None  # default; None: hidden_size / num_heads
    qkv_bias: bool = False
    qk_norm: bool = False
    always_sliding: bool = False  # else a sliding window holds only where use_sliding_window is set
    sliding_window: int | None = None  # default


FAMILIES = {
    "llama": Family("LlamaForCausalLM", max_context=2048),
    "mistral": Family(
        "MistralForCausalLM", max_context=131072, num_kv_heads=8, always_sliding=True, sliding_window=4096
    ),
    "qwen2": Family("Qwen2ForCausalLM", max_context=32768, num_kv_heads=32, qkv_bias=True),
    "qwen3": Family("Qwen3ForCausalLM", max_context=32768, num_kv_heads=32, head_dim=128, qk_norm=True),
}
NAMES = "Llama 2 and 3, SmolLM2 (llama), Mistral (mistral), Qwen2 and Qwen2.5 (qwen2), Qwen3 (qwen3)"


def architecture(config: Mapping[str, Any], where: str) -> str:
    """Names the family of a config.

    Args:
        config: As in config.json.
        where: The config's file, for messages.

    Returns:
        A key of FAMILIES.

    Raises:
        BuildError: Another family, another head than a language model's, or quantized weights.
    """
    name = config.get("model_type")
    if name not in FAMILIES:
        raise BuildError(f"{where}: model_type {name!r} is not supported; supported: {NAMES}")
    classes = config.get("architectures") or [FAMILIES[name].causal_lm]
    if FAMILIES[name].causal_lm not in classes:
        raise BuildError(
            f"{where}: architectures {classes} is not supported; needed: {FAMILIES[name].causal_lm}"
        )
    if config.get("quantization_config"):
        raise BuildError(
            f"{where}: quantization_config: the checkpoint is quantized; give one in F32, F16 or BF16"
        )
    return str(name)


def dimensions(config: Mapping[str, Any], where: str) -> ModelDims:
    """Reads the decoder's dimensions from a config.

    Args:
        config: As in config.json, of a supported family.
        where: The config's file, for messages.

    Returns:
        The dimensions; max_context is lowered to the sliding window if one is in force, because within it
        attention is full.

    Raises:
        BuildError: A field is missing, out of range, or asks for what is not supported.
    """
    family = FAMILIES[architecture(config, where)]
    read = _Config(config, where)
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise BuildError(f"{where}: hidden_act {config['hidden_act']!r} is not supported; needed: silu")
    num_heads = read.count("num_attention_heads")
    num_kv_heads = read.count("num_key_value_heads", family.num_kv_heads or num_heads)
    if num_heads % num_kv_heads:
        raise BuildError(
            f"{where}: num_key_value_heads {num_kv_heads} must divide num_attention_heads {num_heads}"
        )
    hidden_size = read.count("hidden_size")
    head_dim = read.count("head_dim", family.head_dim or hidden_size // num_heads)
    if head_dim % 2:
        raise BuildError(f"{where}: head_dim {head_dim} must be even")
    theta, scaling = _rope(config, where)
    return ModelDims(
        vocab_size=read.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=read.count("intermediate_size"),
        num_layers=read.count("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=read.number("rms_norm_eps", 1e-6),
        max_context=_max_context(read, family),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


@dataclass(frozen=True)
class _Config:
    raw: Mapping[str, Any]
    where: str

    def count(self, name: str, default: int | None = None) -> int:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BuildError(f"{self.where}: {name} must be a positive integer, got {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise BuildError(f"{self.where}: {name} must be a positive number, got {value!r}")
        return float(value)


def _max_context(read: _Config, family: Family) -> int:
    longest = read.count("max_position_embeddings", family.max_context)
    in_force = family.always_sliding or read.raw.get("use_sliding_window")
    window = read.raw.get("sliding_window", family.sliding_window) if in_force else None
    return longest if window is None else min(longest, read.count("sliding_window", family.sliding_window))


def _rope(config: Mapping[str, Any], where: str) -> tuple[float, dict[str, Any] | None]:
    """The base of the frequencies, and their scaling if there is one.

    `transformers` 5 writes both into rope_parameters; before, rope_theta and rope_scaling lay apart.
    """
    scaling = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = scaling.pop("rope_theta", config.get("rope_theta"))
    scaling.setdefault("rope_type", scaling.pop("type", "default"))
    if any(isinstance(value, dict) for value in scaling.values()):
        raise BuildError(f"{where}: rope_parameters that differ between layers are not supported")
    partial = scaling.pop("partial_rotary_factor", config.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise BuildError(f"{where}: partial_rotary_factor {partial} is not supported; needed: 1")
    try:
        kind = rope.scaling_type(scaling)
    except BuildError as error:
        raise BuildError(f"{where}: {error}") from error
    return _Config({"rope_theta": theta}, where).number("rope_theta", 10000.0), (
        None if kind == "default" else scaling
    )
