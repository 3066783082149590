from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from exp3rt_trt import EngineError, Reranker
from rank_cases import ITEMS, USER, open_, ratings

TinyEngine = Callable[[str, str], Path]


def test_two_rerankers_in_one_process(engine: Path, tiny_engine: TinyEngine) -> None:
    with open_(engine) as one, open_(tiny_engine("qwen2", "fp32")) as two:
        alone = ratings(one.rank(USER, ITEMS)), ratings(two.rank(USER, ITEMS))
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda r: [ratings(r.rank(USER, ITEMS)) for _ in range(5)], (one, two)))
    assert alone[0] != pytest.approx(alone[1], abs=1e-3)
    for found, expected in zip(together, alone, strict=True):
        for result in found:
            assert result == pytest.approx(expected, abs=1e-5)


def test_many_threads_share_one_reranker(reranker: Reranker) -> None:
    users = [f"Likes number {n}." for n in range(4)]
    expected = [ratings(reranker.rank(user, ITEMS)) for user in users]

    def work(n: int) -> dict[Any, float]:
        return ratings(reranker.rank(users[n % 4], ITEMS))

    with ThreadPoolExecutor(6) as pool:
        for n, found in enumerate(pool.map(work, range(16))):
            assert found == pytest.approx(expected[n % 4], abs=1e-5)


def test_whoever_waits_learns_that_it_was_closed(engine: Path) -> None:
    reranker = open_(engine, max_reasoning_tokens=1400)
    results: list[BaseException] = []

    def wait() -> None:
        try:
            reranker.rank(USER, [f"{n}" for n in range(200)], mode="reason")
        except EngineError as error:
            results.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while reranker.stats().steps == 0 and thread.is_alive():
        pass
    reranker.close()
    reranker.close()
    thread.join()
    assert "the executor was closed" in str(results[0])
    with pytest.raises(EngineError, match="closed"):
        reranker.rank(USER, ITEMS)
    many = list(reranker.rank_many([(USER, ITEMS)] * 2))
    assert [type(r.error) for r in many] == [EngineError] * 2


def test_a_checkpoint_becomes_an_engine_in_the_cache(
    tiny_checkpoint: Callable[[str], Path], reranker: Reranker
) -> None:
    with open_(tiny_checkpoint("llama"), dtype="fp32") as built:
        assert ratings(built.rank(USER, ITEMS)) == pytest.approx(
            ratings(reranker.rank(USER, ITEMS)), abs=1e-6
        )


FORK = """
import os, sys
from exp3rt_trt import EngineError, Reranker
reranker = Reranker.from_pretrained(sys.argv[1], threads=2, kv_cache_mib=64)
reranker.rank("u", ["a"])
pid = os.fork()
if pid == 0:
    for use in (lambda: reranker.rank("u", ["a"]), reranker.stats, lambda: reranker.rank_many([])):
        try:
            use()
        except EngineError as error:
            print(error, flush=True)
    reranker.close()
    del reranker
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(len(reranker.rank("u", ["a"])))
"""


def test_a_forked_child_is_told_so_and_ends_well(engine: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(engine)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *told, last = run.stdout.splitlines()
    assert len(told) == 3
    assert all("make a Reranker after the fork" in line for line in told)
    assert last == "1"


def test_an_open_reranker_does_not_hinder_the_exit(engine: Path) -> None:
    code = (
        "import sys, threading; from exp3rt_trt import Reranker;"
        "threading.excepthook = lambda failed: None;"  # a daemon's traceback may meet the end of stderr
        "r = Reranker.from_pretrained(sys.argv[1], kv_cache_mib=64, max_reasoning_tokens=1400);"
        "work = lambda: r.rank('u', [str(n) for n in range(200)], mode='reason');"
        "threading.Thread(target=work, daemon=True).start();"
        "[None for _ in iter(lambda: r.stats().steps, 1) if r.stats().steps > 1 and sys.exit(0)]"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(engine)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
