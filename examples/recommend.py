"""From a collaborative filter to an explained top five, on the shipped example.

python examples/recommend.py engines/smollm2-135m
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt import Item, Reranker, UserProfile
from exp3rt_trt.pipeline import ArrayFirstStage, Pipeline, ProfileTable

if TYPE_CHECKING:
    from exp3rt_trt.pipeline import ProfileSource

MOVIES = Path(__file__).with_name("movie_night.jsonl")


def profiles(path: Path) -> ProfileSource:
    """Read users and items whose profiles are written already."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    users = [UserProfile(**row["user"]) for row in rows]
    items = [Item(**candidate) for row in rows for candidate in row["candidates"]]
    return ProfileTable({u.user_id: u for u in users if u.user_id is not None}, {i.item_id: i for i in items})


def first_stage(path: Path) -> ArrayFirstStage:
    """Stand in for a filter that was trained elsewhere: its candidates in falling order of score."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    item_ids = [candidate["item_id"] for row in rows for candidate in row["candidates"]]
    width = max(len(row["candidates"]) for row in rows)
    ids, first = [], 0
    for row in rows:
        count = len(row["candidates"])
        ids.append([*range(first, first + count), *[-1] * (width - count)])
        first += count
    scores = [[float(width - column) for column in range(width)] for _ in rows]
    return ArrayFirstStage(ids, scores, user_ids=[row["user"]["user_id"] for row in rows], item_ids=item_ids)


def main(engine: str) -> None:
    """Print the recommendations of every user."""
    with Reranker.from_pretrained(engine, max_reasoning_tokens=64) as reranker:
        pipeline = Pipeline(first_stage(MOVIES), reranker, profiles(MOVIES))
        users = [json.loads(line)["user"]["user_id"] for line in MOVIES.read_text("utf-8").splitlines()]
        for found in pipeline.recommend_many(users, k=5, mode="adaptive"):
            print(f"{found.user_id}: {found.num_candidates} candidates, {found.num_reasoned} reasoned for")
            for r in found:
                rating = r.status if r.rating is None else f"{r.rating:.2f}"
                print(f"{r.rank} {r.title}: {rating}{'' if r.calibrated else ' (not calibrated)'}")
                print(f"  {r.reasoning or r.error or 'scored only'}")


if __name__ == "__main__":
    main(sys.argv[1])
