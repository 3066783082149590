"""Which executor runs an engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exp3rt_trt import _core
from exp3rt_trt.engines import devices
from exp3rt_trt.engines.targets import LlmApiTarget, TensorRtTarget
from exp3rt_trt.errors import EngineError

if TYPE_CHECKING:
    from exp3rt_trt.engines.engine import Engine
    from exp3rt_trt.executors import Executor


@dataclass(frozen=True)
class CpuOptions:
    """What a Reranker says about its executor; engines for GPUs have theirs from their recipes.

    Args:
        threads: cores to compute on; 0 for all of the process's affinity.
        kv_cache_mib: memory for keys and values, in MiB.
        max_batch_tokens: most tokens in one batch; 0 for 512 for each thread, at most 2,048.
        item_cache_mib: memory for the keys and values of a segmented student's items, in MiB.
        item_kv_dtype: "int8", or "" for the type that the engine computes in.
    """

    threads: int
    kv_cache_mib: int
    max_batch_tokens: int
    item_cache_mib: int = 1024
    item_kv_dtype: str = ""


def open_executor(engine: Engine, options: CpuOptions) -> Executor:
    """Make the executor that an engine needs: for the CPU, for TensorRT engines, or over the LLM API.

    Args:
        engine: an opened engine; its opening found that it fits this machine.
        options: used by the CPU's executor only.

    Returns:
        An executor, to be closed by the caller.

    Raises:
        EngineError: if it cannot run here; the message says what is missing.
    """
    target = engine.manifest.target
    try:
        if isinstance(target, TensorRtTarget):
            return _tensorrt(engine, target)
        if isinstance(target, LlmApiTarget):
            return _llm_api(engine, target)
        return _core.CpuExecutor(
            str(engine.weights_path),
            engine.core_tensors(),
            engine.core_config(),
            _core.ExecutorOptions(
                threads=options.threads,
                max_batch_tokens=options.max_batch_tokens,
                kv_cache_bytes=options.kv_cache_mib << 20,
                item_cache_bytes=options.item_cache_mib << 20,
                item_kv_dtype=options.item_kv_dtype,
            ),
        )
    except EngineError:
        raise
    except MemoryError as error:
        wanted = f"kv_cache_mib={options.kv_cache_mib}"
        raise EngineError(f"{engine.path}: there is not enough memory for it with {wanted}") from error
    except (ValueError, RuntimeError) as error:
        raise EngineError(f"{engine.path}: {error}") from error


def _llm_api(engine: Engine, target: LlmApiTarget) -> Executor:
    from exp3rt_trt.executors.llmapi import LlmApiExecutor, LlmApiOptions  # noqa: PLC0415  (rarely needed)

    dims = engine.manifest.model
    return LlmApiExecutor(
        LlmApiOptions(
            checkpoint=engine.path,
            vocab_size=dims.vocab_size,
            dtype=engine.manifest.dtype,
            kv_dtype="auto" if target.kv_dtype == "bf16" else target.kv_dtype,
            max_batch_size=target.max_batch_size,
            max_num_tokens=target.max_num_tokens,
            max_seq_len=dims.max_context,  # the smaller of the recipe's and the model's
            tokens_per_block=target.tokens_per_block,
            kv_memory_fraction=target.kv_memory_fraction,
        )
    )


def _tensorrt(engine: Engine, target: TensorRtTarget) -> Executor:
    if not getattr(_core, "built_with_tensorrt_llm", False):
        raise EngineError(
            f"{engine.path}: a TensorRT engine, but this exp3rt_trt was built without TensorRT-LLM's "
            "headers; docs/tensorrt-llm.md says how to build it with them"
        )
    core: Any = _core  # what follows is there only where TensorRT-LLM's headers were
    dims = engine.manifest.model
    made: Executor = core.TrtLlmExecutor(
        str(engine.path),
        vocab_size=dims.vocab_size,
        max_context=dims.max_context,
        tokens_per_block=target.count("tokens_per_block"),
        max_batch_size=target.count("max_batch_size"),
        max_num_tokens=target.count("max_num_tokens"),
        kv_memory_fraction=target.kv_memory_fraction,
        device=_device(target),
    )
    return made


def _device(target: TensorRtTarget) -> int:
    """Give CUDA's number of the GPU; where CUDA_VISIBLE_DEVICES chooses, the first of its choice."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return 0
    fitting = [
        gpu.index for gpu in devices.gpu_devices() if (gpu.name, gpu.compute_capability) == target.device
    ]
    return fitting[0] if fitting else 0
