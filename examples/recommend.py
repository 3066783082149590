"""From raw reviews to an explained top five, on the shipped example.

python examples/recommend.py engines/smollm2-135m
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from exp3rt_trt import Reranker
from exp3rt_trt.pipeline import ImplicitFirstStage, Pipeline
from exp3rt_trt.profiles import ClauseJudge, ProfileBuilder, ProfileStore, read_items, read_reviews

HERE = Path(__file__).parent
LIKED = 4  # stars from which a film counts as liked


def main(engine: str, users: list[str]) -> None:
    """Print the recommendations of some users, or of all."""
    reviews = read_reviews(HERE / "film_reviews.jsonl").reviews
    films, _ = read_items(HERE / "films.jsonl")
    liked = [(r.user_id, r.item_id) for r in reviews if r.rating is not None and r.rating >= LIKED]
    with (
        tempfile.TemporaryDirectory() as folder,
        Reranker.from_pretrained(engine, max_reasoning_tokens=64) as reranker,
    ):
        # 1, 2: preferences and profiles; 3: rate and explain what a collaborative filter proposes
        profiles = ProfileStore(Path(folder) / "profiles.sqlite")
        profiles.add_items(films)
        ProfileBuilder(ClauseJudge(reranker.generator()), profiles).add(reviews)
        pipeline = Pipeline(ImplicitFirstStage(liked, factors=4), reranker, profiles)
        everyone = list(dict.fromkeys(review.user_id for review in reviews))
        for found in pipeline.recommend_many(users or everyone, k=5, n_candidates=5, mode="adaptive"):
            print(f"{found.user_id}: {found.num_candidates} candidates, {found.num_reasoned} reasoned for")
            for r in found:
                rating = r.status if r.rating is None else f"{r.rating:.2f}"
                print(
                    f"{r.rank} {r.title or r.item_id}: {rating}{'' if r.calibrated else ' (not calibrated)'}"
                )
                print(f"  {r.reasoning or r.error or 'scored only'}")
        profiles.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
