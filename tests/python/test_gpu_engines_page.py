"""What docs/gpu-engines.md shows is what recipes and planner say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from exp3rt_trt.cli.app import main
from exp3rt_trt.engines.devices import GpuDevice
from exp3rt_trt.engines.footprint import read_model
from exp3rt_trt.engines.plan import Workload, make_plan, planned_device
from exp3rt_trt.engines.recipes import EngineRecipe, all_recipes, load_recipe
from test_plan import LLAMA_8B

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "gpu-engines.md").read_text(encoding="utf-8")


@pytest.fixture
def student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "llama-3.1-8b").mkdir()
    (tmp_path / "llama-3.1-8b" / "config.json").write_text(json.dumps(LLAMA_8B), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "llama-3.1-8b"


def table(first_columns: str) -> dict[str, list[str]]:
    """The rows of the page's table that begins with these columns, by their first cell."""
    lines = PAGE[PAGE.index(first_columns) :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def shown(recipe: EngineRecipe) -> list[str]:
    gpu = recipe.kind == "tensorrt_llm"
    return [
        recipe.sm or "-",
        f"{recipe.memory_gib} GiB" if gpu else "-",
        recipe.dtype if recipe.quantization == "none" else recipe.quantization,
        recipe.kv_dtype,
        str(recipe.max_batch_size) if gpu else "-",
        str(recipe.max_num_tokens),
        str(recipe.max_seq_len) if gpu else "-",
        str(recipe.tokens_per_block),
        recipe.gemm_plugin if gpu else "-",
        str(recipe.kv_memory_fraction),
    ]


def test_recipes_are_shown_as_they_are() -> None:
    assert table("| recipe | SM |") == {name: shown(recipe) for name, recipe in all_recipes().items()}
    gpus = [recipe for recipe in all_recipes().values() if recipe.kind == "tensorrt_llm"]
    assert all(
        recipe.dtype == "bf16" and recipe.paged_context_fmha for recipe in gpus
    )  # said below the table


def test_the_fit_of_an_8b_student_is_what_the_planner_says(student: str) -> None:
    model = read_model(student)
    rows = table("| recipe | weights |")
    assert set(rows) == {name for name in all_recipes() if load_recipe(name).kind == "tensorrt_llm"}
    for name, row in rows.items():
        device = planned_device(name)
        plan = make_plan(model, device, Workload(1000, 100))
        reasons = make_plan(model, device, Workload(1000, 100, reasoning_tokens=128))
        sizes = (plan.weights_bytes, plan.working_bytes, plan.kv_bytes)
        assert row == [
            *(f"{size / 2**30:.1f} GiB" for size in sizes),
            f"{plan.kv_bytes_per_token >> 10} KiB",
            str(plan.in_flight),
            str(reasons.in_flight),
            str(plan.cached_users),
        ]


# As NVML described a real one.
H100 = GpuDevice("NVIDIA H100 80GB HBM3", "9.0", 85520809984, "580.159.04")


@pytest.mark.parametrize("target", ["h100", "l4", "auto"])
def test_plans_are_shown_as_they_are_printed(
    student: str, target: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("exp3rt_trt.engines.plan.gpu_devices", lambda: [H100])
    assert f"    {H100!r}\n" in PAGE
    command = f"exp3rt-trt plan --model {student} --target {target} --users 1000 --candidates 100"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    printed = "\n".join(f"    {line.rstrip()}" for line in capsys.readouterr().out.splitlines())
    assert f"    {command}\n\n{printed}\n" in PAGE
