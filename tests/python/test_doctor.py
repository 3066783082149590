from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt import _core, doctor
from exp3rt_trt.cli.app import main
from exp3rt_trt.doctor import Diagnosis, diagnose
from exp3rt_trt.engines.devices import CpuDevice, GpuDevice
from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    Look = Callable[..., Diagnosis]

H100 = GpuDevice("NVIDIA H100 80GB HBM3", "9.0", 81559 << 20, "570.86.15")
T4 = GpuDevice("Tesla T4", "7.5", 15360 << 20, "570.86.15")
HEAVY = {"torch", "transformers", "tensorrt_llm", "tensorrt", "gguf", "safetensors"}


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Look:
    """Diagnoses a machine with these GPUs, this TensorRT-LLM, this CPU; none of them is there."""

    def diagnose_such(
        *gpus: GpuDevice, installed: str | None = None, built: bool = False, isa: str = "avx512"
    ) -> Diagnosis:
        versions = {"tensorrt_llm": installed, "nvidia-ml-py": "13.0"}
        monkeypatch.setattr(doctor, "gpu_devices", lambda: list(gpus))
        monkeypatch.setattr(doctor, "cpu_device", lambda: CpuDevice(isa, 4))
        monkeypatch.setattr(doctor, "_installed", versions.get)
        monkeypatch.setattr(doctor, "PCI_DEVICES", tmp_path / "pci")
        monkeypatch.setattr(_core, "built_with_tensorrt_llm", built, raising=False)
        monkeypatch.setattr(doctor.platform, "python_version_tuple", lambda: ("3", "12", "1"))
        return diagnose()

    return diagnose_such


def commands(found: Diagnosis) -> list[str]:
    return [missing.command for missing in found.missing]


def plug_in(folder: Path, vendor: str, kind: str) -> None:
    device = folder / "pci" / "0000:01:00.0"
    device.mkdir(parents=True, exist_ok=True)
    (device / "vendor").write_text(vendor + "\n", encoding="ascii")
    (device / "class").write_text(kind + "\n", encoding="ascii")


def test_a_machine_without_a_gpu_uses_the_cpu_and_misses_nothing(look: Look) -> None:
    found = look()
    assert (found.executor, found.works, found.missing) == ("CpuExecutor", True, ())
    assert "no GPU was found" in found.reason
    assert found.version == _core.__version__


def test_a_gpu_without_tensorrt_llm_is_not_used_and_told_how(look: Look) -> None:
    found = look(H100)
    assert (found.executor, found.works) == ("CpuExecutor", True)
    assert (found.gpus[0].recipe, found.gpus[0].note) == ("h100", None)
    assert commands(found) == ['pip install "tensorrt-llm==1.2.1"', 'pip install "tensorrt-llm>=1.3"']


def test_engines_need_both_tensorrt_llm_and_a_build_with_it(look: Look) -> None:
    assert look(H100, installed="1.2.1", built=True).executor == "TrtLlmExecutor"
    assert look(H100, installed="1.2.1", built=True).missing == ()
    without = look(H100, installed="1.2.1")
    assert without.executor == "CpuExecutor"
    assert "headers" in commands(without)[0]
    assert look(installed="1.2.1", built=True).executor == "CpuExecutor"  # no GPU


@pytest.mark.parametrize("version", ["1.2.0", "1.2.0rc3", "1.1.0", "0.20.0"])
def test_versions_with_known_faults_or_another_interface_are_not_used(look: Look, version: str) -> None:
    found = look(H100, installed=version, built=True)
    assert found.executor == "CpuExecutor"
    assert f"{version} is installed and not used" in found.missing[0].why


@pytest.mark.parametrize("version", ["1.3.0", "1.3.0rc27", "1.10.2", "2.0"])
def test_from_1_3_on_the_llm_api_is_used(look: Look, version: str) -> None:
    for built in (False, True):
        found = look(H100, installed=version, built=built)
        assert (found.executor, found.missing) == ("LlmApiExecutor", ())


def test_a_gpu_that_no_recipe_is_for_is_told(look: Look) -> None:
    found = look(T4, installed="1.2.1", built=True)
    assert (found.executor, found.gpus[0].recipe) == ("CpuExecutor", None)
    assert "no recipe is for SM 7.5" in str(found.gpus[0].note)
    assert look(T4, H100, installed="1.2.1", built=True).executor == "TrtLlmExecutor"


