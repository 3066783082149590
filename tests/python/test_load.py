"""The load on a server, small: every request is accounted for, also when a worker is killed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if importlib.util.find_spec("locust") is None:  # importing it would patch sockets and threads of all tests
    pytest.skip("the extra bench is not installed", allow_module_level=True)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FAULTS = {"lost": 0, "doubled": 0, "not_their_own": 0, "logged_otherwise": 0}
SMALL = ("--warm-up", "20", "--busy", "4", "--candidates", "2", "--words", "4", "--profile-words", "4")


@pytest.fixture(scope="module")
def answers() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        patch.syspath_prepend(BENCHMARKS / "load")
        yield importlib.import_module("answers")


def load(engine: Path, record: Path, *options: str) -> dict[str, Any]:
    script = BENCHMARKS / "load" / "run.py"
    command = [sys.executable, str(script), "--engine", str(engine), "--json", str(record), *SMALL, *options]
    subprocess.run(command, check=True, timeout=300)
    return dict(json.loads(record.read_text(encoding="utf-8")))


def test_an_overload_is_accounted_for(engine: Path, tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    options = ("--shares", "0.5,4", "--requests", "80", "--server-options", "--threads 1 --max-queue-s 0.001")
    record = load(engine, results / "load.json", *options)
    for row in record["rows"]:
        assert sum(row["by_status"].values()) == row["requests"] == 80
        assert set(row["by_status"]) <= {"200", "429"}
        assert {key: row[key] for key in FAULTS} == FAULTS
        assert row["rss_most_mib"] >= row["rss_first_mib"] > 0
    pytest.importorskip("matplotlib", reason="plots need the extra [bench]")
    report = [sys.executable, str(BENCHMARKS / "report.py"), "--results", str(results), "--docs", str(docs)]
    subprocess.run(report, check=True)
    assert "plots/load.svg" in (docs / "benchmarks.md").read_text(encoding="utf-8")
    assert (docs / "plots" / "load.svg").exists()


def test_a_kill_is_accounted_for(engine: Path, tmp_path: Path) -> None:
    options = (
        "--kill",
        "--workers",
        "2",
        "--shares",
        "0.7",
        "--requests",
        "80",
        "--server-options=--threads 1",
    )
    (row,) = load(engine, tmp_path / "kill.json", *options)["rows"]
    assert sum(row["by_status"].values()) == row["requests"] == 80
    assert row["by_status"].get("0", 0) == row["broken"]
    assert (row["doubled"], row["not_their_own"], row["workers_after"]) == (0, 0, 2)
    if row["broken"]:
        assert row["ranked_after"] + row["turned_away_after"] == row["asked_after"]


def test_what_is_wrong_is_found(answers: ModuleType) -> None:
    rows = [{"id": name, "status": 200, "own": True} for name in "abcd"]
    logged = [{"request_id": name, "status": 200} for name in "abcd"]
    assert answers.faults(rows, logged) == FAULTS
    assert answers.faults(rows, logged[:3]) == {**FAULTS, "lost": 1}
    assert answers.faults(rows, [*logged, logged[0]]) == {**FAULTS, "doubled": 1}
    assert answers.faults([*rows, rows[1]], logged) == {**FAULTS, "doubled": 1}
    assert answers.faults([*rows[:3], {**rows[3], "own": False}], logged) == {**FAULTS, "not_their_own": 1}
    assert answers.faults(rows, [*logged[:3], {**logged[3], "status": 429}]) == {
        **FAULTS,
        "logged_otherwise": 1,
    }
