"""Files of rating rows in the form of the EXP3RT authors', of invented users."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

PERSONA = "[Like]\n- calm\n- drama\n\n[Dislike]\n- None"


def write_ratings(path: Path, seed: int, users: int = 24) -> None:
    """Ratings that follow the averages, with some noise."""
    random = np.random.default_rng(7)
    other = np.random.default_rng(seed)
    lines = []
    for user in range(users):
        average = random.uniform(3, 9)
        for item in range(int(random.integers(1, 4))):
            others = random.uniform(3, 9)
            score = int(np.clip(round((average + others) / 2 + random.normal()), 1, 10))
            points = "\n- ".join(other.permutation(["slow", "honest", "quiet", "loud", "thin plot"]))
            row = {
                "user_id": f"u{user}",
                "item_id": f"i{item}",
                "user_persona": f"{PERSONA}\n\n[Average Rating]\n{average:.1f}",
                "item_synopsis": f"[Like]\n- {points}\n\n[Dislike]\n- None\n\n[Average Rating]\n{others:.1f}",
                "item_description": "Title: The Long Way Home (1998)\nGenres: Drama\nPlot: A family.",
                "score": str(score),
            }
            lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
