"""What this machine has, which executor that means, and what is missing with the command that installs it.

Nothing heavy is imported: TensorRT-LLM is asked for its version by its metadata, GPUs by NVML.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from exp3rt_trt import _core
from exp3rt_trt.engines.devices import CpuDevice, GpuDevice, cpu_device, gpu_devices, memory_bytes
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.engines.manifest import MANIFEST
from exp3rt_trt.engines.recipes import recipe_for
from exp3rt_trt.engines.trtllm.versions import INSTALL_ENGINES, INSTALL_LLM_API, builds_engines, has_llm_api
from exp3rt_trt.errors import BuildError, EngineError, InvalidInputError

INSTALL_DRIVER = "sudo ubuntu-drivers install  # elsewhere: https://www.nvidia.com/drivers"
INSTALL_NVML = "pip install nvidia-ml-py"
REBUILD = "build exp3rt_trt from source with TensorRT-LLM's headers (docs/tensorrt-llm.md)"
PCI_DEVICES = Path("/sys/bus/pci/devices")
NVIDIA = "0x10de"
DISPLAY_CLASS = "0x03"


@dataclass(frozen=True)
class GpuFinding:
    """A GPU, the recipe that engines for it are built by, and what is to be said about that."""

    device: GpuDevice
    recipe: str | None
    note: str | None


@dataclass(frozen=True)
class EngineFinding:
    """An engine directory and why it does not open here; None if it does."""

    path: str
    description: str
    problem: str | None


@dataclass(frozen=True)
class Missing:
    """Something that is not there, what it would be good for, and the command that installs it."""

    what: str
    why: str
    command: str


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        version: Of this package.
        python: Version.
        cpu: Instruction set and cores.
        memory_bytes: Of the machine or its control group.
        gpus: As NVML lists them.
        tensorrt_llm: Version that is installed; None if there is none.
        built_with_tensorrt_llm: Whether this package can drive TensorRT engines.
        executor: "TrtLlmExecutor", "LlmApiExecutor" or "CpuExecutor"; None if nothing runs here.
        reason: Why this one.
        missing: What would make more of the machine.
        engines: Found in the directory that was asked about.
    """

    version: str
    python: str
    cpu: CpuDevice
    memory_bytes: int
    gpus: tuple[GpuFinding, ...]
    tensorrt_llm: str | None
    built_with_tensorrt_llm: bool
    executor: str | None
    reason: str
    missing: tuple[Missing, ...]
    engines: tuple[EngineFinding, ...]

    @property
    def works(self) -> bool:
        """Whether candidates can be reranked on this machine."""
        return self.executor is not None


def diagnose(directory: Path | None = None) -> Diagnosis:
    """Looks at this machine.

    Args:
        directory: An engine, or a directory of engines, that are opened to see whether they run here.

    Returns:
        What there is and what follows.

    Raises:
        InvalidInputError: The directory is none.

    Example:
        >>> diagnose().works
        True
    """
    engines = _engines(directory) if directory is not None else ()
    cpu, gpus = cpu_device(), tuple(_finding(device) for device in gpu_devices())
    version = _installed("tensorrt_llm")
    built = bool(getattr(_core, "built_with_tensorrt_llm", False))
    executor, reason = choose_executor(cpu, gpus, version, built_with_tensorrt_llm=built)
    return Diagnosis(
        version=_core.__version__,
        python=platform.python_version(),
        cpu=cpu,
        memory_bytes=memory_bytes(),
        gpus=gpus,
        tensorrt_llm=version,
        built_with_tensorrt_llm=built,
        executor=executor,
        reason=reason,
        missing=tuple(_missing(cpu, gpus, version, built_with_tensorrt_llm=built)),
        engines=engines,
    )


