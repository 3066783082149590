"""Recipes: for each type of GPU or CPU, how an engine is built for it and why so (engines/*.toml)."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from exp3rt_trt.engines.devices import CpuDevice
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exp3rt_trt.engines.devices import GpuDevice

CHOICES = {
    "kind": ("cpu", "tensorrt_llm"),
    "dtype": ("fp32", "bf16", "int8"),
    "quantization": ("none", "fp8", "nvfp4", "int8_sq", "int4_awq"),
    "kv_dtype": ("fp32", "bf16", "fp8", "int8"),
}
FORMATS = {  # by SM: what its tensor cores multiply, beside bf16 without quantization
    "8.0": ("int8_sq", "int4_awq"),
    "8.9": ("fp8", "int8_sq", "int4_awq"),
    "9.0": ("fp8", "int8_sq", "int4_awq"),
    "10.0": ("fp8", "nvfp4"),
}
CPU_RECIPES = {  # by the instruction set of `_core.cpu_isa()`
    "avx2": "cpu-avx2",
    "avx512": "cpu-avx512",
    "avx512_vnni": "cpu-avx512",
    "avx512_bf16": "cpu-bf16",
    "amx": "cpu-bf16",
}


@dataclass(frozen=True)
class EngineRecipe:
    """How an engine is built for one type of device: one file engines/<name>.toml.

    Attributes:
        name: The file's stem.
        kind: "cpu" or "tensorrt_llm".
        gpu_names: Words of NVML's names that it is for; none for CPUs.
        sm: Compute capability, "9.0"; empty for CPUs.
        memory_gib: Memory that it was planned for; 0 for CPUs, which differ.
        dtype: Of activations and of weights that are not quantized: "bf16"; of a CPU engine: "fp32", "bf16"
            or "int8".
        quantization: Of the layers' matrices: "none", "fp8", "nvfp4", "int8_sq" or "int4_awq".
        kv_dtype: Of keys and values: "bf16", "fp8" or "int8"; on CPUs "fp32" too.
        max_batch_size: Sequences in one step; 0 on CPUs, where tokens alone are bounded.
        max_num_tokens: Tokens in one step.
        max_seq_len: Tokens of a sequence; 0 on CPUs: as many as the model takes.
        tokens_per_block: Of the KV cache.
        paged_context_fmha: Whether prompts attend to cached blocks, which reuse of prefixes needs.
        gemm_plugin: "auto", "disable" or a type.
        kv_memory_fraction: For keys and values, of the memory that is left beside the weights.
        reasons: For each value above but name and kind: why.
    """

    name: str
    kind: str
    gpu_names: tuple[str, ...]
    sm: str
    memory_gib: int
    dtype: str
    quantization: str
    kv_dtype: str
    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    tokens_per_block: int
    paged_context_fmha: bool
    gemm_plugin: str
    kv_memory_fraction: float
    reasons: Mapping[str, str]


REASONED = tuple(
    f.name for f in dataclasses.fields(EngineRecipe) if f.name not in ("name", "kind", "reasons")
)
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (float, int),
    "tuple[str, ...]": (list,),
    "Mapping[str, str]": (dict,),
}


def load_recipe(name: str) -> EngineRecipe:
    """Gives the recipe of a name.

    Args:
        name: As `all_recipes` lists it, "h100".

    Returns:
        The recipe.

    Raises:
        BuildError: There is none; the message lists those there are.

    Example:
        >>> load_recipe("h100").quantization
        'fp8'
    """
    recipes = all_recipes()
    if name not in recipes:
        raise BuildError(f"recipe {name!r}: there is none; known: {', '.join(recipes)}")
    return recipes[name]


@functools.cache
def all_recipes() -> dict[str, EngineRecipe]:
    """Reads all recipes, by name, in the order of their names.

    Raises:
        BuildError: A recipe is damaged, or there is none at all.
    """
    folder = recipes_folder()
    return {path.stem: read_recipe(path) for path in sorted(folder.glob("*.toml"))}


def recipes_folder() -> Path:
    """Finds the recipes: in the installed package, else in the source tree around it.

    Raises:
        BuildError: They are in neither.
    """
    here = Path(__file__).resolve()
    folders = (here.parents[1] / "recipes", here.parents[3] / "engines")
    for folder in folders:
        if any(folder.glob("*.toml")):
            return folder
    raise BuildError(f"no recipes in {' or '.join(map(str, folders))}: install exp3rt_trt anew")


def recipe_for(device: CpuDevice | GpuDevice) -> tuple[EngineRecipe, str | None]:
    """Chooses the recipe of a device.

    Args:
        device: As `cpu_device` or `gpu_devices` describes it.

    Returns:
        The recipe, and a warning if it was made for another device of the same SM or for more memory.

    Raises:
        BuildError: No recipe is for its SM or its instruction set.
    """
    if isinstance(device, CpuDevice):
        if device.isa not in CPU_RECIPES:
            raise BuildError(f"{device}: the CPU engine needs AVX2, so there is no recipe")
        return load_recipe(CPU_RECIPES[device.isa]), None
    recipe, warning = _gpu_recipe(device)
    if device.memory_bytes < recipe.memory_gib << 30:
        less = (
            f"{device}: recipe {recipe.name} was planned for {recipe.memory_gib} GiB; "
            f"`exp3rt-trt plan --target {recipe.name}` tells what fits"
        )
        return recipe, less if warning is None else f"{warning}; it was planned for {recipe.memory_gib} GiB"
    return recipe, warning


def _gpu_recipe(device: GpuDevice) -> tuple[EngineRecipe, str | None]:
    same_sm = [recipe for recipe in all_recipes().values() if recipe.sm == device.compute_capability]
    if not same_sm:
        known = ", ".join(f"{recipe.name} ({recipe.sm})" for recipe in all_recipes().values() if recipe.sm)
        raise BuildError(f"{device}: no recipe is for SM {device.compute_capability}; there are {known}")
    named = [
        (len(name), recipe) for recipe in same_sm for name in recipe.gpu_names if _has_word(device.name, name)
    ]
    if named:
        return max(named, key=lambda pair: pair[0])[1], None
    by_memory = sorted(same_sm, key=lambda recipe: recipe.memory_gib)
    fitting = [recipe for recipe in by_memory if recipe.memory_gib << 30 <= device.memory_bytes]
    recipe = fitting[-1] if fitting else by_memory[0]
    return recipe, f"{device}: no recipe names it; {recipe.name} is taken, which has the same SM"


def _has_word(text: str, words: str) -> bool:
    """Whole words only: an L40 is no L4, a GH200 no H200."""
    return re.search(rf"(?<![^\W_]){re.escape(words)}(?![^\W_])", text, re.IGNORECASE) is not None


def read_recipe(path: Path) -> EngineRecipe:
    """Reads one recipe and checks it.

    Raises:
        BuildError: A key is unknown, missing, of another type or out of range, a value has no reason, or
            TensorRT-LLM does not take the combination; the message names the file and the key.
    """
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415

    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{path}: cannot be read: {error}") from error
    values = {"name": path.stem, **_values(given, path)}
    recipe = EngineRecipe(**values)
    _check_reasons(recipe, path)
    _check_combination(recipe, path)
    return recipe


def _values(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    fields = {f.name: str(f.type) for f in dataclasses.fields(EngineRecipe) if f.name != "name"}
    for key, odd in (("unknown", given.keys() - fields.keys()), ("missing", fields.keys() - given.keys())):
        if odd:
            raise BuildError(f"{path}: {key}: {', '.join(sorted(odd))}")
    values: dict[str, Any] = {}
    for name, kind in fields.items():
        value = given[name]
        if type(value) not in _TYPES[kind]:
            raise BuildError(f"{path}: {name} must be of type {kind}, not {value!r}")
        if name in CHOICES and value not in CHOICES[name]:
            raise BuildError(f"{path}: {name} must be one of {', '.join(CHOICES[name])}, not {value!r}")
        values[name] = tuple(value) if isinstance(value, list) else value
    values["reasons"] = MappingProxyType(values["reasons"])
    return values


def _check_reasons(recipe: EngineRecipe, path: Path) -> None:
    missing = [name for name in REASONED if not str(recipe.reasons.get(name, "")).strip()]
    if missing:
        raise BuildError(f"{path}: [reasons]: missing: {', '.join(missing)}")
    unknown = sorted(recipe.reasons.keys() - set(REASONED))
    if unknown:
        raise BuildError(f"{path}: [reasons]: unknown: {', '.join(unknown)}")


def _check_combination(recipe: EngineRecipe, path: Path) -> None:
    least = 0 if recipe.kind == "cpu" else 1
    for name in ("max_batch_size", "max_seq_len", "memory_gib"):
        if getattr(recipe, name) < least:
            raise BuildError(f"{path}: {name} must be at least {least}, not {getattr(recipe, name)}")
    for name in ("max_num_tokens", "tokens_per_block"):
        if getattr(recipe, name) < 1:
            raise BuildError(f"{path}: {name} must be at least 1, not {getattr(recipe, name)}")
    if not 0 < recipe.kv_memory_fraction < 1:
        raise BuildError(f"{path}: kv_memory_fraction must be above 0 and below 1")
    if recipe.kind == "cpu":
        return
    if recipe.quantization != "none" and recipe.quantization not in FORMATS.get(recipe.sm, ()):
        raise BuildError(f"{path}: quantization {recipe.quantization} is not for SM {recipe.sm}")
    if recipe.paged_context_fmha and recipe.kv_dtype == "int8":
        raise BuildError(f"{path}: kv_dtype int8: TensorRT-LLM turns paged_context_fmha off beside it")
    if recipe.paged_context_fmha and recipe.kv_dtype == "fp8" and recipe.quantization not in ("fp8", "nvfp4"):
        raise BuildError(
            f"{path}: kv_dtype fp8: TensorRT-LLM keeps paged_context_fmha on beside it only with "
            f"quantization fp8 or nvfp4, not {recipe.quantization}"
        )
