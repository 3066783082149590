"""Segmented students on the engine: against transformers, and the same bits wherever an item comes from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from exp3rt_trt import InvalidInputError, Reranker, UserProfile
from exp3rt_trt.groups import RawPrompts
from exp3rt_trt.jobs import Request
from exp3rt_trt.segments import CAUSAL, LAYOUT_FILE, SegmentLayout, layout_of, read_layout
from segmented import LAYOUT, USER, film, reference_ratings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILMS = [film(number) for number in range(12)]
OTHER = UserProfile("Likes war and boats.", "v")


def ratings(
    reranker: Reranker, films: list[object], user: object = USER, **options: object
) -> dict[object, float]:
    """Give the exact expected ratings by item id."""
    return {r.item_id: r.expected_rating for r in reranker.rank(user, films, **options)}  # type: ignore[arg-type, misc]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_ratings_are_those_of_transformers_under_the_mask(
    segmented_engine: Callable[..., Path], tiny_checkpoint: Callable[[str], Path], family: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        tiny_checkpoint(family), dtype=torch.float32, attn_implementation="eager"
    )
    for dtype, options, limit in (
        ("fp32", {}, 1e-5),
        ("fp32", {"item_kv_dtype": "int8"}, 0.02),
        ("bf16", {}, 0.02),
        ("bf16", {"item_kv_dtype": "int8"}, 0.02),
    ):
        with Reranker.from_pretrained(segmented_engine(family, dtype), **options) as reranker:  # type: ignore[arg-type]
            group = reranker._groups.build(USER, FILMS, Request(), "score").group
            assert group is not None
            expected = reference_ratings(model, group, reranker.scale.values)
            found = ratings(reranker, list(FILMS))
        assert [found[film.item_id] for film in FILMS] == pytest.approx(expected, abs=limit)


@pytest.mark.parametrize(("dtype", "kept"), [("fp32", ""), ("bf16", ""), ("bf16", "int8"), ("int8", "")])
@pytest.mark.parametrize("mode", ["score", "reason"])
def test_the_same_bits_fresh_or_cached_alone_or_among_others(
    segmented_engine: Callable[..., Path], dtype: str, kept: str, mode: str
) -> None:
    engine = segmented_engine("llama", dtype)

    def open_(**options: int) -> Reranker:
        return Reranker.from_pretrained(engine, item_kv_dtype=kept, max_reasoning_tokens=12, **options)  # type: ignore[arg-type]

    with open_() as reranker:
        together = ratings(reranker, list(FILMS), mode=mode)
        assert reranker.stats().items_computed == len(FILMS)
        ratings(reranker, list(FILMS), OTHER, mode=mode)
        assert ratings(reranker, FILMS[::-1], mode=mode) == together
        assert reranker.stats().items_computed == len(FILMS)  # not one of them again
        assert reranker.stats().items_in_memory == 2 * len(FILMS)
    order = np.random.default_rng(3).permutation(len(FILMS))
    with open_(threads=1, max_batch_tokens=57, item_cache_mib=1) as reranker:
        for number in order[:5]:
            film = FILMS[number]
            assert ratings(reranker, [film], mode=mode) == {film.item_id: together[film.item_id]}


def test_a_user_changes_the_rating_and_not_the_item(segmented_engine: Callable[..., Path]) -> None:
    with Reranker.from_pretrained(segmented_engine()) as reranker:
        assert ratings(reranker, list(FILMS)) != ratings(reranker, list(FILMS), OTHER)
        assert reranker.stats().items_computed == len(FILMS)
        ratings(reranker, list(FILMS), cache_salt="tenant")
        assert reranker.stats().items_computed == 2 * len(FILMS)


def test_adaptive_mode_reasons_on_the_items_that_scoring_computed(
    segmented_engine: Callable[..., Path],
) -> None:
    with Reranker.from_pretrained(segmented_engine(), max_reasoning_tokens=8) as reranker:
        plain = ratings(reranker, list(FILMS), mode="reason")
        computed = reranker.stats().items_computed
        adaptive = reranker.rank(USER, FILMS, mode="adaptive", top_k=3, uncertainty=9.0)
        assert reranker.stats().items_computed == computed == len(FILMS)
        assert {r.item_id: r.expected_rating for r in adaptive if r.reasoned}.items() <= plain.items()


def test_what_does_not_fit_between_the_positions_is_told(segmented_engine: Callable[..., Path]) -> None:
    with Reranker.from_pretrained(segmented_engine()) as reranker:
        long = film(150)
        ranked = reranker.rank(USER, [FILMS[0], long])
        assert [r.status for r in ranked] == ["ok", "too_long"]
        assert "item_id 150" in str(ranked[1].error)
        assert "over the limit of 600" in str(ranked[1].error)
        wordy = reranker.rank(UserProfile("slow love " * 400), FILMS[:1])
        assert wordy[0].status == "too_long"
        assert "instructions and user" in str(wordy[0].error)


def test_options_and_layouts_that_cannot_be(segmented_engine: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="item_kv_dtype"):
        Reranker.from_pretrained(segmented_engine(), item_kv_dtype="int4")
    with pytest.raises(InvalidInputError, match="item_cache_mib must be at least 1"):
        Reranker.from_pretrained(segmented_engine(), item_cache_mib=0)
    with pytest.raises(InvalidInputError, match="below answer_position"):
        SegmentLayout("segmented", 100, 100)
    with pytest.raises(InvalidInputError, match="for attention segmented only"):
        SegmentLayout("causal", 100, 200)
    with pytest.raises(InvalidInputError, match="here: item_position must be of type int"):
        layout_of({"attention": "segmented", "item_position": "1"}, "here")
    assert read_layout(tmp_path) == CAUSAL
    (tmp_path / LAYOUT_FILE).write_text(LAYOUT.to_json(), encoding="utf-8")
    assert read_layout(tmp_path) == LAYOUT
    (tmp_path / LAYOUT_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=LAYOUT_FILE):
        read_layout(tmp_path)


def test_raw_prompts_are_cut_into_segments(segmented_engine: Callable[..., Path]) -> None:
    instructions, users = "Rate films.\n", ["The user likes war.\n", "The user likes boats.\n"]
    films = ["A war film.\n", "A film of boats, slow love and work.\n", "A family.\n"]
    prompts = [
        RawPrompts(instructions + user, films, "Predicted User Rating: ", instructions=instructions)
        for user in users
    ]
    with Reranker.from_pretrained(segmented_engine()) as reranker:
        first, second = (scores.expected_ratings for scores in reranker.run_prompts(prompts))
        assert reranker.stats().items_computed == len(films)
        (alone,) = reranker.run_prompts([dataclasses.replace(prompts[0], suffixes=films[1:2])])
        assert alone.expected_ratings[0] == first[1]
        assert not np.array_equal(first, second)
        for wrong, words in (({"instructions": "x"}, "instructions"), ({"opening": ""}, "opening")):
            with pytest.raises(InvalidInputError, match=words):
                list(reranker.run_prompts([dataclasses.replace(prompts[0], **wrong)]))  # type: ignore[arg-type]
