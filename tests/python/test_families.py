"""Every family of models: an engine's logits against transformers'."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exp3rt_trt.engines import families, rope
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.errors import BuildError
from tiny_models import COMMON, FAMILIES, LLAMA3_ROPE, engine_logits, random_prompts, reference_logits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LENGTHS = (50, 64, 65, 101, 128, 129, 293)
SHARED = 45


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_reference(
    family: str, tiny_checkpoint: Callable[[str], Path], tiny_engine: Callable[[str, str], Path]
) -> None:
    engine = Engine.open(tiny_engine(family, "fp32"))
    prompts = random_prompts(LENGTHS, SHARED, engine.manifest.model.vocab_size)
    expected = reference_logits(tiny_checkpoint(family), prompts)
    assert np.abs(expected).max() > 0.5  # else the tolerance would say nothing
    np.testing.assert_allclose(engine_logits(engine, prompts, SHARED), expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(engine_logits(engine, prompts), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_narrow_types_are_near_the_reference(
    family: str, dtype: str, tiny_checkpoint: Callable[[str], Path], tiny_engine: Callable[[str, str], Path]
) -> None:
    engine = Engine.open(tiny_engine(family, dtype))
    prompts = random_prompts(LENGTHS, SHARED, engine.manifest.model.vocab_size)
    expected = reference_logits(tiny_checkpoint(family), prompts)
    error = np.abs(engine_logits(engine, prompts, SHARED) - expected)
    assert error.max() < 0.04 * np.abs(expected).max()
    assert error.mean() < 0.01 * np.abs(expected).max()


def test_sliding_window_limits_the_context(tiny_engine: Callable[[str, str], Path]) -> None:
    assert Engine.open(tiny_engine("mistral_sliding", "fp32")).manifest.model.max_context == 300
    assert Engine.open(tiny_engine("mistral", "fp32")).manifest.model.max_context == 2048


@pytest.mark.parametrize("family", families.FAMILIES)
def test_defaults_are_those_of_transformers(family: str) -> None:
    import transformers

    cls = getattr(transformers, families.FAMILIES[family].causal_lm.replace("ForCausalLM", "Config"))
    given = {name: COMMON[name] for name in ("vocab_size", "hidden_size", "intermediate_size")}
    given |= {"num_hidden_layers": 2, "num_attention_heads": 32}
    bare = families.dimensions({"model_type": family, **given}, "config.json")
    full = families.dimensions({**cls(**given).to_dict(), "architectures": None}, "config.json")
    assert bare == full


@pytest.mark.parametrize("scaling", [None, LLAMA3_ROPE, {"rope_type": "linear", "factor": 2.5}])
def test_rope_is_that_of_transformers(scaling: dict[str, Any] | None) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=512, num_attention_heads=4, rope_theta=5e5, rope_scaling=copy.copy(scaling)
    )
    expected = LlamaRotaryEmbedding(config).inv_freq.numpy()
    found = rope.inverse_frequencies(128, 5e5, scaling)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_factors_divide_the_frequencies() -> None:
    factors = [1.0, 2.0, 4.0, 8.0]
    plain = rope.inverse_frequencies(8, 10000.0)
    scaled = rope.inverse_frequencies(8, 10000.0, {"rope_type": "factors", "factors": factors})
    np.testing.assert_allclose(scaled * factors, plain, rtol=1e-6)


def test_old_and_new_rope_keys_say_the_same() -> None:
    base = {name: value for name, value in COMMON.items() if name != "rope_theta"} | {"model_type": "llama"}
    old_scaling = {"type" if name == "rope_type" else name: value for name, value in LLAMA3_ROPE.items()}
    old = families.dimensions({**base, "rope_theta": 5e5, "rope_scaling": old_scaling}, "config.json")
    new = families.dimensions({**base, "rope_parameters": {**LLAMA3_ROPE, "rope_theta": 5e5}}, "config.json")
    assert old == new
    assert new.rope_theta == 5e5
    assert new.rope_scaling == LLAMA3_ROPE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, r"model_type 'gpt2' is not supported; supported: Llama 2 and 3, SmolLM2"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"architectures": ["LlamaForSequenceClassification"]}, r"needed: LlamaForCausalLM"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 must divide"),
        ({"hidden_size": "64"}, "hidden_size must be a positive integer"),
        ({"head_dim": 15}, "head_dim 15 must be even"),
        ({"rms_norm_eps": 0}, "rms_norm_eps must be a positive number"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "type 'yarn' is not supported; supported: default"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "differ between layers"),
    ],
)
def test_unsupported_config_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message) as raised:
        families.dimensions({**COMMON, "model_type": "llama", **changes}, "some/config.json")
    assert str(raised.value).startswith("some/config.json: ")


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "linear"}, "factor must be a number"),
        ({"rope_type": "linear", "factor": -1.0}, "factor must be positive"),
        ({**LLAMA3_ROPE, "high_freq_factor": 1.0}, "high_freq_factor 1.0 must be above"),
        ({"rope_type": "factors", "factors": [1.0]}, "factors must be 4 positive numbers"),
    ],
)
def test_bad_rope_scaling_is_refused(scaling: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        rope.inverse_frequencies(8, 10000.0, scaling)


def test_manifest_tells_the_model(tiny_engine: Callable[[str, str], Path]) -> None:
    raw = json.loads((tiny_engine("qwen3", "bf16") / "manifest.json").read_text(encoding="utf-8"))
    assert raw["architecture"] == "qwen3"
    assert raw["dtype"] == "bf16"
    assert raw["model"]["head_dim"] == 64
    assert raw["model"]["rope_theta"] == 1e6
    assert raw["model"]["tie_word_embeddings"] is False
    assert raw["target"] == {"kind": "cpu", "isa": "avx2"}
