from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from exp3rt_trt import _core
from exp3rt_trt.engines.devices import CpuDevice, GpuDevice, cpu_device
from exp3rt_trt.engines.recipes import (
    REASONED,
    all_recipes,
    load_recipe,
    read_recipe,
    recipe_for,
)
from exp3rt_trt.errors import BuildError

ROOT = Path(__file__).resolve().parents[2]
GPUS = ("a100", "b200", "h100", "h200", "l4", "l40s", "rtx4090")
CPUS = ("cpu-avx2", "cpu-avx512", "cpu-bf16")


def gpu(name: str, sm: str, mib: int) -> GpuDevice:
    return GpuDevice(name, sm, mib << 20)


def test_there_is_a_recipe_for_each_device() -> None:
    assert tuple(sorted(all_recipes())) == tuple(sorted(GPUS + CPUS))
    assert {name: recipe.kind for name, recipe in all_recipes().items()} == {
        **dict.fromkeys(GPUS, "tensorrt_llm"),
        **dict.fromkeys(CPUS, "cpu"),
    }


def test_every_value_has_a_reason_of_its_own() -> None:
    for recipe in all_recipes().values():
        assert set(recipe.reasons) == set(REASONED)
        assert all(len(reason.split()) > 1 or recipe.kind == "cpu" for reason in recipe.reasons.values())


@pytest.mark.parametrize(
    ("name", "sm", "mib", "expected"),
    [
        ("NVIDIA A100-SXM4-40GB", "8.0", 40960, "a100"),
        ("NVIDIA A100 80GB PCIe", "8.0", 81920, "a100"),
        ("NVIDIA L4", "8.9", 23034, "l4"),
        ("NVIDIA L40S", "8.9", 46068, "l40s"),
        ("NVIDIA GeForce RTX 4090", "8.9", 24564, "rtx4090"),
        ("NVIDIA H100 80GB HBM3", "9.0", 81559, "h100"),
        ("NVIDIA H100 NVL", "9.0", 95830, "h100"),
        ("NVIDIA H200", "9.0", 143771, "h200"),
        ("NVIDIA B200", "10.0", 183359, "b200"),
    ],
)
def test_a_known_gpu_gets_its_recipe(name: str, sm: str, mib: int, expected: str) -> None:
    recipe, warning = recipe_for(gpu(name, sm, mib))
    assert (recipe.name, warning) == (expected, None)


@pytest.mark.parametrize(
    ("name", "sm", "mib", "expected"),
    [
        ("NVIDIA L40", "8.9", 46068, "l40s"),  # and not the L4's, whose name its own begins with
        ("NVIDIA RTX 4000 Ada Generation", "8.9", 20475, "l4"),  # the smallest of the SM
        ("NVIDIA GH200 480GB", "9.0", 97871, "h100"),
        ("NVIDIA GB200", "10.0", 189471, "b200"),
    ],
)
def test_an_unknown_gpu_gets_one_of_its_sm_and_a_warning(name: str, sm: str, mib: int, expected: str) -> None:
    recipe, warning = recipe_for(gpu(name, sm, mib))
    assert recipe.name == expected
    assert warning is not None
    assert name in warning
    assert expected in warning


@pytest.mark.parametrize("names", [("H100", "H100 NVL"), ("H100 NVL", "H100")])
def test_the_longest_name_wins(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = {name: dataclasses.replace(load_recipe("h100"), name=name, gpu_names=(name,)) for name in names}
    monkeypatch.setattr("exp3rt_trt.engines.recipes.all_recipes", lambda: made)
    assert recipe_for(gpu("NVIDIA H100 NVL", "9.0", 95830))[0].name == "H100 NVL"
    assert recipe_for(gpu("NVIDIA H100 PCIe", "9.0", 81559))[0].name == "H100"


def test_an_instance_is_told_that_its_memory_is_less() -> None:
    recipe, warning = recipe_for(GpuDevice("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "9.0", 9856 << 20, mig=True))
    assert recipe.name == "h100"
    assert "planned for 79 GiB" in str(warning)


@pytest.mark.parametrize(
    ("name", "sm"), [("NVIDIA A10", "8.6"), ("Tesla T4", "7.5"), ("NVIDIA B300", "10.3")]
)
def test_an_sm_without_a_recipe_is_refused(name: str, sm: str) -> None:
    with pytest.raises(BuildError, match=f"{name}.*no recipe is for SM {sm}.*h100 \\(9.0\\)"):
        recipe_for(gpu(name, sm, 24000))


@pytest.mark.parametrize(
    ("isa", "expected", "dtype"),
    [
        ("avx2", "cpu-avx2", "fp32"),
        ("avx512", "cpu-avx512", "fp32"),
        ("avx512_vnni", "cpu-avx512", "fp32"),
        ("avx512_bf16", "cpu-bf16", "bf16"),
        ("amx", "cpu-bf16", "bf16"),
    ],
)
def test_cpus_get_recipes_by_instruction_set(isa: str, expected: str, dtype: str) -> None:
    assert _core.isa_at_least(isa, isa)  # a name that the extension knows
    recipe, warning = recipe_for(CpuDevice(isa, 2))
    assert (recipe.name, recipe.dtype, warning) == (expected, dtype, None)


def test_this_machine_has_a_recipe() -> None:
    assert recipe_for(cpu_device())[0].kind == "cpu"


def test_a_cpu_without_avx2_is_refused() -> None:
    with pytest.raises(BuildError, match="needs AVX2"):
        recipe_for(CpuDevice("none", 2))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BuildError, match=r"'h300'.*a100.*rtx4090"):
        load_recipe("h300")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('sm = "9.0"\n', "", "missing: sm"),
        ("[reasons]", "speed = 3\n[reasons]", "unknown: speed"),
        ("max_batch_size = 256", "max_batch_size = true", "max_batch_size must be of type int"),
        ("max_batch_size = 256", "max_batch_size = 0", "max_batch_size must be at least 1"),
        ("tokens_per_block = 32", "tokens_per_block = 0", "tokens_per_block must be at least 1"),
        ("kv_memory_fraction = 0.9", "kv_memory_fraction = 1.0", "kv_memory_fraction"),
        ('quantization = "fp8"', 'quantization = "fp7"', "quantization must be one of"),
        ('quantization = "fp8"', 'quantization = "nvfp4"', "nvfp4 is not for SM 9.0"),
        ('kv_dtype = "fp8"', 'kv_dtype = "int8"', "kv_dtype int8"),
        ('quantization = "fp8"', 'quantization = "int8_sq"', "kv_dtype fp8"),
        ('dtype = "bf16"\n', "dtype = bf16\n", "cannot be read"),
        ('\nsm = "Hopper, GH100"', "\n", "reasons.*missing: sm"),
        ('\nsm = "Hopper, GH100"', '\nsm = "x"\nspeed = "y"', "reasons.*unknown: speed"),
    ],
)
def test_a_damaged_recipe_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (ROOT / "engines" / "h100.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BuildError, match=f"mine.toml.*{message}"):
        read_recipe(path)


def test_int8_keys_are_allowed_where_no_prefix_is_reused(tmp_path: Path) -> None:
    text = (ROOT / "engines" / "a100.toml").read_text(encoding="utf-8")
    text = text.replace('kv_dtype = "bf16"', 'kv_dtype = "int8"')
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("paged_context_fmha = true", "paged_context_fmha = false"), encoding="utf-8")
    assert read_recipe(path).kv_dtype == "int8"
