"""Training on a tiny student: branching, losses, examples, resuming, and the whole recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exp3rt_trt import RatingScale, Reranker
from exp3rt_trt.distill.augment import AverageFit, only_averages, thin_out
from exp3rt_trt.distill.encode import Encoder
from exp3rt_trt.distill.examples import make_examples
from exp3rt_trt.distill.losses import rating_loss, soft_labels
from exp3rt_trt.distill.ratings import by_user, read_ratings, split_rows
from exp3rt_trt.distill.recipe import Recipe, read_recipe
from exp3rt_trt.distill.steps import run_step
from exp3rt_trt.distill.texts import read_texts
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate import student
from exp3rt_trt.jobs import Request
from exp3rt_trt.rating import read_scale
from exp3rt_trt.segments import CAUSAL, LAYOUT_FILE, SegmentLayout, read_layout
from rating_files import write_ratings
from segmented import make_segmented_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from exp3rt_trt.evaluate.rows import RatingRow

TEN = RatingScale.one_to_ten()
RECIPE = """
base = "{base}"
work = "work"
dtype = "fp32"
threads = 2
[data]
ratings = ["a.jsonl", "b.jsonl"]
texts = ["texts.jsonl"]
validation_share = 0.25
test_share = 0.25
[train]
average_steps = 2
steps = 6
users_per_step = 2
rank = 4
learning_rate = 1e-2
evaluations = 2
save_steps = 2
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> Recipe:
    write_ratings(tmp_path / "a.jsonl", 1)
    write_ratings(tmp_path / "b.jsonl", 2)
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    texts = [
        {**first, "rationale": "Calm films suit this user."},
        {"instruction": "Sum up.", "input": "- calm", "output": "[Like]\n- calm\n\n[Dislike]\n- None"},
        {"instruction": "Sum up.", "input": "long " * 2000, "output": "None"},
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    (tmp_path / "recipe.toml").write_text(RECIPE.format(base=tiny_checkpoint("llama")))
    return read_recipe(tmp_path / "recipe.toml")


def rated(engine: Path, rows: list[RatingRow]) -> Any:
    with Reranker.from_pretrained(engine, scale=TEN, threads=1, kv_cache_mib=64) as reranker:
        return student(reranker, "score")(rows).ratings


@pytest.fixture
def rows(recipe: Recipe) -> list[RatingRow]:
    return read_ratings(Path(recipe.data.ratings[0]))


def test_a_user_is_in_one_part_only_and_always_the_same(rows: list[RatingRow]) -> None:
    split = split_rows(rows, 17, 0.25, 0.25)
    users = [{row.user.user_id for row in part} for part in split]
    assert all(users)
    assert sum(map(len, users)) == len(set.union(*users)) == 24
    again = split_rows(list(reversed(rows)), 17, 0.25, 0.25)
    assert [{row.user.user_id for row in part} for part in again] == users
    assert [{row.user.user_id for row in part} for part in split_rows(rows, 18, 0.25, 0.25)] != users


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("score", None, "missing: score"),
        ("score", "good", "score must be a number, not 'good'"),
        ("user_persona", "[Like]\n- calm", r"user_persona: no \[Average Rating\]"),
    ],
)
def test_a_faulty_row_is_named(recipe: Recipe, field: str, value: str | None, words: str) -> None:
    path = Path(recipe.data.ratings[0])
    first, *others = path.read_text().splitlines()
    row = json.loads(others[0])
    row.pop(field)
    if value is not None:
        row[field] = value
    path.write_text("\n".join([first, json.dumps(row)]))
    with pytest.raises(InvalidInputError, match=rf"a\.jsonl:2: {words}"):
        read_ratings(path)


