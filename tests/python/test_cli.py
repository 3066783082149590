from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt import Item, RatingScale, __version__
from exp3rt_trt.cli.app import main
from exp3rt_trt.cli.display import distribution_bar
from rank_cases import open_

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
JOB = {
    "user": {"user_id": "u", "profile": "Likes boats."},
    "candidates": [{"item_id": 1, "title": "Boat"}, "War"],
}


class Cli:
    """Runs the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capfd = capfd

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["exp3rt-trt", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = self.capfd.readouterr()
        return int(exit_.value.code or 0), out, err


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capfd)


@pytest.fixture
def engine(tiny_engine: Callable[[str, str], Path]) -> Path:
    return tiny_engine("llama", "fp32")


@pytest.fixture
def jobs(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: Any) -> Path:
        path = tmp_path / "jobs.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return path

    return write


def test_help_is_quick_and_light() -> None:
    code = (
        "import sys; sys.argv = ['exp3rt-trt', '--help']\n"
        "from exp3rt_trt.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'numpy', 'tokenizers', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
    for command in ("build", "inspect", "rank", "bench", "evaluate", "plan", "doctor"):
        assert command in run.stdout


def test_the_version_is_told(cli: Cli) -> None:
    assert cli("--version") == (0, f"exp3rt-trt {__version__}\n", "")


def test_build_then_inspect(cli: Cli, tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "engine"
    code, told, _ = cli("build", "--model", tiny_checkpoint("llama"), "--dtype", "fp32", "--out", out)
    assert code == 0
    assert "llama in fp32" in told
    code, told, _ = cli("inspect", out, "--verify")
    assert code == 0
    for words in ("2048 tokens", "not said", "weights.safetensors", "verified: every file"):
        assert words in told
    weights = out / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, _, err = cli("inspect", out, "--verify")
    assert code == 1
    assert "weights.safetensors: altered" in err


def test_errors_are_told_without_a_traceback(cli: Cli, tmp_path: Path, engine: Path) -> None:
    for arguments, words in (
        (("inspect", tmp_path), "no manifest.json"),
        (("build", "--model", "nothing-here", "--out", tmp_path / "x"), "nothing-here"),
        (("rank", tmp_path / "none.jsonl", "--engine", engine), "none.jsonl: no such file"),
        (("rank", tmp_path, "--engine", engine), "cannot be read"),
    ):
        code, _, err = cli(*arguments)
        assert code == 1
        assert err.startswith("error: ")
        assert words in err
        assert "Traceback" not in err


def test_rank_prints_a_table(cli: Cli, engine: Path, jobs: Callable[..., Path]) -> None:
    code, out, err = cli("rank", jobs(JOB), "--engine", engine, "--threads", 1)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].strip() == "u"
    for words in ("Boat", "War", "1 to 5", "█"):
        assert words in out
    code, out, _ = cli("rank", jobs(JOB), "--engine", engine, "--threads", 1, "--mode", "reason")
    assert code == 0
    assert "reasoning" in out


def test_commands_rate_on_the_scale_that_the_engine_says(
    cli: Cli, engine: Path, jobs: Callable[..., Path], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(engine, own)
    manifest = json.loads((own / "manifest.json").read_text(encoding="utf-8"))
    manifest["scale"] = json.loads(RatingScale.one_to_ten().to_json())
    (own / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert "1 to 10" in cli("inspect", own)[1]
    assert "1 to 10" in cli("rank", jobs(JOB), "--engine", own, "--threads", 1)[1]
    assert "1 to 5" in cli("rank", jobs(JOB), "--engine", own, "--threads", 1, "--scale", 5)[1]


def test_rank_writes_jsonl(cli: Cli, engine: Path, jobs: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    path = jobs(JOB, "", {**JOB, "user": "A text."})
    assert cli(
        "rank", path, "--engine", engine, "--threads", 1, "--output", out, "--scale", 10, "--top-k", 1
    )[:2] == (0, "")
    first, second = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert (first["line"], first["user_id"]) == (1, "u")
    assert (second["line"], second["user_id"]) == (3, None)
    assert [result["rank"] for result in first["results"]] == [1]
    assert len(first["results"][0]["probabilities"]) == 10


@pytest.mark.parametrize("name", ["jobs.jsonl", "./jobs.jsonl", "hard.jsonl", "soft.jsonl"])
def test_rank_does_not_write_over_its_jobs(
    cli: Cli, engine: Path, jobs: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    path = jobs(JOB)
    before = path.read_bytes()
    (tmp_path / "hard.jsonl").hardlink_to(path)
    (tmp_path / "soft.jsonl").symlink_to(path)
    cli.monkeypatch.chdir(tmp_path)
    code, _, err = cli("rank", path, "--engine", engine, "--threads", 1, "--output", name)
    assert path.read_bytes() == before
    assert code == 1
    assert f"--output {Path(name)} is the same file as JOBS {path}" in err


def test_rank_does_not_write_over_what_standard_input_reads(engine: Path, jobs: Callable[..., Path]) -> None:
    path = jobs(JOB)
    before = path.read_bytes()
    code = "from exp3rt_trt.cli.app import main; main()"
    command = [sys.executable, "-c", code, "rank", "-", "--engine", str(engine), "--output", str(path)]
    with path.open() as file:
        run = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert path.read_bytes() == before
    assert run.returncode == 1
    assert "is the same file as JOBS" in run.stderr


def test_rank_shows_what_there_is_of_a_candidate_without_an_id(
    cli: Cli, engine: Path, jobs: Callable[..., Path]
) -> None:
    path = jobs({**JOB, "candidates": [{"title": "Sea"}, {"description": "About war."}, {}, 5]})
    code, out, err = cli("rank", path, "--engine", engine, "--threads", 1)
    assert code == 1
    assert "candidates[0].item_id is missing" in err
    assert "None" not in out
    for words in ("Sea", "About war.", "(no title)"):
        assert words in out


def test_rank_names_bad_lines_and_goes_on(cli: Cli, engine: Path, jobs: Callable[..., Path]) -> None:
    long = {"item_id": "long", "title": "word " * 3000}
    path = jobs(
        "{",
        "[1]",
        JOB,
        {"user": "x"},
        {**JOB, "user": ""},
        {**JOB, "candidates": [long, "b"]},
        '{"user": "\\ud800',
    )
    code, out, err = cli("rank", path, "--engine", engine, "--threads", 1, "--output", "-")
    assert code == 1
    told = err.splitlines()
    assert len(told) == 6
    for line, words in zip(
        told,
        (
            ":1: not valid JSON",
            ":2: not a JSON object, but list",
            ":4: 'candidates' is missing",
            ":5: user.profile is empty",
            ":6: too_long: candidates[0] (item_id 'long')",
            ":7: not valid JSON",
        ),
        strict=True,
    ):
        assert f"{path}{words}" in line
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert ["error" in row for row in rows] == [True, True, False, True, True, False, True]
    assert [result["status"] for result in rows[5]["results"]] == ["ok", "too_long"]


def test_rank_reads_standard_input(engine: Path) -> None:
    code = "from exp3rt_trt.cli.app import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "rank", "-", "--engine", str(engine), "--output", "-"],
        input=json.dumps(JOB),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(run.stdout)["results"]) == 2


def test_a_calibration_that_makes_ratings_worse_is_saved_by_force_alone(
    cli: Cli, engine: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    copy, ratings = tmp_path / "engine", tmp_path / "ratings.jsonl"
    shutil.copytree(engine, copy)
    texts = ["boats", "war", "a quiet sea", "77 houses", "love"]
    with open_(copy) as reranker:  # users rate as the student does: there is nothing to make better
        found = [reranker.rank(f"Likes {t}.", [Item(t, t)])[0].expected_rating for t in texts]
    rows = (
        {"user_id": t, "user_profile": f"Likes {t}.", "item_id": t, "title": t, "rating": rating}
        for t, rating in zip(texts, found, strict=True)
    )
    ratings.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ("calibrate", "--engine", copy, "--ratings", ratings, "--threads", 1)
    code, _, err = cli(*command)
    assert code == 1
    assert f"{copy}: calibration not saved" in err
    assert re.search(r" 0\.000 before, 0\.\d{3} after .*--force", err)
    assert not (copy / "calibration.json").exists()
    code, out, _ = cli(*command, "--force")
    assert code == 0
    assert out.startswith(f"{copy / 'calibration.json'}: isotonic, 5 rows")
    made = json.loads((copy / "calibration.json").read_text(encoding="utf-8"))
    assert made["error"] > made["error_before"]


@pytest.mark.parametrize(("name", "user"), [("movie_night", "nora"), ("film_club", "ines")])
def test_the_examples_can_be_ranked(name: str, user: str) -> None:
    from exp3rt_trt.inputs import as_user
    from exp3rt_trt.jobs import make_slots
    from exp3rt_trt.jsonl import read_lines

    (line,) = read_lines(str(ROOT / "examples" / f"{name}.jsonl"))
    assert as_user(line.value["user"]).user_id == user
    assert {slot.status for slot in make_slots(line.value["candidates"])} == {"ok"}


@pytest.mark.parametrize(
    ("probabilities", "bar"),
    [([1.0, 0.0], "█▁"), ([0.5, 0.5], "██"), ([0.2, 0.4, 0.1], "▅█▃")],
)
def test_distribution_bar(probabilities: list[float], bar: str) -> None:
    assert distribution_bar(probabilities) == bar