def choose_executor(
    cpu: CpuDevice, gpus: tuple[GpuFinding, ...], version: str | None, *, built_with_tensorrt_llm: bool
) -> tuple[str | None, str]:
    """Tells the best executor of a machine; a CPU engine runs on the CPU wherever it is opened.

    Args:
        cpu: The processor.
        gpus: What NVML found.
        version: Of TensorRT-LLM; None if it is not installed.
        built_with_tensorrt_llm: Whether this package was.

    Returns:
        Its name, None if there is none, and why.
    """
    usable = [gpu for gpu in gpus if gpu.recipe is not None]
    if usable and builds_engines(version) and built_with_tensorrt_llm:
        return "TrtLlmExecutor", f"{usable[0].device}, TensorRT-LLM {version}, and this package built with it"
    if usable and has_llm_api(version):
        return "LlmApiExecutor", f"{usable[0].device} and TensorRT-LLM {version}, which has the LLM API alone"
    if cpu.isa == "none":
        return None, "the CPU engine needs AVX2, and no GPU can be used"
    if usable:
        return "CpuExecutor", f"{usable[0].device} cannot be used with what is installed; {cpu} can"
    if gpus:
        return "CpuExecutor", f"no recipe is for {gpus[0].device}; {cpu} can be used"
    return "CpuExecutor", f"no GPU was found; {cpu} can be used"


def _missing(
    cpu: CpuDevice, gpus: tuple[GpuFinding, ...], version: str | None, *, built_with_tensorrt_llm: bool
) -> list[Missing]:
    if any(gpu.recipe for gpu in gpus):
        return _missing_for_gpu(version, built_with_tensorrt_llm=built_with_tensorrt_llm)
    if not gpus and has_nvidia_card():
        if _installed("nvidia-ml-py") is None:
            return [Missing("nvidia-ml-py", "finding the NVIDIA card that is here", INSTALL_NVML)]
        return [Missing("NVIDIA's driver", "the NVIDIA card that is here", INSTALL_DRIVER)]
    return [Missing("AVX2", "CPU engines", "none: take another machine")] if cpu.isa == "none" else []


def _missing_for_gpu(version: str | None, *, built_with_tensorrt_llm: bool) -> list[Missing]:
    if has_llm_api(version) or (builds_engines(version) and built_with_tensorrt_llm):
        return []
    if builds_engines(version):
        return [Missing("TensorRT-LLM in this package", "its engines", REBUILD)]
    found = "" if version is None else f"; {version} is installed and not used"
    if platform.python_version_tuple()[:2] != ("3", "12"):
        found += "; its wheel is for Python 3.12"
    return [
        Missing("TensorRT-LLM 1.2.1", f"TensorRT engines{found}", INSTALL_ENGINES),
        Missing("TensorRT-LLM 1.3", "the LLM API, instead of engines", INSTALL_LLM_API),
    ]


def has_nvidia_card() -> bool:
    """Tells whether an NVIDIA card is plugged in, with a driver or without one."""
    for device in PCI_DEVICES.glob("*"):
        try:
            vendor, kind = ((device / name).read_text(encoding="ascii") for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor.strip() == NVIDIA and kind.startswith(DISPLAY_CLASS):
            return True
    return False


def _finding(device: GpuDevice) -> GpuFinding:
    try:
        recipe, warning = recipe_for(device)
    except BuildError as error:
        return GpuFinding(device, None, str(error))
    return GpuFinding(device, recipe.name, warning)


def _engines(directory: Path) -> tuple[EngineFinding, ...]:
    if not directory.is_dir():
        raise InvalidInputError(f"{directory}: no such directory")
    paths = [directory] if (directory / MANIFEST).exists() else sorted(directory.glob(f"*/{MANIFEST}"))
    if not paths:
        raise InvalidInputError(f"{directory}: no engine ({MANIFEST}), neither there nor in a folder below")
    return tuple(_opened(path if path.is_dir() else path.parent) for path in paths)


def _opened(path: Path) -> EngineFinding:
    try:
        manifest = Engine.open(path).manifest
    except EngineError as error:
        return EngineFinding(str(path), "", str(error))
    return EngineFinding(
        str(path), f"{manifest.architecture}, {manifest.dtype}, for {manifest.target.kind}", None
    )


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
