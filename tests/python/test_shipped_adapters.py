"""The shipped students' adapters are whole, fit the base, and are what their recipes say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exp3rt_trt.distill.recipe import read_recipe
from exp3rt_trt.distill.train import MODULES, scale_of
from exp3rt_trt.engines.adapters import CONFIG, WEIGHTS, AdaptedCheckpoint
from exp3rt_trt.engines.checkpoints import read_json
from exp3rt_trt.engines.sources import open_checkpoint
from exp3rt_trt.engines.weights_file import read_header
from exp3rt_trt.errors import BuildError
from exp3rt_trt.rating import read_scale
from exp3rt_trt.segments import read_layout

ENGINES = Path(__file__).resolve().parents[2] / "engines"
STUDENTS = ["imdb-student", "imdb-student-segmented"]
MOST_BYTES = 16 << 20


def test_all_adapters_are_named_here() -> None:
    assert sorted(path.parent.name for path in ENGINES.glob(f"*/{CONFIG}")) == STUDENTS


@pytest.mark.parametrize("name", STUDENTS)
def test_an_adapter_is_what_its_recipe_says(name: str) -> None:
    folder = ENGINES / name
    recipe, config = read_recipe(folder / "recipe.toml"), read_json(folder / CONFIG)
    assert config["base_model_name_or_path"] == recipe.base
    assert config["r"] == recipe.train.rank
    assert min(config["layers_to_transform"]) == recipe.train.first_layer
    assert sorted(config["target_modules"]) == sorted(MODULES)
    assert read_layout(folder) == recipe.train.layout
    assert read_scale(folder) == scale_of(recipe)
    assert (folder / WEIGHTS).stat().st_size <= MOST_BYTES
    stored = read_header(folder / WEIGHTS, BuildError)
    assert {tensor.dtype for tensor in stored} == {"BF16"}
    assert len(stored) == 2 * len(config["layers_to_transform"]) * len(MODULES)


@pytest.mark.parametrize("name", STUDENTS)
def test_an_adapter_changes_all_that_it_names_and_nothing_else(name: str, base_student_gguf: Path) -> None:
    base = open_checkpoint(base_student_gguf)
    student = AdaptedCheckpoint(base, ENGINES / name)
    layers = read_json(ENGINES / name / CONFIG)["layers_to_transform"]
    changed = set()
    for tensor in base.shapes:
        before, after = (checkpoint.rows(tensor, 0, 8) for checkpoint in (base, student))
        assert np.isfinite(after).all(), tensor
        if not np.array_equal(before, after):
            changed.add(tensor)
            assert np.abs(after - before).max() < np.abs(before).max(), tensor
    parts = {
        module: "mlp" if module in {"gate_proj", "up_proj", "down_proj"} else "self_attn"
        for module in MODULES
    }
    assert changed == {
        f"model.layers.{layer}.{part}.{module}.weight" for layer in layers for module, part in parts.items()
    }
