"""The examples of a training run, in the order in which they are seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exp3rt_trt.distill.augment import AverageFit, only_averages, thin_out
from exp3rt_trt.distill.encode import EncodedGroup
from exp3rt_trt.distill.ratings import Split, by_user, read_ratings, split_rows
from exp3rt_trt.distill.texts import read_texts
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.segments import SegmentLayout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exp3rt_trt.distill.encode import Encoder
    from exp3rt_trt.distill.recipe import Recipe
    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.segments import SegmentName

ITEMS_PER_INVENTED_USER = 5
# "group": fields of an EncodedGroup, or "text": a Text; and "layout": fields of a SegmentLayout
Example = dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """What a run trains on and is validated on, and the texts that were too long."""

    train: list[Example]
    validation: list[Example]
    texts_left_out: int


def make_examples(recipe: Recipe, encoder: Encoder, text_encoder: Encoder) -> Examples:
    """Encode a recipe's data, ratings and texts each on its scale; the same recipe gives the same examples.

    First come averages alone, then users' rows, of which every pass draws another file. As it goes on, fewer
    points are left out and ratings are drawn less to the fit of the averages. Texts are spread evenly.

    Raises:
        InvalidInputError: for a faulty row, naming file and line.
    """
    splits = read_splits(recipe)
    first, train = splits[0], recipe.train
    random = np.random.default_rng(recipe.seed)
    fit = AverageFit(first.train, *encoder.scale_ends)
    numbers = train.average_steps * train.users_per_step
    examples: list[Example] = [
        _group(only_averages(fit, random, ITEMS_PER_INVENTED_USER), encoder) for _ in range(numbers)
    ]
    texts, left_out = _texts(recipe, text_encoder, random)
    length, total = train.steps * train.users_per_step, len(texts)
    users = _passes([by_user(split.train) for split in splits], random)
    for place in range(length):
        due = total * (place + 1) // length - total * place // length
        examples += [{"text": texts.pop()} for _ in range(due)]
        done = place / length
        keep = train.least_kept + (1 - train.least_kept) * done
        shrink = train.first_shrink + (train.last_shrink - train.first_shrink) * done
        rows = thin_out(next(users), random, keep)
        examples.append(_group([fit.shrink(row, shrink) for row in rows], encoder))
    held_out = [_group(rows, encoder) for rows in by_user(first.validation)[: train.validation_users]]
    for example in (*examples, *held_out):
        example["layout"] = asdict(train.layout)
    if train.random_positions:
        _draw_positions(examples, recipe)
    return Examples(examples, held_out, left_out)


def read_splits(recipe: Recipe) -> list[Split]:
    """Read the rating files and split each by user, in the same way.

    Raises:
        InvalidInputError: if a file's users and items are not those of the first, or a part is empty.
    """
    data, splits, pairs = recipe.data, [], None
    for name in data.ratings:
        rows = read_ratings(Path(name))
        found = [(row.user.user_id, row.item.item_id) for row in rows]
        pairs = pairs or found
        if found != pairs:
            raise InvalidInputError(f"{name}: its users and items are not those of {data.ratings[0]}")
        split = split_rows(rows, data.split_seed or recipe.seed, data.validation_share, data.test_share)
        if not all(split):
            raise InvalidInputError(f"{name}: too few users: one of train, validation and test has none")
        splits.append(split)
    if not splits:
        raise InvalidInputError("[data] ratings: no files")
    return splits


def _passes(files: list[list[list[RatingRow]]], random: np.random.Generator) -> Iterator[list[RatingRow]]:
    """Users in random order, again and again; each from another file than in the pass before."""
    chosen = random.integers(len(files), size=len(files[0]))
    while True:
        for user in random.permutation(len(files[0])):
            yield files[chosen[user]][user]
        chosen = (chosen + 1) % len(files)


def _texts(recipe: Recipe, encoder: Encoder, random: np.random.Generator) -> tuple[list[Example], int]:
    texts = [text for name in recipe.data.texts for text in read_texts(Path(name), encoder)]
    short = [text for text in texts if len(text["input_ids"]) <= recipe.train.longest_text]
    passes = range(recipe.data.text_passes)
    return [short[i] for _ in passes for i in random.permutation(len(short))], len(texts) - len(short)


def _group(rows: list[RatingRow], encoder: Encoder) -> Example:
    return {"group": asdict(encoder.encode(rows))}


def _segment_lengths(example: Example) -> list[dict[SegmentName, int]]:
    """Return the lengths, in tokens, of each prompt's segments."""
    if "text" in example:
        return [example["text"]["lengths"]]
    prompts = EncodedGroup(**example["group"]).prompts()
    return [{name: len(tokens) for name, tokens in prompt.items()} for prompt in prompts]


def _draw_positions(examples: list[Example], recipe: Recipe) -> None:
    """Draw the positions of items and answers anew for each step, with room for the longest segments."""
    layout, step = recipe.train.layout, recipe.train.users_per_step
    random = np.random.default_rng([recipe.seed, 1])  # the rows are those of a run with fixed positions
    lengths = [of for example in examples for of in _segment_lengths(example)]
    prefix = max(of["instructions"] + of["user"] for of in lengths if of["item"])
    longest = max(of["item"] for of in lengths)
    for first in range(0, len(examples), step):
        item = int(random.integers(prefix, layout.item_position, endpoint=True))
        answer = int(random.integers(item + longest, layout.answer_position, endpoint=True))
        for example in examples[first : first + step]:
            example["layout"] = asdict(SegmentLayout("segmented", item, answer))