def test_nothing_runs_without_avx2_and_without_a_gpu(look: Look) -> None:
    found = look(isa="none")
    assert (found.executor, found.works) == (None, False)
    assert found.missing[0].what == "AVX2"
    assert look(H100, isa="none", installed="1.3.0").works


def test_a_card_without_a_driver_is_told_how_to_get_one(look: Look, tmp_path: Path) -> None:
    plug_in(tmp_path, "0x8086", "0x030000")
    assert look().missing == ()  # of another maker
    plug_in(tmp_path, "0x10de", "0x040300")
    assert look().missing == ()  # a card's sound
    plug_in(tmp_path, "0x10de", "0x030200")
    assert [missing.what for missing in look().missing] == ["NVIDIA's driver"]
    (tmp_path / "pci" / "0000:01:00.0" / "class").unlink()
    assert look().missing == ()


def test_engines_are_opened(tiny_engine: Callable[[str, str], Path], tmp_path: Path) -> None:
    for name in ("whole", "damaged"):
        shutil.copytree(tiny_engine("llama", "fp32"), tmp_path / name)
    (tmp_path / "damaged" / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "other").mkdir()
    damaged, whole = diagnose(tmp_path).engines
    assert (Path(whole.path).name, whole.description, whole.problem) == (
        "whole",
        "llama, fp32, for cpu",
        None,
    )
    assert "truncated or altered" in str(damaged.problem)
    assert diagnose(tmp_path / "whole").engines == (whole,)
    with pytest.raises(InvalidInputError, match="no such directory"):
        diagnose(tmp_path / "none")
    with pytest.raises(InvalidInputError, match=r"other: no engine \(manifest\.json\)"):
        diagnose(tmp_path / "other")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["exp3rt-trt", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_the_command_prints_both_forms(
    look: Look, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look(H100, T4)
    assert run(monkeypatch, "doctor") == 0
    told = capsys.readouterr().out
    for words in ("NVIDIA H100 80GB HBM3", "570.86.15", "recipe h100", "no recipe", "tensorrt-llm==1.2.1"):
        assert words in told
    assert run(monkeypatch, "doctor", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["works"], told["executor"], told["gpus"][0]["recipe"]) == (True, "CpuExecutor", "h100")


def test_the_command_fails_where_nothing_runs(
    look: Look, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look(isa="none")
    assert run(monkeypatch, "doctor") == 1
    assert "reranking works" in capsys.readouterr().out


def test_plan_prints_both_forms_and_fails_if_it_does_not_fit(
    tiny_engine: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told: dict[str, Any] = {}
    engine = tiny_engine("llama", "fp32")
    common = ("plan", "--model", engine, "--users", 3, "--candidates", 2, "--prefix-tokens", 100)
    assert run(monkeypatch, *common, "--target", "l4") == 0
    assert "3 are wanted" in capsys.readouterr().out
    assert run(monkeypatch, *common, "--target", "cpu", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["prefix_blocks"], told["in_flight"], told["workload"]["users"]) == (2, 6, 3)
    assert run(monkeypatch, *common, "--target", "cpu", "--suffix-tokens", 4000) == 1
    assert "the model's context is 2048" in " ".join(capsys.readouterr().out.replace("│", "").split())


def test_plan_of_a_fleet(
    tiny_engine: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ("plan", "--model", tiny_engine("llama", "fp32"), "--candidates", 10, "--target", "l4")
    fleet = ("--daily-users", 100_000, "--visits", 2, "--peak-factor", 3, "--candidates-per-s", 20)
    assert run(monkeypatch, *common, *fleet, "--price-per-hour", 0.5) == 0
    told = capsys.readouterr().out
    assert "5, each 70% of 20 candidates/s" in told  # 69.4 candidates/s by 14
    assert "2.50 an hour, 60.00 a day" in told
    assert run(monkeypatch, *common, *fleet, "--price-per-hour", 0.5, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["fleet"]["machines"], told["workload"]["users"]) == (5, 20_000)
    assert run(monkeypatch, *common, *fleet) == 1
    assert "--daily-users needs --price-per-hour" in capsys.readouterr().err
    assert run(monkeypatch, *common) == 1
    assert "exactly one of --users and --daily-users" in capsys.readouterr().err


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from exp3rt_trt.doctor import diagnose; diagnose(); "
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name for name in HEAVY if f"'{name}'" in told.stdout}
