"""The LLM API's executor over its whole process path; TensorRT-LLM itself is a double (doubles/llm_api)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exp3rt_trt import _core
from exp3rt_trt.errors import EngineError, InvalidInputError
from exp3rt_trt.executors.llmapi import LlmApiExecutor, LlmApiOptions
from exp3rt_trt.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exp3rt_trt.executors import GroupResult

DOUBLE = Path(__file__).parent / "doubles" / "llm_api"
VOCAB = 301
FAIL, DIE, ERROR, GARBAGE = 290, 291, 292, 293  # tokens that make the double misbehave
LABELS = [10, 20, 30]
PREFIX = [list(range(100, 140)), list(range(140, 180))]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the double in TensorRT-LLM's place for workers; gives the file of its journal."""
    monkeypatch.setenv("PYTHONPATH", str(DOUBLE), prepend=":")
    monkeypatch.setenv("DOUBLE_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setenv("DOUBLE_FAIL_TOKEN", str(FAIL))
    monkeypatch.setenv("DOUBLE_DIE_TOKEN", str(DIE))
    monkeypatch.setenv("DOUBLE_ERROR_TOKEN", str(ERROR))
    monkeypatch.setenv("DOUBLE_GARBAGE_TOKEN", str(GARBAGE))
    return tmp_path / "journal"


@pytest.fixture
def options(tiny_checkpoint: Callable[[str], Path]) -> LlmApiOptions:
    return LlmApiOptions(tiny_checkpoint("llama"), VOCAB, tokens_per_block=16)


@pytest.fixture
def executor(journal: Path, options: LlmApiOptions) -> Iterator[LlmApiExecutor]:
    assert not journal.exists()
    made = LlmApiExecutor(options)
    yield made
    made.close()


@pytest.fixture
def slow_executor(
    journal: Path, options: LlmApiOptions, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LlmApiExecutor]:
    """One whose model takes its time, so that requests are still under way when something happens."""
    assert not journal.exists()
    monkeypatch.setenv("DOUBLE_STEP_S", "0.05")
    made = LlmApiExecutor(options)
    yield made
    made.close()


def entries(journal: Path, key: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if key in line]


def group(suffixes: list[list[int]], **changes: Any) -> _core.RerankGroup:
    given = {"prefix": PREFIX, "label_tokens": LABELS, "answer_tokens": [7, 8], **changes}
    return _core.RerankGroup(suffixes=suffixes, **given)


def submit(executor: LlmApiExecutor, made: _core.RerankGroup) -> tuple[int, Future[Any]]:
    future: Future[Any] = Future()

    def on_done(result: GroupResult | None, error: str | None) -> None:
        assert not future.done()
        future.set_result((result, error))

    return executor.submit(made, on_done), future


def run(executor: LlmApiExecutor, made: _core.RerankGroup) -> GroupResult:
    result, error = submit(executor, made)[1].result(timeout=60)
    assert error is None
    return result


def expected_logits(prompt: list[int]) -> Any:
    """What the double computes."""
    logits = np.random.default_rng(prompt).standard_normal(VOCAB).astype(np.float32)
    return logits[LABELS]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_prefix_goes_first_and_once_then_all_candidates(executor: LlmApiExecutor, journal: Path) -> None:
    suffixes = [[1, 2], [3], [4, 5, 6]]
    shared = PREFIX[0] + PREFIX[1]
    result = run(executor, group(suffixes))
    assert [candidate.status for candidate in result.candidates] == ["ok"] * 3
    for suffix, candidate in zip(suffixes, result.candidates, strict=True):
        assert candidate.label_logits.dtype == np.float32
        assert np.array_equal(candidate.label_logits, expected_logits([*shared, *suffix, 7, 8]))
    run(executor, group(suffixes))
    _, *requests = entries(journal, "prompt")  # the first one is the worker's own
    assert [request["prompt"] for request in requests[:4]] == [
        [*shared, shared[-1]],  # one token more, because the last token's block is not kept
        *([*shared, *suffix, 7, 8] for suffix in suffixes),
    ]
    assert len(requests) == 7  # the second time, the prefix is there
    assert {request["max_tokens"] for request in requests} == {1}
    assert requests[1]["retention"] == [[0, 40, 90], [40, 80, 70], [80, None, 20]]
    (loaded,) = entries(journal, "options")
    assert loaded["options"]["trust_remote_code"] is False
    assert loaded["options"]["max_num_tokens"] == 8192


def test_tenants_warm_their_own_prefixes(executor: LlmApiExecutor, journal: Path) -> None:
    for salt in ("ann", "bob", "ann", ""):
        run(executor, group([[1], [2]], cache_salt=salt))
    _, *requests = entries(journal, "prompt")
    assert [request["cache_salt"] for request in requests] == ["ann"] * 3 + ["bob"] * 3 + ["ann"] * 2 + [
        None
    ] * 3


def test_statistics(executor: LlmApiExecutor) -> None:
    before = executor.stats()
    assert (before.blocks_total, before.block_size, before.groups_done) == (4096, 16, 0)
    run(executor, group([[1], [2]]))
    stats = executor.stats()
    assert (stats.groups_done, stats.candidates_done) == (1, 2)
    assert stats.prompt_tokens_reused == 2 * 80  # the prefix's five blocks, for each candidate
    assert stats.prompt_tokens_computed == 1 + 81 + 2 * 3
    assert stats.blocks_free + stats.blocks_in_use + stats.blocks_cached == stats.blocks_total
    assert stats.compute_s > 0
    assert executor.isa == "tensorrt_llm 1.3.0"


def test_without_statistics_one_longest_sequence_is_known_to_fit(
    journal: Path, options: LlmApiOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert journal.parent.exists()
    monkeypatch.setenv("DOUBLE_NO_STATISTICS", "1")
    made = LlmApiExecutor(options)
    try:
        assert made.stats().blocks_total == 2048 // 16
    finally:
        made.close()


def test_reasoning_then_the_answer_in_a_second_request(executor: LlmApiExecutor, journal: Path) -> None:
    shared = PREFIX[0] + PREFIX[1]
    (free,) = run(executor, group([[1]], max_reasoning_tokens=6)).candidates
    assert len(free.reasoning_tokens) == 6
    prompt = [*shared, 1, *free.reasoning_tokens, 7, 8]
    assert np.array_equal(free.label_logits, expected_logits(prompt))
    ends = [250, free.reasoning_tokens[3]]
    (ended,) = run(executor, group([[1]], max_reasoning_tokens=6, end_tokens=ends)).candidates
    assert ended.reasoning_tokens == free.reasoning_tokens[:3]
    asked = [request["prompt"] for request in entries(journal, "prompt")[1:]]
    assert asked == [[*shared, 1], prompt, [*shared, 1], [*shared, 1, *free.reasoning_tokens[:3], 7, 8]]
    generated = group([[1]], label_tokens=[], answer_tokens=[], max_reasoning_tokens=6)
    (written,) = run(executor, generated).candidates
    assert (written.reasoning_tokens, written.label_logits.size) == (free.reasoning_tokens, 0)
    assert executor.stats().generated_tokens == 6 + 4 + 6
    own = free.reasoning_tokens[2:4]
    (answered,) = run(executor, group([[1]], max_reasoning_tokens=6, answer_tokens=own)).candidates
    assert answered.reasoning_tokens == free.reasoning_tokens[:2]
    prompt = [*shared, 1, *free.reasoning_tokens[:4]]
    assert np.array_equal(answered.label_logits, expected_logits(prompt))


def test_concurrent_groups_share_the_warming_of_their_prefix(executor: LlmApiExecutor, journal: Path) -> None:
    started = [submit(executor, group([[n], [n + 1]])) for n in range(1, 41, 2)]
    for number, (_, future) in enumerate(started):
        result, error = future.result(timeout=60)
        assert error is None
        expected = expected_logits([*PREFIX[0], *PREFIX[1], 2 * number + 1, 7, 8])
        assert np.array_equal(result.candidates[0].label_logits, expected)
    asked = [request["prompt"] for request in entries(journal, "prompt")]
    assert asked.count([*PREFIX[0], *PREFIX[1], PREFIX[1][-1]]) == 1
    assert len({group_id for group_id, _ in started}) == 20


def test_one_candidates_failure_stays_its_own(executor: LlmApiExecutor) -> None:
    result = run(executor, group([[1], [FAIL], [2], [ERROR]]))
    assert [candidate.status for candidate in result.candidates] == ["ok", "failed", "ok", "failed"]
    assert result.candidates[1].label_logits.size == 0


def test_a_group_fails_with_its_prefix_or_with_all_its_candidates(executor: LlmApiExecutor) -> None:
    for failing in (group([[1], [2]], prefix=[[5, FAIL]]), group([[FAIL], [1, FAIL]])):
        result, error = submit(executor, failing)[1].result(timeout=60)
        assert result is None
        assert "the double was asked to fail" in error
    assert run(executor, group([[1]])).candidates[0].status == "ok"


def test_deadline_and_cancellation(slow_executor: LlmApiExecutor, journal: Path) -> None:
    slow = {"max_reasoning_tokens": 1500, "prefix": []}
    late = run(slow_executor, group([[1], [2]], timeout_s=0.2, **slow))
    assert [candidate.status for candidate in late.candidates] == ["expired"] * 2
    number, future = submit(slow_executor, group([[3], [4]], **slow))
    until(lambda: len(entries(journal, "prompt")) == 5)
    slow_executor.cancel(number)
    slow_executor.cancel(number)
    result, error = future.result(timeout=60)
    assert error is None
    assert [candidate.status for candidate in result.candidates] == ["cancelled"] * 2
    assert [entry["aborted"] for entry in entries(journal, "aborted")] == [[1], [2], [3], [4]]
    slow_executor.cancel(number)
    slow_executor.cancel(999)
    assert run(slow_executor, group([[1]])).candidates[0].status == "ok"


def test_a_dead_worker_fails_all_groups_with_its_last_words(slow_executor: LlmApiExecutor) -> None:
    waiting = [submit(slow_executor, group([[n]], max_reasoning_tokens=1500))[1] for n in range(3)]
    waiting.append(submit(slow_executor, group([[DIE]]))[1])
    for future in waiting:
        result, error = future.result(timeout=60)
        assert result is None
        assert "ended with 9" in error
        assert "CUDA error: an illegal memory access" in error
    with pytest.raises(RuntimeError, match="ended with 9"):
        slow_executor.submit(group([[1]]), lambda *_: None)
    assert slow_executor.stats().groups_done == 0


def test_an_answer_that_cannot_be_read_fails_all_groups(slow_executor: LlmApiExecutor) -> None:
    waiting = [submit(slow_executor, group([[n]], max_reasoning_tokens=1500))[1] for n in (1, GARBAGE)]
    for future in waiting:
        result, error = future.result(timeout=60)
        assert result is None
        assert "an answer of the worker process cannot be read: JSONDecodeError" in error
    with pytest.raises(RuntimeError, match="cannot be read"):
        slow_executor.submit(group([[1]]), lambda *_: None)


def test_closing_tells_those_who_wait(slow_executor: LlmApiExecutor, journal: Path) -> None:
    _, future = submit(slow_executor, group([[1]], max_reasoning_tokens=1500))
    closers = [threading.Thread(target=slow_executor.close) for _ in range(2)]
    for closer in closers:
        closer.start()
    assert future.result(timeout=60) == (None, "the executor was closed")
    for closer in closers:
        closer.join()
    slow_executor.close()
    assert entries(journal, "shutdown") == [{"shutdown": True}]
    with pytest.raises(RuntimeError, match="the executor was closed"):
        slow_executor.submit(group([[1]]), lambda *_: None)
    slow_executor.cancel(1)


ORPHAN = """
import os, sys
from pathlib import Path
from exp3rt_trt.executors.llmapi import LlmApiExecutor, LlmApiOptions
executor = LlmApiExecutor(LlmApiOptions(Path(sys.argv[1]), 301))
os._exit(0)
"""


def test_a_worker_ends_when_its_parent_is_gone(journal: Path, options: LlmApiOptions) -> None:
    command = [sys.executable, "-c", ORPHAN, str(options.checkpoint)]
    subprocess.run(command, check=True, timeout=120)
    until(lambda: entries(journal, "shutdown") == [{"shutdown": True}])


def test_a_model_that_cannot_be_loaded(
    journal: Path, options: LlmApiOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOUBLE_LOAD_ERROR", "not enough memory for 4096 blocks")
    with pytest.raises(EngineError, match=r"(?s)ended with 1.*not enough memory for 4096 blocks"):
        LlmApiExecutor(options)
    assert not journal.exists()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (group([]), "suffixes is empty"),
        (group([[]]), "suffix 0 is empty"),
        (group([[1]], label_tokens=[]), "label_tokens is empty"),
        (group([[1]], answer_tokens=[], max_reasoning_tokens=3), "answer_tokens is empty"),
        (group([[1]], max_reasoning_tokens=-1), "max_reasoning_tokens is negative"),
        (group([[1], [VOCAB]]), "token 301 in suffixes is outside the vocabulary of 301"),
        (group([[1]], prefix=[[-1]]), "token -1 in prefix is outside"),
        (group([[1], [1] * 2000]), "suffix 1 makes 2082 tokens .*; the limit is 2048"),
    ],
)
def test_groups_that_can_never_run(executor: LlmApiExecutor, made: _core.RerankGroup, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Pending(executor, [made], lambda results: results)


def test_the_label_reader_says_when_it_was_never_called() -> None:
    from exp3rt_trt.executors.llmapi_requests import LabelReader

    reader = LabelReader([1, 2], prompt_length=3)
    with pytest.raises(RuntimeError, match="did not come back"):
        reader.values()
    reader(1, np.arange(6.0).reshape(1, 1, 6), [[5, 5, 5]], None, None)
    reader(1, np.zeros((1, 1, 6)), [[5, 5, 5, 1]], None, None)  # a later step
    assert reader.values() == [1.0, 2.0]
