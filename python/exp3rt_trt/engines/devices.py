"""The devices of this machine, and which of them engines can be built for."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True)
class CpuDevice:
    """The processor: the instruction set that engines can use, and the cores this process may run on."""

    isa: str
    cores: int

    def __str__(self) -> str:
        return f"CPU with {self.cores} cores ({self.isa})"


@dataclass(frozen=True)
class GpuDevice:
    """An NVIDIA GPU, or one of the instances that it is divided into.

    Attributes:
        name: As NVML says, "NVIDIA H100 80GB HBM3".
        compute_capability: "9.0"; an instance has that of its GPU.
        memory_bytes: All of it, used or not.
        driver: Version of the driver.
        index: Of the GPU; instances of one GPU share it.
        mig: Whether it is an instance (MIG).
    """

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str = ""
    index: int = 0
    mig: bool = False

    def __str__(self) -> str:
        return f"{self.name} (SM {self.compute_capability}, {self.memory_bytes / 2**30:.0f} GiB)"


def cpu_device() -> CpuDevice:
    """Describes the processor."""
    return CpuDevice(_core.cpu_isa(), len(os.sched_getaffinity(0)))


def memory_bytes() -> int:
    """Tells the machine's memory, or less if the process's control group (a container) is limited to less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is none, or it says "max"
            memory = min(memory, int(limit.read_text(encoding="ascii")))
    return memory


def gpu_devices() -> list[GpuDevice]:
    """Lists the NVIDIA GPUs as NVML numbers them; a GPU that is divided (MIG) gives its instances instead.

    Returns:
        The devices; none where there is no driver. One that NVML cannot describe is left out.
    """
    try:
        import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415  (most machines never need it)
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    devices: list[GpuDevice] = []
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        for index in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):  # lost, or not ours to see: the others still count
                devices += _describe(index, driver)
    except pynvml.NVMLError:
        pass
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return devices


def _describe(index: int, driver: str) -> list[GpuDevice]:
    """One GPU, or the instances it is divided into; a divided GPU without instances runs nothing."""
    import pynvml  # noqa: PLC0415

    whole = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(whole)
    mig = _is_divided(whole)
    devices = []
    for handle in _instances(whole) if mig else [whole]:
        name = _text(pynvml.nvmlDeviceGetName(handle))
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
        devices.append(GpuDevice(name, f"{major}.{minor}", memory, driver, index, mig))
    return devices


def _is_divided(handle: object) -> bool:
    import pynvml  # noqa: PLC0415

    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:  # most GPUs cannot be divided
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _instances(handle: object) -> Iterator[object]:
    import pynvml  # noqa: PLC0415

    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with contextlib.suppress(pynvml.NVMLError):  # numbers may have gaps
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
