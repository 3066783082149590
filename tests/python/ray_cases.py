"""A job over a dataset, which a test starts as a program of its own and kills; and users for it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.data
from exp3rt_trt.integrations.ray_data import rank_dataset
from rank_cases import OPTIONS

if TYPE_CHECKING:
    from ray.data import Dataset

ENGINE_OPTIONS = {name: value for name, value in OPTIONS.items() if name != "threads"}
BEFORE_GATE = 6  # users that are ranked while the gate is shut


def user_row(number: int, candidates: int = 3) -> dict[str, Any]:
    items = [
        {"item_id": f"i{n}", "title": None, "description": f"Film {n} of {number}."}
        for n in range(candidates)
    ]
    user = {"profile": f"Likes films of {number}."}
    return {"user_id": number, "user": user, "candidates": items, "country": "SI"}


def rank(dataset: Dataset, engine: str, **options: Any) -> Dataset:
    return rank_dataset(dataset, engine, actors=2, threads=1, options=ENGINE_OPTIONS, **options)


def job(rows: str, engine: str, out: str, checkpoint: str, gate: str) -> None:
    """Ranks users from files into files; those behind the gate wait until its file is there."""

    def wait(row: dict[str, Any]) -> dict[str, Any]:
        while row["user_id"] >= BEFORE_GATE and not Path(gate).exists():
            time.sleep(0.05)
        return row

    files = sorted(str(path) for path in Path(rows).iterdir())
    waited = ray.data.read_json(files, override_num_blocks=len(files)).map(wait)
    rank(waited, engine, users_per_block=2, checkpoint=checkpoint).write_parquet(out)


if __name__ == "__main__":
    address, *arguments = sys.argv[1:]
    ray.init(address)
    job(*arguments)
