"""The command, its record and its picture."""

from __future__ import annotations

import json
import re
import sys
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from evaluate_cases import line, lines, write_interactions, write_lines
from exp3rt_trt import Exp3rtError
from exp3rt_trt.cli.app import main
from exp3rt_trt.engines.weights_file import sha256_of
from exp3rt_trt.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


NOTES = (
    r"(score|reason|adaptive), blended: the student's weight is [\d.]+\n"
    r"|adaptive: reasoned for \d+ of \d+ candidates\n"
)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], engine: Path
) -> Callable[..., tuple[int, str, str]]:
    def evaluate(*arguments: object) -> tuple[int, str, str]:
        command = ["exp3rt-trt", "evaluate", "--engine", engine, "--threads", 1, "--scale", 10, *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capfd.readouterr()
        return int(exit_.value.code or 0), out, err

    return evaluate


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "ratings.jsonl", *lines(users=10, items=4))


def test_all_of_it(
    run: Callable[..., tuple[int, str, str]], ratings: Path, tmp_path: Path, engine: Path
) -> None:
    folder = write_interactions(tmp_path / "cf")
    kinds = ("title", "item_description", "item_profile")
    films = ({"item_id": f"i{n}", **dict.fromkeys(kinds, f"Film {n}")} for n in range(12))
    texts = write_lines(tmp_path / "texts.jsonl", *films)
    arguments = ["--ratings", ratings, "--interactions", folder, "--texts", texts, "--candidates", 3]
    arguments += ["--mode", "score", "--mode", "reason", "--without", "user_profile,averages"]
    arguments += ["--mode", "adaptive", "--calibrated", "--blend-users", 6]
    arguments += ["--limit", 6, "--users", 2, "--cold-below", 6, "--max-reasoning-tokens", 5]
    files = [(tmp_path / f"{name}.json", tmp_path / f"{name}.svg") for name in ("first", "second")]
    for json_file, picture in files:
        code, out, err = run(*arguments, "--json", json_file, "--plot", picture)
        assert code == 0
        assert re.fullmatch(f"({NOTES})+", err), err
    (first, first_picture), (second, second_picture) = files
    assert first.read_bytes() == second.read_bytes()
    assert first_picture.read_bytes() == second_picture.read_bytes()
    record = json.loads(first.read_text(encoding="utf-8"))
    schema = resources.files("exp3rt_trt.evaluate") / "report.schema.json"
    jsonschema.validate(record, json.loads(schema.read_text(encoding="utf-8")))
    assert_facts(record, ratings, engine)
    for words in ("global mean", "CF alone (ALS)", "best possible order", "claims supported"):
        assert words in out
    drawn = first_picture.read_text(encoding="utf-8")
    for words in ("RMSE of ratings", "MAE of ratings", "HR@10", "NDCG@10", "MRR", "user + item bias"):
        assert words in drawn


def assert_facts(record: dict[str, Any], ratings: Path, engine: Path) -> None:
    assert record["sources"][0] == {"path": str(ratings), "sha256": sha256_of(ratings), "faults": []}
    assert record["engine"]["manifest_sha256"] == sha256_of(engine / "manifest.json")
    assert record["engine"]["weights_sha256"] == sha256_of(engine / "weights.safetensors")
    assert record["settings"]["seed"] == 0
    found = record["ratings"]
    assert found["rows"] == 6
    assert record["coverage"] == {
        "fitting_rows": 28,
        "users": 2,
        "users_with_profile": 2,
        "users_with_held_out_items": 2,
        "items": 12,
        "items_with_profile": 12,
        "items_with_description": 12,
    }
    assert [method["name"] for method in found["methods"]] == [
        "global mean",
        "user + item bias",
        "CF alone (ALS)",
        "score",
        "score without user_profile,averages",
        "reason",
        "reason without user_profile,averages",
        "score, calibrated",
        "reason, calibrated",
    ]
    assert [method["difference"] is None for method in found["methods"]] == [False, True] + [False] * 7
    assert record["ranking"]["candidates"] == 2 * 3
    assert [method["name"] for method in record["ranking"]["methods"]] == [
        "CF alone (ALS)",
        "score",
        "score, blended",
        "reason",
        "reason, blended",
        "adaptive",
        "adaptive, blended",
    ]
    explained = record["explanations"]["reason"]
    assert explained["explanations"] == len(explained["sample"]) == 6


