"""`exp3rt-trt catalog` as users run it, and as a real process that dies by SIGKILL at random moments."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from catalog_cases import FILMS, build, contents, flip, write_items
from exp3rt_trt import Item
from exp3rt_trt.catalog import verify_catalog
from exp3rt_trt.catalog.build import LOOK_AHEAD
from exp3rt_trt.catalog.index import Index
from test_cli import Cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NUM_ITEMS = 200
KILLS = 5
# The command itself. It notes in a file what it begins to compute, and counts its steps: what it computes,
# writes, flushes and commits, before and after each. At the step of the given number it is killed.
CHILD = """
import os, signal, sys
from exp3rt_trt.catalog import encoder, header, index, shards
from exp3rt_trt.cli.app import main

paid = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
left = int(sys.argv[2])

def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def stepped(function):
    def run(*arguments, **named):
        step()
        result = function(*arguments, **named)
        step()
        return result
    return run

def noted(start):
    def run(self, items, finish):
        os.write(paid, b"".join(header.item_key(item).hex().encode() + b"\\n" for item in items))
        return start(self, items, finish)
    return run

os.fsync = stepped(os.fsync)
shards.ShardWriter.append = stepped(shards.ShardWriter.append)
index.Index.commit = stepped(index.Index.commit)
index.Index.new_shard = stepped(index.Index.new_shard)
encoder.ItemEncoder.start = stepped(noted(encoder.ItemEncoder.start))
sys.argv = ["exp3rt-trt", *sys.argv[3:]]
main()
"""


@pytest.fixture
def engine(segmented_engine: Callable[..., Path]) -> Path:
    return segmented_engine("llama", "bf16")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capfd)


def committed(catalog: Path) -> set[str]:
    if not (catalog / "index.sqlite").exists():
        return set()
    with Index(catalog, writable=True) as index:
        return {key.hex() for _, key, record in index.items() if record is not None}


def test_a_kill_loses_only_what_was_in_flight_and_leaves_no_trace(engine: Path, tmp_path: Path) -> None:
    items = [Item(number, f"Film {number}", f"about {number} boats") for number in range(NUM_ITEMS)]
    options = ["--engine", engine, "--item-kv-dtype", "int8", "--threads", "1"]
    options += ["--items", write_items(tmp_path / "items.jsonl", items)]
    paid, catalog, undisturbed = tmp_path / "paid", tmp_path / "catalog", tmp_path / "undisturbed"

    def run(out: Path, moment: int) -> tuple[int, list[str]]:
        paid.unlink(missing_ok=True)
        arguments = [paid, moment, "catalog", "build", "--out", out, *options]
        command = [sys.executable, "-c", CHILD, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120)
        return done.returncode, paid.read_text().split() if paid.exists() else []

    moments = random.Random(6)  # noqa: S311  (no secret)
    spent = 0
    for _ in range(KILLS):
        before = committed(catalog)
        code, asked = run(catalog, moments.randint(1, 160))
        assert code == -signal.SIGKILL
        assert not before & set(asked)  # nothing is paid for twice
        assert len(set(asked) - committed(catalog)) <= LOOK_AHEAD
        if before:
            assert list(verify_catalog(catalog)) == []
        spent += len(asked)
    before = committed(catalog)
    assert 0 < len(before) < NUM_ITEMS
    code, asked = run(catalog, 0)
    assert (code, len(asked)) == (0, NUM_ITEMS - len(before))
    assert spent + len(asked) - NUM_ITEMS <= KILLS * LOOK_AHEAD
    assert run(undisturbed, 0)[0] == 0
    assert contents(catalog) == contents(undisturbed)
    with Index(catalog) as resumed, Index(undisturbed) as whole:
        assert resumed.items() == whole.items()


def test_build_info_verify_repair(cli: Cli, engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    items = write_items(tmp_path / "items.jsonl", [*FILMS, '{"item_id": "x"}'])
    command = ["catalog", "build", "--items", items, "--engine", engine, "--out", out, "--threads", 1]
    code, told, err = cli(*command, "--item-kv-dtype", "int8")
    assert code == 1
    assert told == "0 kept, 12 computed (0 of them were damaged), 0 dropped, 1 faulty\n"
    assert err == f"{items}:13: item: title, description and profile are all empty\n"
    code, told, _ = cli("catalog", "info", out)
    assert code == 0
    for words in ("12, 12 of them different", "int8 packed for ", "at position 900"):
        assert words in told
    assert cli("catalog", "verify", out)[:2] == (0, "verified: all 12 items\n")
    flip(out / "items-00001.kv", 10)
    code, told, err = cli("catalog", "verify", out)
    assert (code, told) == (1, "12 items, 1 damaged\n")
    assert err.startswith("item_id 0: ")
    assert "items-00001.kv" in err
    write_items(items, FILMS)
    code, told, _ = cli(*command)  # in the catalogue's own type
    assert (code, told) == (0, "11 kept, 1 computed (1 of them were damaged), 0 dropped, 0 faulty\n")
    assert cli("catalog", "verify", out)[0] == 0


def test_rank_with_a_catalogue(cli: Cli, engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    build(engine, out, [Item("a", "Film A"), Item("b", "Film B")])
    jobs = tmp_path / "jobs.jsonl"
    candidates = [{"item_id": 1, "title": "Film A"}, {"item_id": 2, "title": "C"}]
    jobs.write_text(json.dumps({"user": "Likes boats.", "candidates": candidates}), encoding="utf-8")
    command = ["rank", jobs, "--engine", engine, "--threads", 1]
    code, plain, _ = cli(*command)
    assert (code, cli(*command, "--catalog", out)[:2]) == (0, (0, plain))


def test_errors_are_told_without_a_traceback(cli: Cli, engine: Path, tmp_path: Path) -> None:
    items = write_items(tmp_path / "items.jsonl", FILMS)
    for arguments, words in (
        (("info", tmp_path), "no catalog.json: not a catalogue"),
        (("verify", tmp_path / "none"), "no catalog.json: not a catalogue"),
        (
            ("build", "--items", tmp_path / "none", "--engine", engine, "--out", tmp_path / "c"),
            "none: cannot",
        ),
        (("build", "--items", items, "--engine", engine, "--out", items), "items.jsonl"),
    ):
        code, _, err = cli("catalog", *arguments)
        assert code == 1
        assert err.startswith("error: ")
        assert words in err
        assert "Traceback" not in err
