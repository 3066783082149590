"""LoRA adapters merged at build time: against PEFT's own merge, and adapters that do not fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exp3rt_trt.engines.adapters import AdaptedCheckpoint
from exp3rt_trt.engines.build import build_engine
from exp3rt_trt.engines.checkpoints import DirectoryCheckpoint
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def make_adapter(base: Path, out: Path, **options: Any) -> Any:
    """Saves an adapter with random A and B, and returns PEFT's model."""
    torch, peft = (
        pytest.importorskip("torch"),
        pytest.importorskip("peft", reason="needs the extra [distill]"),
    )
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=["q_proj", "down_proj"], init_lora_weights=False, **options
    )
    model = peft.get_peft_model(model, config)
    model.save_pretrained(out)
    return model


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"layers_to_transform": [1]}])
def test_the_merge_is_that_of_peft(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path], options: dict[str, Any]
) -> None:
    base = tiny_checkpoint("llama")
    merged = make_adapter(base, tmp_path / "adapter", **options).merge_and_unload().state_dict()
    ours = AdaptedCheckpoint(DirectoryCheckpoint(base), tmp_path / "adapter")
    original = DirectoryCheckpoint(base)
    changed = [name for name in ours.shapes if not np.array_equal(ours.tensor(name), original.tensor(name))]
    assert len(changed) == 2 * (1 if "layers_to_transform" in options else 3)
    for name in ours.shapes:
        np.testing.assert_allclose(ours.tensor(name), merged[name].numpy(), atol=1e-6, rtol=0)
        np.testing.assert_array_equal(ours.rows(name, 1, 3), ours.tensor(name)[1:3])


def test_an_engine_is_built_from_base_and_adapter(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path]
) -> None:
    base = tiny_checkpoint("qwen2")
    model = make_adapter(base, tmp_path / "adapter")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in base.iterdir():
        if not (tmp_path / "merged" / file.name).exists():
            (tmp_path / "merged" / file.name).write_bytes(file.read_bytes())
    built = build_engine(base, tmp_path / "engine", "bf16", adapter=tmp_path / "adapter")
    assert {CONFIG, WEIGHTS} <= set(built.source.sha256)
    assert built.source.model == f"{base} + {tmp_path / 'adapter'}"
    whole = build_engine(tmp_path / "merged", tmp_path / "other", "bf16")
    assert built.model == whole.model
    weights = [np.fromfile(tmp_path / name / "weights.safetensors", np.uint8) for name in ("engine", "other")]
    assert np.mean(weights[0] == weights[1]) > 0.999  # a sum in another order may round to the next bf16


def change_config(directory: Path, **fields: Any) -> None:
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported"),
        ({"use_dora": True}, "use_dora is not supported"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is not supported"),
        ({"bias": "all"}, "bias 'all' is not supported"),
        ({"r": 0}, "r 0 and lora_alpha 12 must be numbers"),
    ],
)
def test_other_kinds_of_adapters_are_refused(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path], fields: dict[str, Any], words: str
) -> None:
    base = tiny_checkpoint("llama")
    make_adapter(base, tmp_path / "adapter")
    change_config(tmp_path / "adapter", **fields)
    with pytest.raises(BuildError, match=words):
        AdaptedCheckpoint(DirectoryCheckpoint(base), tmp_path / "adapter")


def test_an_adapter_of_another_base_is_refused(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path]
) -> None:
    make_adapter(tiny_checkpoint("llama"), tmp_path / "adapter")
    with pytest.raises(BuildError, match=r"does not fit model\.layers\.0\.self_attn\.q_proj\.weight"):
        AdaptedCheckpoint(DirectoryCheckpoint(tiny_checkpoint("qwen3")), tmp_path / "adapter")


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(tmp_path: Path, tiny_checkpoint: Callable[[str], Path], file: str) -> None:
    base = tiny_checkpoint("llama")
    make_adapter(base, tmp_path / "adapter")
    (tmp_path / "adapter" / file).unlink()
    with pytest.raises(BuildError, match=file):
        AdaptedCheckpoint(DirectoryCheckpoint(base), tmp_path / "adapter")
