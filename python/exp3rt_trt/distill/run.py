"""From a recipe to a measured engine: train, merge, build, evaluate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from exp3rt_trt import _core
from exp3rt_trt.distill.examples import read_splits
from exp3rt_trt.distill.merge import merge_adapter
from exp3rt_trt.distill.steps import hashes, run_step
from exp3rt_trt.distill.train import scale_of, train
from exp3rt_trt.engines.build import build_engine
from exp3rt_trt.engines.sources import open_checkpoint, resolve
from exp3rt_trt.evaluate.ablation import TEXTS, without
from exp3rt_trt.evaluate.bootstrap import Bootstrap
from exp3rt_trt.evaluate.predictors import student, user_item_bias
from exp3rt_trt.evaluate.ratings import measure_ratings
from exp3rt_trt.rating import SCALE_FILE
from exp3rt_trt.reranker import Reranker
from exp3rt_trt.segments import LAYOUT_FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from exp3rt_trt.distill.recipe import Recipe

BASELINE = "user + item bias"


class Distilled(NamedTuple):
    """Where a recipe's outputs are, and the figures."""

    adapter: Path
    checkpoint: Path
    engine: Path
    validation: dict[str, Any]
    test: dict[str, Any]


def distill(recipe: Recipe, say: Callable[[str], None] = lambda _: None) -> Distilled:
    """Make a student by a recipe. Steps that are done are not done again; a training goes on where it was.

    Args:
        recipe: see `read_recipe`.
        say: called with the name of each step before it starts.

    Returns:
        Adapter, merged checkpoint and engine, and the errors on users that training never saw.

    Raises:
        InvalidInputError: a faulty recipe or row.
        BuildError: the base cannot be found, or is not supported.

    Example:
        >>> distill(read_recipe(Path("engines/imdb-student/recipe.toml"))).test
    """
    work, base = recipe.work, open_checkpoint(resolve(recipe.base))
    data = [Path(name) for name in (*recipe.data.ratings, *recipe.data.texts)]
    inputs = {
        "base": hashes(base.files),
        "data": list(hashes(data).values()),
        "split": [
            recipe.data.highest,
            recipe.data.validation_share,
            recipe.data.test_share,
            recipe.data.split_seed,
        ],
        "texts": [recipe.data.text_passes, recipe.data.text_highest],
        "train": asdict(recipe.train),
        "start": hashes(adapter_files(Path(recipe.train.start))) if recipe.train.start else {},
        "seed": recipe.seed,
    }
    say("train")
    trained, validation = run_step(work, "train", inputs, lambda folder: train(recipe, folder))
    adapter = trained / "adapter"
    merged_inputs = {**hashes(base.files), **hashes(adapter_files(adapter))}
    say("merge")
    merged, _ = run_step(work, "merge", merged_inputs, lambda folder: _merge(recipe, adapter, folder))
    built_inputs = {**merged_inputs, "dtype": recipe.dtype, "package": _core.__version__}
    say("build")
    built, _ = run_step(work, "build", built_inputs, lambda folder: _build(recipe, merged, folder))
    say("evaluate")
    judged_inputs = {**built_inputs, **inputs}
    _, test = run_step(work, "evaluate", judged_inputs, lambda _: _evaluate(recipe, built / "engine"))
    return Distilled(adapter, merged, built / "engine", validation, test)


def adapter_files(folder: Path) -> list[Path]:
    """Return the files that say what an adapter does."""
    sides = (LAYOUT_FILE, SCALE_FILE)
    return [*sorted(folder.glob("adapter_*")), *(folder / name for name in sides if (folder / name).exists())]


def _merge(recipe: Recipe, adapter: Path, folder: Path) -> dict[str, Any]:
    merge_adapter(recipe.base, adapter, folder)
    return {}


def _build(recipe: Recipe, merged: Path, folder: Path) -> dict[str, Any]:
    return {"files": asdict(build_engine(merged, folder / "engine", recipe.dtype))["files"]}


def _evaluate(recipe: Recipe, engine: Path) -> dict[str, Any]:
    """Errors on the test users, for each file of ratings; and what is left without the profiles' words."""
    judged = {}
    with Reranker.from_pretrained(engine, scale=scale_of(recipe), threads=recipe.threads) as reranker:
        rate = student(reranker, "score")
        for name, split in zip(recipe.data.ratings, read_splits(recipe), strict=True):
            predictions = {
                BASELINE: user_item_bias(split.train)(split.test),
                "student": rate(split.test),
                "student without texts": without(rate, TEXTS)(split.test),
            }
            table = measure_ratings(
                split.test, predictions, baseline=BASELINE, known={}, bootstrap=Bootstrap(recipe.seed)
            )
            judged[Path(name).stem] = asdict(table)
    return judged