def test_the_ids_are_those_that_the_engine_sees(
    rows: list[RatingRow], tiny_checkpoint: Callable[[str], Path], tiny_engine: Callable[..., Path]
) -> None:
    user = by_user(rows)[0]
    group = Encoder(tiny_checkpoint("llama"), TEN).encode(user)
    with Reranker.from_pretrained(tiny_engine("llama", "fp32"), scale=TEN, threads=1) as reranker:
        job = reranker._groups.build(user[0].user, [row.item for row in user], Request(), "score")
    assert job.group is not None
    assert [group.instructions, group.user] == job.group.prefix
    assert group.items == job.group.suffixes
    assert group.answer == job.group.answer_tokens
    assert list(group.label_tokens) == job.group.label_tokens
    assert group.ratings == [row.rating for row in user]


@pytest.mark.parametrize("layout", [CAUSAL, SegmentLayout("segmented", 1000, 1600)])
def test_branching_is_the_engine_and_the_flat_reference(
    rows: list[RatingRow], tiny_checkpoint: Callable[[str], Path], tmp_path: Path, layout: SegmentLayout
) -> None:
    torch = pytest.importorskip("torch")
    from exp3rt_trt.distill.attention import reference_logits
    from exp3rt_trt.distill.branching import label_logits, make_batch
    from transformers import AutoModelForCausalLM

    checkpoint, some = tiny_checkpoint("llama"), [row for user in by_user(rows)[:6] for row in user]
    groups = [Encoder(checkpoint, TEN, layout=layout).encode(user) for user in by_user(some)]
    batch = make_batch(groups, layout)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    logits = label_logits(model, batch)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.model.layers.parameters())
    with torch.no_grad():
        flat = torch.cat([reference_logits(model, group, layout) for group in groups])
    np.testing.assert_allclose(logits.detach().numpy(), flat.numpy(), atol=1e-5)
    _, expected = rating_loss(logits.detach(), batch["ratings"], TEN.values, 1.0, 1.0)
    engine = make_segmented_engine(checkpoint, tmp_path / "engine", "fp32", layout)
    np.testing.assert_allclose(rated(engine, some), expected.numpy(), atol=1e-4)


def test_a_gpu_computes_the_same_logits_and_loss(
    rows: list[RatingRow], tiny_checkpoint: Callable[[str], Path]
) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    from accelerate.utils import send_to_device
    from exp3rt_trt.distill.branching import label_logits, make_batch
    from transformers import AutoModelForCausalLM

    checkpoint = tiny_checkpoint("llama")
    batch = make_batch([Encoder(checkpoint, TEN).encode(user) for user in by_user(rows)[:6]], CAUSAL)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    results = []
    for device in ("cpu", "cuda"):
        there = send_to_device(batch, device)
        logits = label_logits(model.to(device), there)
        loss, expected = rating_loss(logits, there["ratings"], TEN.values, 1.0, 1.0)
        assert loss.device.type == expected.device.type == device
        results.append([x.detach().cpu().numpy() for x in (logits, loss, expected)])
    for cpu, gpu in zip(*results, strict=True):
        np.testing.assert_allclose(gpu, cpu, atol=1e-3)


@pytest.mark.parametrize("layout", [CAUSAL, SegmentLayout("segmented", 1000, 1600)])
def test_a_rationale_has_the_ids_that_the_engine_reasons_from(
    rows: list[RatingRow], tiny_checkpoint: Callable[[str], Path], tmp_path: Path, layout: SegmentLayout
) -> None:
    checkpoint = tiny_checkpoint("llama")
    engine = make_segmented_engine(checkpoint, tmp_path / "engine", "fp32", layout)
    text = Encoder(checkpoint, TEN, layout=layout).encode_rationale(rows[0], "Calm films suit.")
    with Reranker.from_pretrained(engine, scale=TEN, threads=1, kv_cache_mib=64) as reranker:
        group = reranker._groups.build(rows[0].user, [rows[0].item], Request(), "reason").group
        written = reranker.decode(text.segments["answer"][-text.num_trained :])
    assert group is not None
    segments, (suffix,) = text.segments, group.suffixes
    assert [segments["instructions"], segments["user"]] == group.prefix
    assert segments["item"] == (group.items[0] if layout.segmented else suffix)
    opening, answer = segments["answer"][: -text.num_trained], segments["answer"][-text.num_trained :]
    assert opening == (suffix if layout.segmented else [])
    label = group.label_tokens[round(rows[0].rating) - 1]
    assert answer[-len(group.answer_tokens) - 2 : -1] == [*group.answer_tokens, label]
    assert answer[-1] in group.end_tokens
    assert written.startswith(" Calm films suit.")


