"""How devices are found. `NvmlDouble` is a double of pynvml: no GPU and no driver is behind it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt.engines.devices import GpuDevice, gpu_devices, memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class NvmlError(Exception):
    pass


class NvmlDouble(SimpleNamespace):
    """The few functions of pynvml that are asked; a handle is the dict that describes a device."""

    NVMLError = NvmlError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, gpus: list[dict[str, Any]], broken: tuple[str, ...] = ()) -> None:
        super().__init__(calls=[])
        self.gpus = gpus
        for name in broken:
            setattr(self, name, self.fail)

    def fail(self, *_: Any) -> None:
        raise NvmlError

    def nvmlInit(self) -> None:  # noqa: N802  (NVML's names)
        self.calls.append("init")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.calls.append("shutdown")

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"570.86.15"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        if self.gpus[index].get("lost"):
            raise NvmlError
        return self.gpus[index]

    def nvmlDeviceGetName(self, gpu: dict[str, Any]) -> str | bytes:  # noqa: N802
        return gpu["name"]

    def nvmlDeviceGetCudaComputeCapability(self, gpu: dict[str, Any]) -> tuple[int, int]:  # noqa: N802
        return gpu["sm"]

    def nvmlDeviceGetMemoryInfo(self, gpu: dict[str, Any]) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=gpu["mib"] << 20)

    def nvmlDeviceGetMigMode(self, gpu: dict[str, Any]) -> tuple[int, int]:  # noqa: N802
        if "instances" not in gpu:
            raise NvmlError  # not supported
        return (0 if gpu["instances"] is None else 1), 0

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: dict[str, Any]) -> int:  # noqa: N802
        return len(gpu["instances"])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: dict[str, Any], number: int) -> Any:  # noqa: N802
        if gpu["instances"][number] is None:
            raise NvmlError
        return gpu["instances"][number]


L4 = {"name": "NVIDIA L4", "sm": (8, 9), "mib": 23034}
H100 = {"name": "NVIDIA H100 80GB HBM3", "sm": (9, 0), "mib": 81559}


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[..., NvmlDouble]:
    def install(*gpus: dict[str, Any], broken: tuple[str, ...] = ()) -> NvmlDouble:
        double = NvmlDouble(list(gpus), broken)
        monkeypatch.setitem(sys.modules, "pynvml", double)
        return double

    return install


def test_several_gpus_are_listed_in_nvmls_order(nvml: Callable[..., NvmlDouble]) -> None:
    double = nvml(L4, {**H100, "name": b"NVIDIA H100 80GB HBM3", "instances": None})
    assert gpu_devices() == [
        GpuDevice("NVIDIA L4", "8.9", 23034 << 20, "570.86.15", 0, mig=False),
        GpuDevice("NVIDIA H100 80GB HBM3", "9.0", 81559 << 20, "570.86.15", 1, mig=False),
    ]
    assert double.calls == ["init", "shutdown"]


def test_a_divided_gpu_gives_its_instances(nvml: Callable[..., NvmlDouble]) -> None:
    small = {"name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "mib": 9856}
    large = {"name": "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "mib": 40320}
    nvml({**H100, "instances": [large, None, small]}, L4)
    found = [
        (gpu.name, gpu.compute_capability, gpu.memory_bytes >> 20, gpu.index, gpu.mig)
        for gpu in gpu_devices()
    ]
    assert found == [
        (large["name"], "9.0", 40320, 0, True),
        (small["name"], "9.0", 9856, 0, True),
        ("NVIDIA L4", "8.9", 23034, 1, False),
    ]


def test_a_divided_gpu_without_instances_gives_none(nvml: Callable[..., NvmlDouble]) -> None:
    nvml({**H100, "instances": []})
    assert gpu_devices() == []


def test_a_lost_gpu_does_not_hide_the_others(nvml: Callable[..., NvmlDouble]) -> None:
    nvml({**H100, "lost": True}, L4)
    assert [(gpu.name, gpu.index) for gpu in gpu_devices()] == [("NVIDIA L4", 1)]


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount"])
def test_without_a_driver_or_with_a_broken_one_there_are_none(
    nvml: Callable[..., NvmlDouble], broken: str
) -> None:
    double = nvml(L4, broken=(broken,))
    assert gpu_devices() == []
    assert double.calls == ([] if broken == "nvmlInit" else ["init", "shutdown"])


def test_a_failing_shutdown_loses_nothing(nvml: Callable[..., NvmlDouble]) -> None:
    nvml(L4, broken=("nvmlShutdown",))
    assert [gpu.name for gpu in gpu_devices()] == ["NVIDIA L4"]


def test_without_the_package_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_devices() == []


def test_memory_is_bounded_by_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("exp3rt_trt.engines.devices.CGROUP_LIMITS", (tmp_path / "none", limit))
    whole = memory_bytes()
    assert whole > 1 << 28
    limit.write_text("max\n", encoding="ascii")
    assert memory_bytes() == whole
    limit.write_text("1048576\n", encoding="ascii")
    assert memory_bytes() == 1 << 20
    limit.write_text(f"{2 * whole}\n", encoding="ascii")
    assert memory_bytes() == whole
