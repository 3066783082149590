"""The devices of this machine, and which of them engines can be built for."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from exp3rt_trt import _core
from exp3rt_trt.errors import BuildError

TARGETS = ("cpu",)


@dataclass(frozen=True)
class CpuDevice:
    """The processor: the instruction set that engines can use, and the cores this process may run on."""

    isa: str
    cores: int

    def __str__(self) -> str:
        return f"CPU with {self.cores} cores ({self.isa})"


@dataclass(frozen=True)
class GpuDevice:
    """An NVIDIA GPU: its compute capability as "9.0", its memory in bytes."""

    name: str
    compute_capability: str
    memory_bytes: int

    def __str__(self) -> str:
        return f"{self.name} (SM {self.compute_capability}, {self.memory_bytes / 2**30:.0f} GiB)"


def cpu_device() -> CpuDevice:
    """Describes the processor."""
    return CpuDevice(_core.cpu_isa(), len(os.sched_getaffinity(0)))


def gpu_devices() -> list[GpuDevice]:
    """Lists the NVIDIA GPUs; none where there is no driver."""
    import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415  (most machines never need it)

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_describe(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def check_target(target: str) -> None:
    """Refuses a kind of device that this version cannot build for.

    Args:
        target: "cpu".

    Raises:
        BuildError: Another target; the message says which devices there are.
    """
    if target in TARGETS:
        return
    found = ", ".join(str(device) for device in [cpu_device(), *gpu_devices()])
    raise BuildError(f"target {target!r}: this version builds for cpu only; devices found: {found}")


def _describe(index: int) -> GpuDevice:
    import pynvml  # noqa: PLC0415

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = pynvml.nvmlDeviceGetName(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    return GpuDevice(name.decode() if isinstance(name, bytes) else str(name), f"{major}.{minor}", memory)
