"""`exp3rt-trt serve` as real processes: one is killed, and in the end all are told to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from catalog_cases import FILMS, build, flip, open_
from serve_cases import BODY, LONG, PROFILE, QUERY, httpx, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMAND = (sys.executable, "-c", "from exp3rt_trt.cli.app import main; main()", "serve", "--port", "0")


@contextmanager
def server(engine: Path, log: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Starts a server; gives its process and its address once it answers."""
    with log.open("wb") as file:
        process = subprocess.Popen([*COMMAND, "--engine", str(engine), *options], stderr=file)
    try:
        (port,) = until(lambda: [line["port"] for line in lines(log) if line.get("message") == "listening"])
        address = f"http://127.0.0.1:{port}"
        until(lambda: answers(address))
        yield process, address
    finally:
        process.kill()
        process.wait()


def lines(log: Path) -> list[dict[str, Any]]:
    """Gives the whole lines of a log."""
    return [
        json.loads(line) for line in log.read_text(encoding="utf-8").splitlines(True) if line.endswith("}\n")
    ]


def answers(address: str) -> bool:
    """Asks for the server's health."""
    try:
        return httpx.get(f"{address}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_killed_worker_is_replaced(engine: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with server(engine, log, "--workers", "2") as (process, address):
        expected = httpx.post(address + PROFILE, json=BODY, timeout=60).json()["results"]
        pids = [line["pid"] for line in lines(log) if line.get("message") == "worker started"]
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: sum(line.get("message") == "worker started" for line in lines(log)) == 3)
        for _ in range(20):  # the other one goes on, and no answer is another
            try:
                got = httpx.post(address + PROFILE, json=BODY, timeout=60)
            except httpx.TransportError:
                continue  # it went to the one that was killed
            assert got.json()["results"] == expected
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_the_end_comes_also_while_a_killed_worker_is_replaced(engine: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with server(engine, log, "--workers", "2") as (process, _):
        pid = next(line["pid"] for line in lines(log) if line.get("message") == "worker started")
        os.kill(pid, signal.SIGKILL)
        until(lambda: any(line.get("message") == "worker ended" for line in lines(log)))
        process.terminate()  # the next worker is started a second later: it lived too short
        process.wait(timeout=60)
        assert sum(line.get("message") == "worker started" for line in lines(log)) == 2


def test_what_was_admitted_is_answered_before_the_end(engine: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with (
        server(engine, tmp_path / "log", "--grace-s", "0") as (process, address),
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(httpx.post, address + PROFILE, json=LONG, timeout=60)
        until(lambda: "exp3rt_requests_running 1.0" in httpx.get(f"{address}/metrics", timeout=5).text)
        process.send_signal(signal.SIGTERM)
        answer = asked.result()
        assert answer.status_code == 503
        assert answer.json()["code"] == "shutting_down"
        assert process.wait(timeout=60) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_options_of_items_and_reasoning_reach_the_engine(
    segmented_engine: Callable[..., Path], tmp_path: Path, workers: str
) -> None:
    engine, catalog = segmented_engine("llama", "fp32"), tmp_path / "catalog"
    build(engine, catalog, FILMS, item_kv_dtype="int8")
    damaged = next(catalog.glob("*.kv"))
    flip(damaged, 10)  # who reads it warns
    items = [
        {"item_id": str(film.item_id), "title": film.title, "description": film.description} for film in FILMS
    ]
    body = {"user": {"profile": QUERY}, "items": items, "mode": "reason"}
    with open_(engine, catalog=catalog, max_reasoning_tokens=5) as reranker:
        expected = reranker.rank(body["user"], items, mode="reason").to_dicts()
    with open_(engine, max_reasoning_tokens=5) as reranker:
        assert reranker.rank(body["user"], items, mode="reason").to_dicts() != expected
    options = [
        "--threads",
        "1",
        "--max-reasoning-tokens",
        "5",
        "--item-kv-dtype",
        "int8",
        "--item-cache-mib",
        "8",
    ]
    options += ["--kv-cache-mib", "64", "--workers", workers, "--catalog", str(catalog)]
    log = tmp_path / "log"
    with server(engine, log, *options) as (_, address):
        assert httpx.post(address + PROFILE, json=body, timeout=60).json()["results"] == expected
    assert damaged.name in log.read_text(encoding="utf-8")


def test_what_cannot_start_says_why(engine: Path, tmp_path: Path) -> None:
    for options, words in (
        (["--store", str(tmp_path / "none.sqlite")], "no such file"),
        (["--catalog", str(tmp_path / "none")], "none: no catalog.json: not a catalogue"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
    ):
        run = subprocess.run(
            [*COMMAND, "--engine", str(engine), *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 1
        assert words in run.stderr
