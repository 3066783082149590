"""What engines are for: a kind of device, and what must be the same when they are opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exp3rt_trt.engines.fields import Fields

WEIGHTS = "weights.safetensors"
TOKENIZER = "tokenizer.json"
PLAN = "rank0.engine"  # the names of TensorRT-LLM's own files
PLAN_CONFIG = "config.json"
CHECKPOINT_WEIGHTS = "model.safetensors"
CHECKPOINT_CONFIG = "config.json"
COUNTS = ("max_batch_size", "max_num_tokens", "max_seq_len", "tokens_per_block")  # flags that are needed here
TENSORRT_LLM = "tensorrt_llm"
LLM_API = "tensorrt_llm_llmapi"


@dataclass(frozen=True)
class Target:
    """The CPU, and the least instruction set that the engine needs.

    A kind that this version does not know is one of these, too, so that its manifest can be shown.
    """

    kind: str
    isa: str
    needed_files: ClassVar[tuple[str, ...]] = (WEIGHTS, TOKENIZER)

    def __str__(self) -> str:
        return f"{self.kind}, {self.isa} or newer"


@dataclass(frozen=True)
class TensorRtTarget:
    """One type of GPU and one version of TensorRT and TensorRT-LLM; a TensorRT engine runs on no other.

    Attributes:
        kind: "tensorrt_llm".
        recipe: The recipe's name, such as "h100".
        gpu: The GPU's name as NVML gives it.
        sm: Its compute capability, such as "9.0".
        driver: Version of the driver at the build; not compared.
        cuda: Version of CUDA that this driver supports; not compared.
        tensorrt: Version.
        tensorrt_llm: Version.
        quantization: Of the weights, as in the recipe.
        kv_dtype: Of keys and values, as in the recipe.
        kv_memory_fraction: Of the memory left beside the weights.
        flags: What was given to trtllm-build, without the directories.
    """

    kind: str
    recipe: str
    gpu: str
    sm: str
    driver: str
    cuda: str
    tensorrt: str
    tensorrt_llm: str
    quantization: str
    kv_dtype: str
    kv_memory_fraction: float
    flags: Mapping[str, str]
    needed_files: ClassVar[tuple[str, ...]] = (PLAN, PLAN_CONFIG, TOKENIZER)

    @property
    def device(self) -> tuple[str, str]:
        """Name and compute capability, which must be the GPU's."""
        return self.gpu, self.sm

    def count(self, flag: str) -> int:
        """Gives the number of a flag of COUNTS."""
        return int(self.flags[flag])

    def __str__(self) -> str:
        return (
            f"{self.kind}, {self.gpu} (SM {self.sm}) by recipe {self.recipe}, {self.quantization} weights, "
            f"{self.kv_dtype} KV cache; TensorRT-LLM {self.tensorrt_llm}, TensorRT {self.tensorrt}, "
            f"CUDA {self.cuda}, driver {self.driver}"
        )


@dataclass(frozen=True)
class LlmApiTarget:
    """TensorRT-LLM's LLM API, 1.3 and newer: a checkpoint, compiled by nobody, and what to give to the API.

    Attributes:
        kind: "tensorrt_llm_llmapi".
        recipe: The recipe's name.
        tensorrt_llm: Version at the build; newer ones may run it.
        kv_dtype: Of keys and values, as in the recipe.
        kv_memory_fraction: Of the memory left beside the weights.
        max_batch_size: Sequences in one step.
        max_num_tokens: Tokens in one step.
        max_seq_len: Tokens of a sequence.
        tokens_per_block: Of the KV cache.
    """

    kind: str
    recipe: str
    tensorrt_llm: str
    kv_dtype: str
    kv_memory_fraction: float
    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    tokens_per_block: int
    needed_files: ClassVar[tuple[str, ...]] = (CHECKPOINT_WEIGHTS, CHECKPOINT_CONFIG, TOKENIZER)

    def __str__(self) -> str:
        return f"{self.kind}, by recipe {self.recipe}; built with TensorRT-LLM {self.tensorrt_llm}"


AnyTarget = Target | TensorRtTarget | LlmApiTarget


def read_target(raw: Fields) -> AnyTarget:
    """Reads the manifest's `target` and checks every field.

    Raises:
        EngineError: A field is missing or out of range.
    """
    kind = raw.text("kind")
    if kind == TENSORRT_LLM:
        names = ["recipe", "gpu", "sm", "driver", "cuda", "tensorrt", "tensorrt_llm"]
        names += ["quantization", "kv_dtype"]
        flags = raw.object("flags")
        for name in COUNTS:
            if not str(flags.raw.get(name)).isdecimal():
                raise flags.fail(name, "a number as text")
        return TensorRtTarget(
            kind=kind,
            **{name: raw.text(name) for name in names},
            kv_memory_fraction=_fraction(raw),
            flags={name: flags.text(name) for name in flags.raw},
        )
    if kind == LLM_API:
        return LlmApiTarget(
            kind=kind,
            recipe=raw.text("recipe"),
            tensorrt_llm=raw.text("tensorrt_llm"),
            kv_dtype=raw.text("kv_dtype"),
            kv_memory_fraction=_fraction(raw),
            max_batch_size=raw.integer("max_batch_size"),
            max_num_tokens=raw.integer("max_num_tokens"),
            max_seq_len=raw.integer("max_seq_len"),
            tokens_per_block=raw.integer("tokens_per_block"),
        )
    return Target(kind, raw.text("isa"))


def _fraction(raw: Fields) -> float:
    value = raw.number("kv_memory_fraction")
    if value > 1:
        raise raw.fail("kv_memory_fraction", "a number of at most 1")
    return value
