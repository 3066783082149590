"""First stage, student, blend and calibration together, on a small engine."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exp3rt_trt import EngineError, InvalidInputError, Item, RatingScale, Reranker, UserProfile
from exp3rt_trt.pipeline import (
    ArrayFirstStage,
    Blend,
    Calibration,
    ImplicitFirstStage,
    Pipeline,
    ProfileTable,
)
from exp3rt_trt.pipeline.calibration import FILE, calibration_error
from rank_cases import open_
from typer.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = ["boats", "war", "a quiet sea", "77 houses", "love"]
PROFILES = ProfileTable(
    {"ann": UserProfile("Likes boats."), "bob": UserProfile("Likes war.")},
    {n: Item(n, f"Film {n}", text) for n, text in enumerate(TEXTS)},
)
STAGE = ArrayFirstStage(
    [[4, 2, 0, 1, 9, -1], [0, 1, -1, -1, -1, -1], [3, 1, 2, -1, -1, -1]],
    [[0.9, 0.8, 0.5, 0.4, 0.1, np.nan], [2, 3, 0, 0, 0, 0], [1, 2, 3, 0, 0, 0]],
    user_ids=["ann", "bob", "eve"],
)


def test_arrays_drop_padding_and_come_best_first() -> None:
    assert [c.item_id for c in STAGE.candidates("bob", 10)] == [1, 0]
    assert [c.item_id for c in STAGE.candidates("ann", 2)] == [4, 2]
    assert STAGE.candidates("nobody", 2) == []
    named = ArrayFirstStage([[1, 0]], [[2.0, 1.0]], item_ids=["a", "b"])
    assert named.candidates(0, 5) == [("b", 2.0), ("a", 1.0)]


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"\(1, 2\) and \(1, 1\)"):
        ArrayFirstStage([[1, 2]], [[1.0]])
    with pytest.raises(InvalidInputError, match=r"scores\[0, 1\] is not finite"):
        ArrayFirstStage([[1, 2]], [[1.0, np.nan]])
    with pytest.raises(InvalidInputError, match=r"ids\[0, 1\] is 2, and there are 2"):
        ArrayFirstStage([[1, 2]], [[1.0, 1.0]], item_ids=["a", "b"])
    with pytest.raises(InvalidInputError, match=r"ids must be .* shorter rows filled up with -1"):
        ArrayFirstStage([[1, 2], [3]], [[1.0, 1.0], [1.0, 1.0]])
    with pytest.raises(InvalidInputError, match=r"scores must be .* shorter rows filled up"):
        ArrayFirstStage([[1, 2], [3, 4]], [[1.0, 1.0], [1.0]])
    with pytest.raises(InvalidInputError, match=r"ids\[0, 0\] must be a whole number or a name, not 1\.0"):
        ArrayFirstStage([[1.0, 2.0]], [[1.0, 1.0]])
    with pytest.raises(InvalidInputError, match=r"ids\[0, 0\] must be the place of an item in item_ids"):
        ArrayFirstStage([[1.0, 0.0]], [[1.0, 1.0]], item_ids=["a", "b"])
    with pytest.raises(InvalidInputError, match=r"must be the place of an item in item_ids, not 'a'"):
        ArrayFirstStage([["a", "b"]], [[1.0, 1.0]], item_ids=["a", "b"])


def test_an_item_is_proposed_to_a_user_once() -> None:
    scores = [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]
    with pytest.raises(InvalidInputError, match=r"ids\[1\] has item 2 twice"):
        ArrayFirstStage([[1, 2, 3], [2, 1, 2]], scores)
    with pytest.raises(InvalidInputError, match=r"ids\[1\] has item 'c' twice"):
        ArrayFirstStage([[0, 1, 2], [2, 1, 2]], scores, item_ids=["a", "b", "c"])
    with pytest.raises(InvalidInputError, match="item_ids must differ, but 'a' is there twice"):
        ArrayFirstStage([[0, 1, 2], [2, 1, 0]], scores, item_ids=["a", "a", "c"])
    names = ArrayFirstStage([["b", -1, -1], ["a", "b", -1]], scores)
    assert names.candidates(0, 3) == [("b", 3.0)]
    with pytest.raises(InvalidInputError, match=r"ids\[0\] has item 'b' twice"):
        ArrayFirstStage([["b", "b", -1], ["a", "b", -1]], scores)


@pytest.mark.parametrize("wrong", [("u", "i", 5), ("u",), "ui", 7, ("u", ["i"])])
def test_an_interaction_that_is_no_pair_is_named(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"interactions\[1\] must be a user's id and an item's, not"):
        ImplicitFirstStage([("u", "i"), wrong])


@pytest.mark.parametrize(
    ("factors", "words"),
    [(0, "at least 1, not 0"), (-1, "at least 1, not -1"), (1.5, "a whole number, not 1.5")],
)
def test_implicit_needs_factors(factors: Any, words: str) -> None:
    pytest.importorskip("implicit")
    with pytest.raises(InvalidInputError, match=f"factors must be {words}"):
        ImplicitFirstStage([("u", "i"), ("v", "j")], factors=factors)


@pytest.mark.parametrize("algorithm", ["als", "bpr"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of BLAS threads
def test_implicit_proposes_what_similar_users_took(algorithm: Any) -> None:
    pytest.importorskip("implicit")
    pairs = [(f"{side}{u}", f"{side}{i}") for side in "xy" for u in range(8) for i in range(6) if (u + i) % 4]
    stage = ImplicitFirstStage(pairs, algorithm, factors=4, iterations=30)
    found = stage.candidates("x1", 20)
    taken = {item for user, item in pairs if user == "x1"}
    assert not taken & {c.item_id for c in found}
    assert len(found) == 12 - len(taken)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    if algorithm == "als":
        assert str(found[0].item_id).startswith("x")
    assert stage.candidates("new", 5) == []


@pytest.mark.parametrize("mode", ["score", "reason", "adaptive"])
def test_a_recommendation_is_the_students_order(reranker: Reranker, mode: Any) -> None:
    found = Pipeline(STAGE, reranker, PROFILES).recommend("ann", k=5, mode=mode)
    items = [Item(n, f"Film {n}", TEXTS[n]) for n in (4, 2, 0, 1)]
    plain = reranker.rank("Likes boats.", items, mode="score" if mode == "score" else "reason")
    assert [r.item_id for r in found] == [*(r.item_id for r in plain), 9]
    assert [r.expected_rating for r in found][:4] == [r.expected_rating for r in plain]
    assert [r.status for r in found] == ["ok"] * 4 + ["no_text"]
    assert not any(r.calibrated for r in found)
    assert found.num_reasoned == (0 if mode == "score" else 4)
    assert found.num_candidates == 5
    assert json.loads(json.dumps(found.to_dicts()))[0]["rank"] == 1


def test_users_without_a_profile_get_the_first_stages_order(reranker: Reranker) -> None:
    ann, eve, nobody = Pipeline(STAGE, reranker, PROFILES).recommend_many(["ann", "eve", "nobody"], k=2)
    assert [len(ann), len(eve), len(nobody)] == [2, 2, 0]
    assert [(r.item_id, r.status) for r in eve] == [(2, "no_profile"), (1, "no_profile")]
    assert "'eve' has no profile" in (eve[0].error or "")
    with pytest.raises(InvalidInputError, match="k must be between 1 and n_candidates"):
        Pipeline(STAGE, reranker, PROFILES).recommend("ann", k=7, n_candidates=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 1.5}, "^k must be a whole number, not 1.5"),
        ({"k": "3"}, "^k must be a whole number, not '3'"),
        ({"k": 0}, "^k must be at least 1, not 0"),
        ({"k": -1}, "^k must be at least 1, not -1"),
        ({"n_candidates": 20.5}, "n_candidates must be a whole number, not 20.5"),
    ],
)
def test_counts_are_checked_before_anything_is_computed(
    reranker: Reranker, options: dict[str, Any], words: str
) -> None:
    asked: list[object] = []

    class Watched:
        def candidates(self, user_id: object, n: int) -> Any:
            asked.append(user_id)
            return STAGE.candidates("ann", n)

    with pytest.raises(InvalidInputError, match=words):
        Pipeline(Watched(), reranker, PROFILES).recommend("ann", **options)
    assert not asked


def test_a_blend_of_weight_0_is_the_first_stages_order(reranker: Reranker) -> None:
    for mode in ("score", "adaptive"):
        found = Pipeline(STAGE, reranker, PROFILES, blend=Blend(0.0)).recommend("ann", k=3, mode=mode)  # type: ignore[arg-type]
        assert [r.item_id for r in found] == [4, 2, 0]
        assert all(r.expected_rating is not None and r.blend_score is not None for r in found)


def test_the_weight_goes_to_whichever_tells_more() -> None:
    rng = np.random.default_rng(0)
    relevance = [rng.integers(0, 2, 30) for _ in range(40)]
    signal, noise = [5 * r + rng.normal(size=30) for r in relevance], [rng.normal(size=30) for _ in relevance]
    assert Blend.fit(signal, noise, relevance).weight <= 0.3
    assert Blend.fit(noise, signal, relevance).weight >= 0.7
    halves = [r + rng.normal(size=30) for r in relevance], [r + rng.normal(size=30) for r in relevance]
    assert 0.2 < Blend.fit(*halves, relevance, k=20).weight < 0.8
    with pytest.raises(InvalidInputError, match="no user has a relevant"):
        Blend.fit([[1.0]], [[1.0]], [[0]])
    assert Blend(0.5).scores([1.0, 1.0], [1.0, 3.0]).tolist() == [-0.5, 0.5]


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        (([[1, np.nan]], [[1, 2]], [[0, 1]]), r"cf_scores\[0\]\[1\] must be finite, not nan"),
        (([[1, 2]], [[np.inf, 2]], [[0, 1]]), r"expected_ratings\[0\]\[0\] must be finite, not inf"),
        (([[1, 2]] * 2, [[1, 2]] * 2, [[0, 1], [1, -1]]), r"relevances\[1\]\[1\] must be at least 0, not -1"),
        (([[1, 2]], [[1, 2]], [[0, 1, 1]]), r"relevances\[0\] must all be .*, not \(2,\), \(2,\), \(3,\)"),
        (([["x"]], [[1]], [[1]]), r"cf_scores\[0\] must be numbers"),
    ],
)
def test_a_blend_names_what_it_cannot_be_fitted_on(lists: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Blend.fit(*lists)


def test_a_blend_names_what_it_cannot_blend() -> None:
    with pytest.raises(InvalidInputError, match=r"expected_ratings\[1\] must be finite, not nan"):
        Blend(0.5).scores([1, 2], [3, np.nan])
    with pytest.raises(InvalidInputError, match=r"cf_scores, expected_ratings must all be .*\(2,\), \(3,\)"):
        Blend(0.5).scores([1, 2], [1, 2, 3])
    with pytest.raises(InvalidInputError, match="k must be at least 1, not 0"):
        Blend.fit([[1]], [[1]], [[1]], k=0)


@pytest.mark.parametrize("method", ["isotonic", "linear"])
def test_calibration_takes_the_error_away(method: Any) -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(1)
    expected = rng.uniform(2, 4, 600)
    actual = 1.5 * expected - 2 + rng.normal(size=600)
    made = Calibration.fit(expected, actual, method=method)
    assert made.error_before == pytest.approx(calibration_error(expected, actual))
    assert made.error_before > 0.4
    assert made.error < 0.3
    assert abs(made.apply(3.0) - 2.5) < 0.25
    points = made.apply(np.linspace(0, 6, 50))
    assert (np.diff(points) >= 0).all()
    falling = Calibration.fit(expected, -actual, method="linear")
    assert np.ptp(falling.apply([2.0, 4.0])) == 0


def test_the_error_of_bins_is_what_it_says() -> None:
    assert calibration_error([1, 2, 3], [1, 2, 3]) == 0
    assert calibration_error([1, 2, 3], [2, 1, 3]) == pytest.approx(2 / 3)


def test_a_calibration_belongs_to_its_engine(engine: Path, tmp_path: Path) -> None:
    copy, scale = tmp_path / "engine", RatingScale.one_to_five()
    shutil.copytree(engine, copy)
    made = Calibration.fit([1.0, 2.0, 3.0, 4.0], [2.0, 2.5, 3.0, 3.5], method="linear")
    made.save(copy, scale)
    assert Calibration.load(copy, scale) == made
    assert Calibration.load(engine, scale) is None
    with open_(copy) as reranker:
        for r in Pipeline(STAGE, reranker, PROFILES).recommend("bob", k=2):
            assert r.calibrated
            assert r.rating == pytest.approx(float(made.apply(r.expected_rating or 0)))
    text = (copy / FILE).read_text()
    (copy / FILE).write_text(text.replace('"engine": "', '"engine": "0'))
    with pytest.raises(EngineError, match="made for another engine"):
        Calibration.load(copy, scale)
    (copy / FILE).write_text("{}")
    with pytest.raises(EngineError, match="not a usable calibration"):
        Calibration.load(copy, scale)


def test_a_calibration_belongs_to_its_scale(engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "engine"
    shutil.copytree(engine, copy)
    made = Calibration.fit([1.0, 2.0, 3.0, 4.0], [2.0, 2.5, 3.0, 3.5], method="linear")
    made.save(copy, RatingScale.one_to_five())
    with open_(copy, scale=RatingScale.one_to_ten()) as reranker:
        words = "made for the scale 1, 2, 3, 4, 5, and the reranker's is 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
        with pytest.raises(EngineError, match=words):
            Pipeline(STAGE, reranker, PROFILES)
        made.save(copy, reranker.scale)
        assert Pipeline(STAGE, reranker, PROFILES).recommend("bob", k=1)[0].calibrated
        content = json.loads((copy / FILE).read_text())
        del content["scale"]
        (copy / FILE).write_text(json.dumps(content))
        with pytest.raises(EngineError, match=r"does not say its scale, .* run `exp3rt-trt calibrate` again"):
            Pipeline(STAGE, reranker, PROFILES)


def test_the_command_calibrates(tiny_engine: Callable[[str, str], Path], tmp_path: Path) -> None:
    from exp3rt_trt.cli.app import app

    engine, ratings = tmp_path / "engine", tmp_path / "ratings.jsonl"
    shutil.copytree(tiny_engine("llama", "fp32"), engine)
    rows = [
        {"user_id": t, "user_profile": f"Likes {t}.", "item_id": t, "title": t, "rating": 3} for t in TEXTS
    ]
    rows.append({"user_id": "x", "user_profile": "Likes x.", "item_id": "x", "title": "x", "rating": 8})
    rows.append({**rows[0], "title": "boats " * 3000})
    ratings.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["calibrate", "--engine", str(engine), "--ratings", str(ratings), "--method", "linear"]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 1
    assert "ratings.jsonl:6: 'rating' must be from 1 to 5, not 8" in run.output
    assert "ratings.jsonl:7: " in run.output
    assert "linear, 5 rows" in run.output
    made = Calibration.load(engine, RatingScale.one_to_five())
    assert made is not None
    assert made.apply([1.0, 5.0]).tolist() == pytest.approx([3.0, 3.0])


def test_the_example_goes_from_raw_reviews_to_an_explained_top_five(
    base_student_engine: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parents[2] / "examples" / "recommend.py"
    runpy.run_path(str(script))["main"](str(base_student_engine("bf16")), ["ada"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("ada: 5 candidates, ")
    assert [line[:2] for line in lines if line[:1].isdigit()] == ["1 ", "2 ", "3 ", "4 ", "5 "]
    assert "(not calibrated)" in lines[0]
    assert any(line.startswith("  ") and line.strip() != "scored only" for line in lines)
