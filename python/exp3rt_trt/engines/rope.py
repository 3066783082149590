"""Inverse frequencies of rotary position embeddings, with scaling applied.

Everything is computed in float64 and rounded to float32 once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SUPPORTED = ("default", "linear", "llama3", "factors")


def inverse_frequencies(
    head_dim: int, theta: float, scaling: Mapping[str, Any] | None = None
) -> NDArray[np.float32]:
    """Computes the angle per position of each pair of a head's dimensions.

    The unscaled values are theta^(-2i / head_dim) (Su et al., RoFormer, arXiv 2104.09864, section 3.2.2).

    Args:
        head_dim: Dimensions of a head, even.
        theta: Base of the frequencies.
        scaling: `rope_type` and its parameters, as in a checkpoint's config; None for no scaling. Known
            types: default, linear (arXiv 2306.15595), llama3, factors (one divisor per frequency, as GGUF
            files carry them).

    Returns:
        float32 [head_dim / 2].

    Raises:
        BuildError: The type is unknown or a parameter is missing or out of range.
    """
    inv_freq = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    kind = scaling_type(scaling)
    if scaling is None or kind == "default":
        scaled = inv_freq
    elif kind == "linear":
        scaled = inv_freq / _positive(scaling, "factor")
    elif kind == "llama3":
        scaled = _llama3(inv_freq, scaling)
    else:
        scaled = inv_freq / _factors(scaling, head_dim // 2)
    return scaled.astype(np.float32)


def scaling_type(scaling: Mapping[str, Any] | None) -> str:
    """Names the kind of scaling, or refuses it.

    Args:
        scaling: As in `inverse_frequencies`.

    Returns:
        One of SUPPORTED.

    Raises:
        BuildError: Another kind.
    """
    if scaling is None:
        return "default"
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in SUPPORTED:
        supported = ", ".join(SUPPORTED)
        raise BuildError(f"rope_scaling: type {kind!r} is not supported; supported: {supported}")
    return str(kind)


def _llama3(inv_freq: NDArray[np.float64], scaling: Mapping[str, Any]) -> NDArray[np.float64]:
    """Llama 3.1's scaling: short wavelengths stay, long ones are divided by the factor, between them a blend.

    As published with the model (llama-models, models/llama3/model.py, apply_scaling).
    """
    factor = _positive(scaling, "factor")
    low = _positive(scaling, "low_freq_factor")
    high = _positive(scaling, "high_freq_factor")
    if high <= low:
        raise BuildError(f"rope_scaling: high_freq_factor {high} must be above low_freq_factor {low}")
    turns = _positive(scaling, "original_max_position_embeddings") * inv_freq / (2 * math.pi)
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 0: fully scaled, 1: as it was
    return (1 - blend) * inv_freq / factor + blend * inv_freq


def _factors(scaling: Mapping[str, Any], count: int) -> NDArray[np.float64]:
    factors = np.asarray(scaling.get("factors"), dtype=np.float64)
    if factors.shape != (count,) or not (np.isfinite(factors).all() and (factors > 0).all()):
        raise BuildError(f"rope_scaling: factors must be {count} positive numbers, got shape {factors.shape}")
    return factors


def _positive(scaling: Mapping[str, Any], name: str) -> float:
    value = scaling.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BuildError(f"rope_scaling: {name} must be a number, got {value!r}")
    if not value > 0 or not math.isfinite(value):
        raise BuildError(f"rope_scaling: {name} must be positive, got {value}")
    return float(value)