def test_padded_texts_are_computed_as_alone(recipe: Recipe) -> None:
    torch = pytest.importorskip("torch")
    from exp3rt_trt.distill.attention import additive, attention_mask, padded_texts, token_positions
    from transformers import AutoModelForCausalLM

    layout = SegmentLayout("segmented", 1000, 1600)
    texts = list(read_texts(Path(recipe.data.texts[0]), Encoder(Path(recipe.base), TEN, layout=layout)))[:2]
    model = AutoModelForCausalLM.from_pretrained(recipe.base, dtype=torch.float32)
    longest = max(len(text["input_ids"]) for text in texts)
    padded = torch.zeros(2, longest, dtype=torch.long)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text["input_ids"])] = torch.tensor(text["input_ids"])
    with torch.no_grad():
        together = model(padded, **padded_texts([text["lengths"] for text in texts], layout)).logits
        for logits, text in zip(together, texts, strict=True):
            alone = model(
                torch.tensor([text["input_ids"]]),
                attention_mask=additive(attention_mask(text["lengths"], layout), model.dtype)[None, None],
                position_ids=token_positions(text["lengths"], layout)[None],
            ).logits[0]
            np.testing.assert_allclose(logits[: len(alone)].numpy(), alone.numpy(), atol=1e-5)
    assert torch.isfinite(together).all()
    rationale, task = (text["lengths"] for text in texts)
    assert all(rationale.values())
    assert task["instructions"] == len(texts[1]["input_ids"])  # read as ever, from position 0


def test_a_rationale_that_does_not_fit_the_layout_is_named(recipe: Recipe) -> None:
    encoder = Encoder(Path(recipe.base), TEN, layout=SegmentLayout("segmented", 1000, 1010))
    with pytest.raises(InvalidInputError, match=r"texts\.jsonl:1: user .*candidates\[0\]"):
        list(read_texts(Path(recipe.data.texts[0]), encoder))


def test_a_segmented_batch_computes_an_item_once(
    rows: list[RatingRow], tiny_checkpoint: Callable[[str], Path]
) -> None:
    pytest.importorskip("torch")
    from exp3rt_trt.distill.branching import make_batch

    users = [[replace(row, item=rows[0].item) for row in user[:1]] for user in by_user(rows)[:4]]
    for layout, runs in ((CAUSAL, 4), (SegmentLayout("segmented", 1000, 1600), 1)):
        encoder = Encoder(tiny_checkpoint("llama"), TEN, layout=layout)
        batch = make_batch([encoder.encode(user) for user in users], layout)
        assert len(batch["segments"]["item"]["tokens"]) == runs
        assert len(batch["segments"]["answer"]["tokens"]) == 4


def test_soft_labels_have_the_rating_as_their_mean() -> None:
    ratings = np.array([1.0, 1.3, 5.0, 7.25, 9.9, 10.0])
    labels = soft_labels(ratings, TEN.values, 1.0)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(labels @ np.array(TEN.values), ratings, atol=1e-3)
    assert labels[2].argmax() == 4


def test_the_loss_falls_as_the_expected_rating_nears_the_true_one() -> None:
    torch = pytest.importorskip("torch")
    ratings = torch.tensor([7.0])
    curves = [-0.5 * (torch.tensor(TEN.values) - centre)[None] ** 2 for centre in (3.0, 5.0, 7.0)]
    losses = [float(rating_loss(curve, ratings, TEN.values, 1.0, 1.0)[0]) for curve in curves]
    assert losses[0] > losses[1] > losses[2]
    plain, expected = rating_loss(curves[0], ratings, TEN.values, 1.0, 0.0)
    assert losses[0] == pytest.approx(float(plain) + (float(expected[0]) - 7) ** 2)


