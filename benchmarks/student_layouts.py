"""Trains a recipe's student with causal and with segmented attention, some seeds each, and compares errors.

    python benchmarks/student_layouts.py benchmarks/student_layouts.toml --seeds 1 2 3 --out layouts.json

Runs differ in attention and in seed alone: the split, the rows of a seed and their order, the steps and all
that is set in the recipe are the same. Adapters and predictions stay in the recipe's work folder; what is
done is not done again, so runs can share a machine: start one process for each attention, then collect.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from exp3rt_trt.distill.branching import label_logits, make_batch
from exp3rt_trt.distill.encode import Encoder
from exp3rt_trt.distill.examples import read_splits
from exp3rt_trt.distill.losses import rating_loss
from exp3rt_trt.distill.merge import merge_adapter
from exp3rt_trt.distill.ratings import by_user
from exp3rt_trt.distill.recipe import Recipe, read_recipe
from exp3rt_trt.distill.run import BASELINE
from exp3rt_trt.distill.steps import run_step
from exp3rt_trt.distill.train import scale_of, train
from exp3rt_trt.evaluate.predictors import user_item_bias
from transformers import AutoModelForCausalLM

if TYPE_CHECKING:
    from exp3rt_trt.evaluate.rows import RatingRow

USERS_PER_BATCH = 8


def main() -> None:
    """Train what is not trained yet, and write a table of all runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--attention", nargs="+", default=["causal", "segmented"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--random-positions", action="store_true", help="of segmented students, in training")
    parser.add_argument("--out", type=Path, required=True, help="JSON of errors by run")
    given = parser.parse_args()
    recipe = read_recipe(given.recipe)
    runs = [
        measured(variant(recipe, attention, seed, given.random_positions))
        for seed in given.seeds
        for attention in given.attention
    ]
    split = read_splits(recipe)[0]
    bias = np.asarray(user_item_bias(split.train)(split.test).ratings)
    table = {BASELINE: errors(bias, split.test), "rows": len(split.test), "runs": runs}
    given.out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def variant(recipe: Recipe, attention: str, seed: int, random_positions: bool) -> Recipe:
    """Return the recipe of one run; the split stays that of the recipe's own seed."""
    data = replace(recipe.data, split_seed=recipe.data.split_seed or recipe.seed)
    drawn = random_positions and attention == "segmented"
    given = replace(recipe.train, attention=attention, random_positions=drawn)
    return replace(recipe, seed=seed, data=data, train=given)


def measured(recipe: Recipe) -> dict[str, Any]:
    """Train a run's student, merge it, and return its errors on the test users."""
    name = f"{recipe.train.attention}{'-drawn' * recipe.train.random_positions}-{recipe.seed}"
    inputs = {"train": asdict(recipe.train), "data": asdict(recipe.data), "seed": recipe.seed}

    def make(folder: Path) -> dict[str, Any]:
        validation = train(recipe, folder)
        merge_adapter(recipe.base, folder / "adapter", folder / "merged")
        rows = read_splits(recipe)[0].test
        predicted = predict(recipe, folder / "merged", rows)
        (folder / "predictions.json").write_text(json.dumps(predicted.tolist()), encoding="utf-8")
        return {**errors(predicted, rows), **validation}

    folder, result = run_step(recipe.work, name, inputs, make)
    print(folder, result, flush=True)
    return {"attention": recipe.train.attention, "seed": recipe.seed, **result}


def predict(recipe: Recipe, checkpoint: Path, rows: list[RatingRow]) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the expected rating of each row, [num_rows], rows of a user together as they are given."""
    scale, layout = scale_of(recipe), recipe.train.layout
    encoder = Encoder(checkpoint, scale, layout=layout)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    users = by_user(rows)
    predicted: dict[int, float] = {}
    for first in range(0, len(users), USERS_PER_BATCH):
        some = users[first : first + USERS_PER_BATCH]
        batch = make_batch([encoder.encode(user) for user in some], layout)
        with torch.no_grad():
            _, expected = rating_loss(label_logits(model, batch), batch["ratings"], scale.values, 1.0, 1.0)
        places = [id(row) for user in some for row in user]
        predicted.update(zip(places, expected.tolist(), strict=True))
    return np.array([predicted[id(row)] for row in rows])


def errors(predicted: np.ndarray[Any, np.dtype[Any]], rows: list[RatingRow]) -> dict[str, float]:
    """Return RMSE and MAE."""
    difference = predicted - np.array([row.rating for row in rows])
    return {"rmse": float(np.sqrt((difference**2).mean())), "mae": float(np.abs(difference).mean())}


if __name__ == "__main__":
    main()
