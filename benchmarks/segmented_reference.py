"""Compares engines of a segmented student with transformers in float32, prompts computed flat under the mask.

    python benchmarks/segmented_reference.py STUDENT --engines ENGINE ENGINE --json out.json

STUDENT is a folder such as engines/imdb-student-segmented. The pairs are those of some of the recipe's test
users with films of its test rows. The reference is the base in float32 under the adapter as PEFT applies it,
with the mask and the positions of exp3rt_trt/distill/attention.py: nothing is merged, shared or cached.
Each engine runs with items in its own type and in int8. Needs the extra [test].
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from exp3rt_trt import RatingScale, Reranker
from exp3rt_trt.distill.attention import reference_logits
from exp3rt_trt.distill.encode import Encoder
from exp3rt_trt.distill.examples import read_splits
from exp3rt_trt.distill.ratings import by_user
from exp3rt_trt.distill.recipe import read_recipe
from exp3rt_trt.engines.sources import resolve
from exp3rt_trt.evaluate import student
from exp3rt_trt.rating import expected_rating, label_probabilities
from exp3rt_trt.segments import read_layout
from peft import PeftModel
from scipy.stats import kendalltau
from transformers import AutoModelForCausalLM

if TYPE_CHECKING:
    from exp3rt_trt.evaluate.rows import RatingRow
    from numpy.typing import NDArray

    Ratings = NDArray[np.float64]  # [num_users, num_items]
    Findings = dict[str, Any]

SCALE = RatingScale.one_to_ten()


def main(arguments: list[str] | None = None) -> None:
    """Compare, print and write the findings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("student", type=Path, help="folder of adapter, segments.json and recipe.toml")
    parser.add_argument("--engines", type=Path, nargs="+", required=True)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--items", type=int, default=50, help="of each user")
    parser.add_argument("--json", type=Path, help="file for the findings")
    given = parser.parse_args(arguments)
    recipe = read_recipe(given.student / "recipe.toml")
    users = pairs(read_splits(recipe)[0].test, given.users, given.items)
    reference = reference_ratings(recipe.base, given.student, users)
    findings = {
        "pairs": reference.size,
        "standard_deviation": float(reference.std()),
        "engines": [
            measured(engine, items, users, reference) for engine in given.engines for items in ("", "int8")
        ],
    }
    print(json.dumps(findings, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(findings, indent=2) + "\n", encoding="utf-8")


def pairs(rows: list[RatingRow], num_users: int, num_items: int) -> list[list[RatingRow]]:
    """Return for each of the first users the same films; the rows' own ratings mean nothing."""
    items = list({row.item.item_id: row for row in rows}.values())[:num_items]
    return [[replace(row, user=mine[0].user) for row in items] for mine in by_user(rows)[:num_users]]


@torch.no_grad()
def reference_ratings(base: str, adapter: Path, users: list[list[RatingRow]]) -> Ratings:
    """Return the expected ratings of flat prompts, [num_users, num_items]."""
    path, layout = resolve(base), read_layout(adapter)
    where: dict[str, Any] = {"pretrained_model_name_or_path": path}
    if path.is_file():
        where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    encoder = Encoder(path, SCALE, layout=layout)
    logits = [reference_logits(model, encoder.encode(rows), layout).numpy() for rows in users]
    return np.stack([expected_rating(label_probabilities(each), SCALE.values) for each in logits])


def measured(engine: Path, item_kv_dtype: str, users: list[list[RatingRow]], reference: Ratings) -> Findings:
    """Return how far an engine's ratings are from the reference, and Kendall's tau of each user's orders."""
    with Reranker.from_pretrained(engine, scale=SCALE, item_kv_dtype=item_kv_dtype) as reranker:
        dtype, rate = reranker.engine.manifest.dtype, student(reranker, "score")
        found = np.stack([rate(rows).ratings for rows in users])
    apart = np.abs(reference - found)
    taus = [float(kendalltau(*orders).statistic) for orders in zip(reference, found, strict=True)]
    kept = item_kv_dtype or dtype
    return {"dtype": dtype, "items": kept, "max": apart.max(), "mean": apart.mean(), "kendall_tau": taus}


if __name__ == "__main__":
    main()