def test_the_averages_fit_and_the_rows_made_from_it(rows: list[RatingRow]) -> None:
    fit = AverageFit(rows, 1, 10)
    errors = [row.rating - fit.predict(row) for row in rows]
    assert abs(np.mean(errors)) < 1e-9  # least squares with a constant
    half = fit.shrink(rows[0], 0.5)
    assert half.rating == pytest.approx((rows[0].rating + fit.predict(rows[0])) / 2)
    invented = only_averages(fit, np.random.default_rng(0), 5)
    assert len({row.item.item_id for row in invented}) == 5
    assert all(row.rating == fit.predict(row) for row in invented)
    for highest in (5, 10):
        of_scale = AverageFit(rows, 1, highest)
        users = [only_averages(of_scale, np.random.default_rng(n), 1)[0].user for n in range(50)]
        averages = [user.average_rating or 0 for user in users]
        assert 1 <= min(averages) < (1 + highest) / 2 < max(averages) <= highest


def test_thinning_keeps_the_form(rows: list[RatingRow]) -> None:
    user = by_user(rows)[0]
    (thin, *_) = thin_out(user, np.random.default_rng(0), 0.5)
    given, kept = user[0].item.profile or "", thin.item.profile or ""
    assert kept.count("- ") < given.count("- ")
    assert set(kept.splitlines()) <= set(given.splitlines())
    assert all(heading in kept for heading in ("[Like]", "[Dislike]", "[Average Rating]"))
    assert thin.rating == user[0].rating
    assert sorted((thin_out(user, np.random.default_rng(0), 1.0)[0].item.profile or "").split()) == sorted(
        given.split()
    )


def test_examples_begin_with_averages_and_spread_the_texts(recipe: Recipe) -> None:
    encoder = Encoder(Path(recipe.base), TEN)
    made = make_examples(recipe, encoder, encoder)
    kinds = ["text" if "text" in example else len(example["group"]["items"]) for example in made.train]
    assert kinds[:4] == [5] * 4
    assert kinds.count("text") == 2
    assert made.texts_left_out == 1
    assert len(kinds) == 2 * (2 + 6) + 2
    assert make_examples(recipe, encoder, encoder) == made


def test_a_text_trains_its_answer_alone(recipe: Recipe) -> None:
    encoder = Encoder(Path(recipe.base), TEN)
    made = make_examples(recipe, encoder, encoder)
    texts = [example["text"] for example in made.train if "text" in example]
    for text in texts:
        answer = [i for i, label in zip(text["input_ids"], text["labels"], strict=True) if label != -100]
        assert text["input_ids"][-len(answer) :] == answer
        said = encoder.decode(answer)
        assert said.startswith(("[Like]", " Calm films suit this user.\nPredicted User Rating: "))


def test_rationales_have_their_own_scale_and_passes(recipe: Recipe) -> None:
    path = Path(recipe.base)
    five = Encoder(path, RatingScale.one_to_five())
    twice = replace(recipe, data=replace(recipe.data, text_passes=30))
    rated = json.loads(Path(recipe.data.ratings[0]).read_text().splitlines()[0])
    user = "[Like]\n- calm\n\n[Dislike]\n- noise\n\n[Average Rating]\n3.5"
    Path(recipe.data.texts[0]).write_text(
        json.dumps({**rated, "user_persona": user, "score": "4", "rationale": "Calm."})
    )
    made = make_examples(twice, Encoder(path, TEN), five)
    texts = [example["text"] for example in made.train if "text" in example]
    assert len(texts) == 30
    for text in texts[:2]:
        assert five.decode(text["input_ids"]).rstrip().endswith("Predicted User Rating: 4")
        assert "from 1 to 5" in five.decode(text["input_ids"])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rank = 4", "ranks = 4", r"\[train\]: unknown key 'ranks'"),
        ("rank = 4", 'rank = "4"', r"\[train\]: rank must be of type int"),
        ("work = ", "# ", "missing: work"),
    ],
)
@pytest.mark.usefixtures("recipe")
def test_a_faulty_recipe_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InvalidInputError, match=words):
        read_recipe(path)


