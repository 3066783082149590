"""Which recipe `--target` means on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exp3rt_trt.engines import devices, recipes
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from exp3rt_trt.engines.devices import GpuDevice
    from exp3rt_trt.engines.recipes import EngineRecipe

CPU = "cpu"
AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """What an engine is built for.

    Attributes:
        recipe: How; None for target "cpu", which is any CPU and needs no more than a dtype.
        device: The GPU of this machine that it is for; None for CPUs, and where there is no such GPU.
        notes: What a reader should know about the choice.
    """

    recipe: EngineRecipe | None
    device: GpuDevice | None
    notes: tuple[str, ...]

    @property
    def on_cpu(self) -> bool:
        """Whether the engine is for the CPU."""
        return self.recipe is None or self.recipe.kind == "cpu"


def choose(target: str) -> Choice:
    """Finds the recipe of a target.

    Args:
        target: "auto" for the first GPU at hand, or the processor where there is none; "cpu"; or a recipe's
            name.

    Returns:
        The recipe, and the GPU here that it is for.

    Raises:
        BuildError: There is no such recipe, or none for the device at hand.
    """
    if target == CPU:
        return Choice(None, None, ())
    if target == AUTO:
        return _choose_here()
    known = recipes.all_recipes()
    if target not in known:
        found = ", ".join(str(device) for device in [devices.cpu_device(), *devices.gpu_devices()])
        raise BuildError(
            f"target {target!r} is not known; known: {', '.join([AUTO, CPU, *known])}; devices found: {found}"
        )
    recipe = known[target]
    if recipe.kind == "cpu":
        return Choice(recipe, None, ())
    same_sm = [gpu for gpu in devices.gpu_devices() if gpu.compute_capability == recipe.sm]
    named = [gpu for gpu in same_sm if recipes.recipe_for(gpu)[0].name == recipe.name]
    if named:
        return Choice(recipe, named[0], ())
    if same_sm:
        words = f"no GPU that recipe {recipe.name} names is here; the engine will be for {same_sm[0]}"
        return Choice(recipe, same_sm[0], (words,))
    return Choice(recipe, None, ())


def _choose_here() -> Choice:
    gpus = devices.gpu_devices()
    if not gpus:
        cpu = devices.cpu_device()
        recipe, warning = recipes.recipe_for(cpu)
        words = f"no NVIDIA GPU is here: target auto is {cpu}, recipe {recipe.name}"
        return Choice(recipe, None, (words, *([warning] if warning else [])))
    recipe, warning = recipes.recipe_for(gpus[0])
    words = f"target auto is {gpus[0]}, recipe {recipe.name}"
    return Choice(recipe, gpus[0], (words, *([warning] if warning else [])))
