"""Segmented students: tiny random ones, and what transformers makes of their prompts."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from exp3rt_trt import Item, UserProfile
from exp3rt_trt.distill.attention import additive, attention_mask, token_positions
from exp3rt_trt.engines.build import build_engine
from exp3rt_trt.segments import LAYOUT_FILE, SEGMENTS, SegmentLayout

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt import _core

LAYOUT = SegmentLayout("segmented", item_position=900, answer_position=1500)
WORDS = ["war", "boats", "a family", "slow love", "work", "the sea", "a baker", "nothing"]
USER = UserProfile("Likes slow films about work. Dislikes war.", "u", 3.5)


def film(number: int) -> Item:
    """Give a film whose description grows with its number."""
    words = np.random.default_rng(number).choice(WORDS, size=3 + 7 * number)
    return Item(number, f"Film {number}", " ".join(words))


def make_segmented_engine(checkpoint: Path, out: Path, dtype: str, layout: SegmentLayout = LAYOUT) -> Path:
    """Build an engine of a checkpoint's segmented twin."""
    twin = out.with_name(out.name + "-checkpoint")
    if not twin.exists():
        shutil.copytree(checkpoint, twin)
        (twin / LAYOUT_FILE).write_text(layout.to_json(), encoding="utf-8")
    build_engine(twin, out, dtype)
    return out


def reference_ratings(model: Any, group: _core.RerankGroup, values: tuple[float, ...]) -> list[float]:
    """Give the expected rating of each of a group's candidates, its prompt computed flat under one mask."""
    ratings = []
    for item, suffix in zip(group.items, group.suffixes, strict=True):
        instructions, user = group.prefix
        parts = dict(zip(SEGMENTS, (instructions, user, item, suffix + group.answer_tokens), strict=True))
        lengths = {name: len(tokens) for name, tokens in parts.items()}
        mask = additive(attention_mask(lengths, LAYOUT), torch.float32)
        tokens = [token for part in parts.values() for token in part]
        with torch.no_grad():
            out = model(
                torch.tensor([tokens]),
                attention_mask=mask[None, None],
                position_ids=token_positions(lengths, LAYOUT)[None],
            )
        logits = out.logits[0, -1, list(group.label_tokens)].double()
        ratings.append(float(torch.softmax(logits, dim=0) @ torch.tensor(values, dtype=torch.float64)))
    return ratings