def test_a_step_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        if len(calls) == 1:
            raise RuntimeError("killed")
        return {"calls": len(calls)}

    with pytest.raises(RuntimeError):
        run_step(tmp_path, "step", {"x": 1}, make)
    assert run_step(tmp_path, "step", {"x": 1}, make) == run_step(tmp_path, "step", {"x": 1}, make)
    assert len(calls) == 2
    assert calls[0] == calls[1]
    assert run_step(tmp_path, "step", {"x": 2}, make)[0] != calls[0]


def test_a_recipe_becomes_an_engine_and_goes_on_where_it_was(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="needs the extra [distill]")
    pytest.importorskip("peft", reason="needs the extra [distill]")
    import torch
    from exp3rt_trt.distill.branching import label_logits, make_batch
    from exp3rt_trt.distill.run import distill
    from exp3rt_trt.distill.trainer import StudentTrainer
    from transformers import AutoModelForCausalLM

    steps: list[int] = []
    seen: set[str] = set()
    loss = StudentTrainer.compute_loss

    def stopping(self: StudentTrainer, *args: Any, **kwargs: Any) -> Any:
        steps.append(self.state.global_step)
        seen.update(args[1])
        if len(steps) == 6:
            raise KeyboardInterrupt
        return loss(self, *args, **kwargs)

    monkeypatch.setattr(StudentTrainer, "compute_loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        distill(recipe)
    stopped_at = steps[-1]
    made = distill(recipe)
    assert stopped_at > 0
    assert {"groups", "texts"} <= seen
    assert steps[6] in range(1, stopped_at + 1)
    trained = len(steps)
    assert distill(recipe) == made
    assert len(steps) == trained
    assert distill(replace(recipe, dtype="bf16")).engine != made.engine
    assert len(steps) == trained

    test = split_rows(read_ratings(Path(recipe.data.ratings[0])), recipe.seed, 0.25, 0.25).test
    assert made.test["a"]["rows"] == len(test)
    model = AutoModelForCausalLM.from_pretrained(made.checkpoint, dtype=torch.float32)
    encoder = Encoder(made.checkpoint, TEN)
    batch = make_batch([encoder.encode(user) for user in by_user(test)], CAUSAL)
    with torch.no_grad():
        _, expected = rating_loss(label_logits(model, batch), batch["ratings"], TEN.values, 1.0, 1.0)
    np.testing.assert_allclose(rated(made.engine, test), expected.numpy(), atol=1e-4)
    errors = expected.numpy() - [row.rating for row in test]
    bias, ours, bare = made.test["a"]["methods"]
    assert ours["errors"]["rmse"]["value"] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-4)
    assert ours["difference"]["rmse"]["value"] == pytest.approx(
        ours["errors"]["rmse"]["value"] - bias["errors"]["rmse"]["value"]
    )
    assert bare["errors"]["rmse"] != ours["errors"]["rmse"]


def test_a_segmented_recipe_makes_a_segmented_student(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="needs the extra [distill]")
    pytest.importorskip("peft", reason="needs the extra [distill]")
    from exp3rt_trt.distill.run import distill
    from exp3rt_trt.distill.trainer import StudentTrainer

    given = {
        "attention": "segmented",
        "item_position": 1000,
        "answer_position": 1600,
        "random_positions": True,
    }
    segmented = replace(
        recipe,
        train=replace(recipe.train, **given, average_steps=1, steps=2, evaluations=0),
    )
    masks = []
    loss = StudentTrainer.compute_loss

    def watched(self: StudentTrainer, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if "texts" in inputs:
            masks.append(inputs["texts"]["attention_mask"])
        return loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(StudentTrainer, "compute_loss", watched)
    made = distill(segmented)
    assert masks
    assert all(mask.ndim == 4 for mask in masks)
    layout = segmented.train.layout
    assert read_layout(made.adapter) == read_layout(made.checkpoint) == layout
    assert (made.adapter / LAYOUT_FILE).exists()
    assert read_scale(made.adapter) == read_scale(made.checkpoint) == TEN
    with Reranker.from_pretrained(made.engine) as reranker:
        assert reranker.scale == TEN
        assert reranker.engine.manifest.layout == layout
