"""Whether an engine for a GPU can run on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exp3rt_trt.engines import devices
from exp3rt_trt.engines.targets import LlmApiTarget, TensorRtTarget
from exp3rt_trt.engines.trtllm import versions
from exp3rt_trt.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.engines.manifest import Manifest


def check_runs_here(directory: Path, manifest: Manifest) -> None:
    """Refuses an engine that is for another GPU, another TensorRT or another TensorRT-LLM.

    Args:
        directory: Of the engine.
        manifest: Its manifest, of a target other than the CPU.

    Raises:
        EngineError: Saying what was expected, what is here, and the command that rebuilds or installs.
    """
    target = manifest.target
    if isinstance(target, TensorRtTarget):
        _check_engine(directory, manifest, target)
    elif isinstance(target, LlmApiTarget):
        _check_llm_api(directory, target)


def rebuild_command(directory: Path, manifest: Manifest, target: str) -> str:
    """Gives the command that builds an engine anew.

    Args:
        directory: Of the engine.
        manifest: Of the engine as it is.
        target: What to build it for.

    Returns:
        A line for the shell.
    """
    model, _, adapter = manifest.source.model.partition(" + ")
    merged = f" --adapter {adapter}" if adapter else ""
    old = manifest.target
    quantized = isinstance(old, TensorRtTarget) and (old.quantization, old.kv_dtype) != ("none", "bf16")
    texts = " --calibration FILE.jsonl" if quantized else ""
    return f"exp3rt-trt build --model {model}{merged} --target {target}{texts} --out {directory}"


def _check_engine(directory: Path, manifest: Manifest, target: TensorRtTarget) -> None:
    rebuild = f"rebuild it here with `{rebuild_command(directory, manifest, 'auto')}`"
    gpus = devices.gpu_devices()
    if not any((gpu.name, gpu.compute_capability) == target.device for gpu in gpus):
        here = ", ".join(map(str, gpus)) or "no NVIDIA GPU"
        raise EngineError(f"{directory}: expected {target.gpu} (SM {target.sm}), here is {here}; {rebuild}")
    for name, expected, found in (
        ("TensorRT-LLM", target.tensorrt_llm, versions.tensorrt_llm_version()),
        ("TensorRT", target.tensorrt, versions.tensorrt_version()),
    ):
        if found is None:
            raise EngineError(
                f"{directory}: expected {name} {expected}, here is none; install TensorRT-LLM with "
                f'`pip install "tensorrt-llm=={target.tensorrt_llm}"`'
            )
        if found != expected:
            raise EngineError(f"{directory}: expected {name} {expected}, here is {found}; {rebuild}")


def _check_llm_api(directory: Path, target: LlmApiTarget) -> None:
    found = versions.tensorrt_llm_version()
    if not versions.has_llm_api(found):
        raise EngineError(
            f"{directory}: expected TensorRT-LLM 1.3 or newer (built with {target.tensorrt_llm}), here is "
            f"{found or 'none'}; install it with `{versions.INSTALL_LLM_API}`"
        )
    if not devices.gpu_devices():
        raise EngineError(
            f"{directory}: expected an NVIDIA GPU, here is none; for this processor, build with "
            "`exp3rt-trt build --target cpu`"
        )
