"""Rating rows of invented users and films, and files of them, for the tests of `exp3rt_trt.evaluate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from exp3rt_trt import RatingScale
from exp3rt_trt.evaluate.rows import RatingRow, row_of

if TYPE_CHECKING:
    from pathlib import Path

TEN = RatingScale.one_to_ten()
PROFILE = "[Like]\n- Slow films\n\n[Dislike]\n- Jump scares\n\n[Average Rating]\n{:.1f}"


def line(user: int, item: int, rating: float, **fields: Any) -> dict[str, Any]:
    """One line of a file of ratings; averages follow from the numbers of user and item."""
    return {
        "user_id": f"u{user}",
        "item_id": f"i{item}",
        "user_persona": PROFILE.format(4 + user % 5),
        "item_synopsis": f"[Like]\n- Boats\n\n[Dislike]\n- None\n\n[Average Rating]\n{5 + item % 4:.1f}",
        "item_description": f"Title: Film {item}\nPlot: A boat goes far.",
        "score": f"{rating:g}",
        **fields,
    }


def row(user: int, item: int, rating: float, **fields: Any) -> RatingRow:
    return row_of(line(user, item, rating, **fields), TEN, f"ratings.jsonl:{user}")


def lines(users: int, items: int, seed: int = 0) -> list[dict[str, Any]]:
    """Everyone rates every item: user's average + item's average - 5 + noise, within the scale."""
    random = np.random.default_rng(seed)
    return [
        line(user, item, float(np.clip(round(4 + user % 5 + item % 4 + random.normal()), 1, 10)))
        for user in range(users)
        for item in range(items)
    ]


def rows(users: int, items: int, seed: int = 0) -> list[RatingRow]:
    return [row_of(each, TEN) for each in lines(users, items, seed)]


def write_lines(path: Path, *objects: Any) -> Path:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in objects]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def write_interactions(folder: Path, users: int = 24, items: int = 12) -> Path:
    """Two groups of users, each with its half of the items; of six items everyone has one held out."""
    folder.mkdir()
    train, test = [], []
    for user in range(users):
        own = [item for item in range(items) if item % 2 == user % 2]
        held_out = own[user // 2 % len(own)]
        train.append(" ".join(map(str, [user, *(item for item in own if item != held_out)])))
        test.append(f"{user} {held_out}")
    write_lines(folder / "train.txt", *train)
    write_lines(folder / "test.txt", *test)
    write_lines(folder / "user_list.txt", "org_id remap_id", *(f"u{user} {user}" for user in range(users)))
    write_lines(folder / "item_list.txt", "org_id remap_id", *(f"i{item} {item}" for item in range(items)))
    return folder
