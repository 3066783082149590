"""What fits: from a model, a device's recipe and a workload to cached users and the batch that follows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.engines import footprint
from exp3rt_trt.engines.devices import cpu_device, gpu_devices, memory_bytes
from exp3rt_trt.engines.recipes import CPU_RECIPES, all_recipes, load_recipe, recipe_for
from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from exp3rt_trt.engines.footprint import PlannedModel
    from exp3rt_trt.engines.recipes import EngineRecipe


@dataclass(frozen=True)
class Workload:
    """Who is ranked and how long their prompts are, in tokens; no reasoning means score mode."""

    users: int
    candidates: int
    prefix_tokens: int = 512
    suffix_tokens: int = 192
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for field in dataclasses.fields(self):
            least = 0 if field.name == "reasoning_tokens" else 1
            if getattr(self, field.name) < least:
                raise InvalidInputError(
                    f"{field.name} must be at least {least}, not {getattr(self, field.name)}"
                )


@dataclass(frozen=True)
class Device:
    """What is planned for: a recipe, the memory there is, and the instruction set of a CPU."""

    recipe: EngineRecipe
    memory_bytes: int
    isa: str = ""
    warning: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a model takes of a device and what is left for users and candidates; sizes in bytes.

    Attributes:
        model: As it was named.
        recipe: Name of the recipe.
        dtype: Of the engine.
        quantization: Of its matrices.
        kv_dtype: Of keys and values.
        memory_bytes: Of the device.
        weights_bytes: In the device's memory.
        working_bytes: Activations, logits and runtime; an estimate.
        kv_bytes: For the KV cache: the recipe's share of what is left, in whole MiB.
        tokens_per_block: Of the KV cache.
        block_bytes: Of one block, all layers.
        blocks: That fit into kv_bytes.
        prefix_blocks: Of one user.
        candidate_blocks: Of one candidate, with its reasoning.
        step_candidates: Candidates that one step takes, whatever memory there is.
        in_flight: Candidates that are computed at the same time: as many as a step takes and memory holds.
        cached_users: Users whose prefix stays cached beside them.
        fits: Whether candidates can be rated at all.
        item_bytes: Of a segmented student's item of suffix_tokens, in memory and in a catalogue, by the type
            of its keys and values; empty for causal students.
        changes: What to change, if it does not fit or not all users stay cached.
        warning: About the choice of the recipe.
    """

    model: str
    recipe: str
    dtype: str
    quantization: str
    kv_dtype: str
    memory_bytes: int
    weights_bytes: int
    working_bytes: int
    kv_bytes: int
    tokens_per_block: int
    block_bytes: int
    blocks: int
    prefix_blocks: int
    candidate_blocks: int
    step_candidates: int
    in_flight: int
    cached_users: int
    fits: bool
    item_bytes: dict[str, int]
    changes: tuple[str, ...] = ()
    warning: str | None = None

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token, all layers."""
        return self.block_bytes // self.tokens_per_block


def planned_device(target: str) -> Device:
    """Finds what a target stands for.

    Args:
        target: "auto" (the first GPU, else the CPU), "cpu" (this machine's), or a recipe's name.

    Returns:
        The device.

    Raises:
        BuildError: No such recipe, or none for the device that was found.
    """
    gpus = gpu_devices() if target == "auto" else []
    if gpus:
        recipe, warning = recipe_for(gpus[0])
        return Device(recipe, gpus[0].memory_bytes, warning=warning)
    if target in ("auto", "cpu"):
        cpu = cpu_device()
        return Device(recipe_for(cpu)[0], memory_bytes(), cpu.isa)
    recipe = load_recipe(target)
    if recipe.kind != "cpu":
        return Device(recipe, recipe.memory_gib << 30)
    least_isa = next(isa for isa, name in CPU_RECIPES.items() if name == target)
    return Device(recipe, memory_bytes(), least_isa)


def make_plan(model: PlannedModel, device: Device, workload: Workload) -> Plan:
    """Computes what fits.

    Args:
        model: As `read_model` reads it.
        device: As `planned_device` finds it.
        workload: What is to be ranked.

    Returns:
        The plan.

    Example:
        >>> model = read_model("meta-llama/Llama-3.1-8B-Instruct")
        >>> make_plan(model, planned_device("h100"), Workload(users=1000, candidates=100)).in_flight
        42
    """
    plan = _compute(model, device, workload)
    return dataclasses.replace(plan, changes=tuple(_changes(plan, model, device, workload)))


def _compute(model: PlannedModel, device: Device, workload: Workload) -> Plan:
    recipe, dims = device.recipe, model.dims
    if recipe.kind == "cpu":
        dtype = model.dtype or recipe.dtype
        kv_dtype = footprint.cpu_kv_dtype(dtype, device.isa)
        weights = footprint.cpu_weights_bytes(model, dtype, device.isa)
        working = footprint.cpu_working_bytes(dims, recipe)
        block_bytes = footprint.cpu_block_bytes(dims, kv_dtype)
    else:
        dtype, kv_dtype = recipe.dtype, recipe.kv_dtype
        weights = footprint.gpu_weights_bytes(model, recipe.quantization, dtype)
        working = footprint.gpu_working_bytes(dims, recipe)
        block_bytes = footprint.gpu_block_bytes(dims, kv_dtype, recipe.tokens_per_block)
    left = max(0, device.memory_bytes - weights - working)
    kv_bytes = int(left * recipe.kv_memory_fraction) >> 20 << 20  # options are in MiB
    blocks = kv_bytes // block_bytes
    prefix = -(-workload.prefix_tokens // recipe.tokens_per_block)
    own = -(-(workload.suffix_tokens + workload.reasoning_tokens) // recipe.tokens_per_block)
    step = step_candidates(recipe, workload)
    held = _held(blocks, prefix, own, workload.candidates)
    in_flight = min(step, held, workload.users * workload.candidates)
    return Plan(
        model=model.name,
        recipe=recipe.name,
        dtype=dtype,
        quantization=recipe.quantization,
        kv_dtype=kv_dtype,
        memory_bytes=device.memory_bytes,
        weights_bytes=weights,
        working_bytes=working,
        kv_bytes=kv_bytes,
        tokens_per_block=recipe.tokens_per_block,
        block_bytes=block_bytes,
        blocks=blocks,
        prefix_blocks=prefix,
        candidate_blocks=own,
        step_candidates=step,
        in_flight=in_flight,
        cached_users=(blocks - in_flight * own) // prefix if in_flight else 0,
        fits=in_flight > 0 and _tokens(workload) <= _limit(model, recipe),
        item_bytes=_item_bytes(model, recipe, kv_dtype, workload.suffix_tokens),
        warning=device.warning,
    )


def _item_bytes(model: PlannedModel, recipe: EngineRecipe, kv_dtype: str, tokens: int) -> dict[str, int]:
    if not model.layout.segmented or recipe.kind != "cpu":
        return {}
    return {each: footprint.cpu_item_bytes(model.dims, each, tokens) for each in (kv_dtype, "int8")}


def step_candidates(recipe: EngineRecipe, workload: Workload) -> int:
    """Tells how many candidates one step takes: whole suffixes to read, or one token each to write."""
    rows = 1 if workload.reasoning_tokens else workload.suffix_tokens
    by_tokens = max(1, recipe.max_num_tokens // rows)
    return min(by_tokens, recipe.max_batch_size) if recipe.max_batch_size else by_tokens


def _held(blocks: int, prefix: int, own: int, candidates: int) -> int:
    """Candidates that memory holds at once, each `candidates` of them with a prefix of their user."""
    users, rest = divmod(blocks, prefix + candidates * own)
    return users * candidates + max(0, rest - prefix) // own


def _tokens(workload: Workload) -> int:
    return workload.prefix_tokens + workload.suffix_tokens + workload.reasoning_tokens


def _limit(model: PlannedModel, recipe: EngineRecipe) -> int:
    return min(recipe.max_seq_len or model.dims.max_context, model.dims.max_context)


def _changes(plan: Plan, model: PlannedModel, device: Device, workload: Workload) -> list[str]:
    recipe, changes = device.recipe, []
    limit, tokens = _limit(model, recipe), _tokens(workload)
    if tokens > limit:
        whose = "the model's context" if limit == model.dims.max_context else f"max_seq_len of {recipe.name}"
        changes.append(f"prefix, suffix and reasoning make {tokens} tokens, {whose} is {limit}: shorten them")
    if plan.in_flight and plan.cached_users >= workload.users:
        return changes
    needed = plan.weights_bytes + plan.working_bytes
    if needed >= plan.memory_bytes:
        changes.append(
            f"weights and working memory take {_gib(needed)}, the device has {_gib(plan.memory_bytes)}: "
            f"take a smaller model or a device with more memory"
        )
    elif not plan.in_flight:
        least = (plan.prefix_blocks + plan.candidate_blocks) * plan.block_bytes
        changes.append(
            f"the KV cache gets {_gib(plan.kv_bytes)}, one user with one candidate takes {_gib(least)}: "
            "shorten the prefix or take a device with more memory"
        )
    else:
        changes.append(_of_users(plan, workload))
    larger = _larger_targets(model, workload, device)
    if larger:
        changes.append(f"all {workload.users} users stay cached on {', '.join(larger)}")
    return changes


def _of_users(plan: Plan, workload: Workload) -> str:
    room = plan.blocks - plan.in_flight * plan.candidate_blocks
    prefix = room // workload.users * plan.tokens_per_block
    shorter = f"make prefixes at most {prefix} tokens, or " if prefix else ""
    devices = -(-workload.users // max(1, plan.cached_users))
    return (
        f"{plan.cached_users} of {workload.users} users stay cached, the prefixes of the others are computed "
        f"anew when they come back: {shorter}spread users over {devices} such devices"
    )


def _larger_targets(model: PlannedModel, workload: Workload, device: Device) -> list[str]:
    targets = []
    for recipe in sorted(all_recipes().values(), key=lambda each: each.memory_gib):
        if recipe.kind == "cpu" or recipe.memory_gib << 30 <= device.memory_bytes:
            continue
        plan = _compute(model, Device(recipe, recipe.memory_gib << 30), workload)
        if plan.fits and plan.cached_users >= workload.users:
            targets.append(recipe.name)
    return targets


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.0f} MiB"