def test_faults_are_told_and_the_rest_is_measured(
    run: Callable[..., tuple[int, str, str]], ratings: Path, tmp_path: Path
) -> None:
    long = line(1, 9, 5, item_description="word " * 3000)
    measured = write_lines(tmp_path / "measured.jsonl", line(1, 8, 5), "{", long, line(2, 8, 6))
    record = tmp_path / "out.json"
    code, out, err = run("--ratings", measured, "--fit", ratings, "--json", record)
    assert code == 0
    assert f"{measured}:2: not valid JSON" in err
    assert f"too_long: {measured}:3: " in err
    score = json.loads(record.read_text(encoding="utf-8"))["ratings"]["methods"][-1]
    assert (score["name"], score["failures"], score["errors"]["rows"]) == ("score", {"too_long": 1}, 2)
    assert "1 too_long" in out


def test_nothing_to_rank_is_told_and_the_ratings_stay(
    run: Callable[..., tuple[int, str, str]], ratings: Path, tmp_path: Path
) -> None:
    strangers = write_lines(tmp_path / "strangers.jsonl", line(90, 1, 5), line(91, 1, 6))
    folder, record = write_interactions(tmp_path / "cf"), tmp_path / "out.json"
    arguments = ("--ratings", strangers, "--fit", ratings, "--interactions", folder, "--json", record)
    code, _, err = run(*arguments)
    assert code == 0
    assert "no rankings: none of the measured users" in err
    found = json.loads(record.read_text(encoding="utf-8"))
    assert found["ranking"] is None
    failures = {method["name"]: method["failures"] for method in found["ratings"]["methods"]}
    assert failures == {
        "global mean": {},
        "user + item bias": {},
        "CF alone (ALS)": {"unknown": 2},
        "score": {},
    }


def test_without_averages_the_mean_is_the_baseline(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    bare = {"user_persona": "Likes boats.", "item_synopsis": "Boats."}
    path = write_lines(tmp_path / "r.jsonl", *(line(user, 1, 5, **bare) for user in range(4)))
    record = tmp_path / "out.json"
    assert run("--ratings", path, "--fit", 2, "--json", record)[0] == 0
    found = json.loads(record.read_text(encoding="utf-8"))
    assert found["ratings"]["baseline"] == "global mean"
    assert (found["ranking"], found["explanations"]) == (None, {})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fit", "none.jsonl"), "none.jsonl: cannot be read"),
        (("--against", "luck"), "no method 'luck'; there are global mean"),
        (("--without", "titles"), "not titles"),
        (("--json", "nowhere/out.json"), "nowhere/out.json: the folder does not exist"),
        (("--interactions", "nowhere"), "nowhere/train.txt: cannot be read"),
        (("--plot", "out.png"), "--plot out.png: the picture is written as SVG alone"),
        (("--mode", "adaptive"), "--mode adaptive is for rankings only: --interactions is missing"),
        (("--blend-users", "3"), "--blend-users is for rankings only: --interactions is missing"),
        (("--users", "3"), "--users is for rankings only: --interactions is missing"),
        (("--right-from", "8"), "--right-from is for rankings only: --interactions is missing"),
    ],
)
def test_what_cannot_be_used_is_named(
    run: Callable[..., tuple[int, str, str]], ratings: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = run("--ratings", ratings, "--limit", 2, *arguments)
    assert code == 1
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("output", "name", "option"),
    [
        ("--json", "ratings.jsonl", "--ratings"),
        ("--json", "fit.jsonl", "--fit"),
        ("--json", "cf/item_list.txt", "--interactions"),
        ("--json", "texts.svg", "--texts"),
        ("--plot", "texts.svg", "--texts"),
    ],
)
def test_no_input_is_written_over(
    run: Callable[..., tuple[int, str, str]],
    ratings: Path,
    tmp_path: Path,
    *,
    output: str,
    name: str,
    option: str,
) -> None:
    folder, out = write_interactions(tmp_path / "cf"), tmp_path / name
    fit = write_lines(tmp_path / "fit.jsonl", *(line(user, 9, 5) for user in range(10)))
    texts = write_lines(tmp_path / "texts.svg", {"item_id": "i0", "title": "Film 0"})
    before = out.read_bytes()
    arguments = ("--ratings", ratings, "--fit", fit, "--interactions", folder, "--texts", texts)
    code, _, err = run(*arguments, "--limit", 2, output, out)
    assert out.read_bytes() == before
    assert code == 1
    assert f"{output} {out} is the same file as {option} {out}" in err


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(
        Exp3rtError, match=r'no_such_package is needed here: pip install "exp3rt_trt\[evaluate\]"'
    ):
        require("no_such_package.part", "evaluate")
