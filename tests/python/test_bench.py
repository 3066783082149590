from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exp3rt_trt import RatingScale, Reranker
from exp3rt_trt.cli.app import main

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "workloads" / "public.jsonl"
KEYS = [
    "users",
    "candidates_per_s",
    "prompt_tokens_computed",
    "prompt_tokens_reused",
    "generated_tokens",
    "load_s",
    "peak_rss_mib",
    "dtype",
    "threads",
    "isa",
]
WORKLOAD = [
    {
        "user_id": f"u{user}",
        "prefix": f"<|im_start|>system\nYou rate films.<|im_end|>\n<|im_start|>user\nLikes number {user}.\n",
        "candidates": [
            {"item_id": str(item), "suffix": f"Film {item}.<|im_end|>\n<|im_start|>assistant\n"}
            for item in range(6)
        ],
    }
    for user in range(3)
]


@pytest.fixture
def bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    def run(*arguments: object) -> dict[str, Any]:
        out = tmp_path / "out.json"
        monkeypatch.setattr(sys, "argv", ["exp3rt-trt", "bench", *map(str, arguments), "--json", str(out)])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert not exit_.value.code, capsys.readouterr().err
        return dict(json.loads(out.read_text(encoding="utf-8")))

    return run


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    path = tmp_path / "workload.jsonl"
    path.write_text("".join(json.dumps(user) + "\n" for user in WORKLOAD), encoding="utf-8")
    return path


def test_score_mode(
    bench: Callable[..., dict[str, Any]], workload: Path, tiny_engine: Callable[[str, str], Path]
) -> None:
    engine = tiny_engine("llama", "fp32")
    out = bench("--engine", engine, "--workload", workload, "--mode", "score", "--threads", 1)
    assert list(out) == KEYS
    assert (out["dtype"], out["threads"], out["generated_tokens"]) == ("fp32", 1, 0)
    assert out["isa"] in ("avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")
    assert min(out["candidates_per_s"], out["load_s"], out["peak_rss_mib"], out["prompt_tokens_reused"]) > 0
    assert [user["user_id"] for user in out["users"]] == ["u0", "u1", "u2"]
    with Reranker.from_pretrained(
        engine, scale=RatingScale.one_to_ten(), kv_cache_mib=64, threads=1
    ) as reranker:
        for given, found in zip(WORKLOAD, out["users"], strict=True):
            assert [list(item) for item in found["items"]] == [
                ["item_id", "expected_rating", "probabilities", "reasoning"]
            ] * 6
            assert [item["item_id"] for item in found["items"]] == list("012345")
            suffixes = [item["suffix"] + "Predicted User Rating: " for item in given["candidates"]]
            expected = reranker.score_prompts(str(given["prefix"]), suffixes)
            probabilities = np.array([item["probabilities"] for item in found["items"]])
            np.testing.assert_allclose(probabilities, expected, atol=1e-5)
            ratings = np.array([item["expected_rating"] for item in found["items"]])
            np.testing.assert_allclose(ratings, expected @ np.arange(1, 11), atol=1e-4)


def test_reason_mode_writes_exactly_so_many_tokens(
    bench: Callable[..., dict[str, Any]], workload: Path, tiny_engine: Callable[[str, str], Path]
) -> None:
    engine = tiny_engine("llama", "fp32")
    arguments = ("--engine", engine, "--workload", workload, "--mode", "reason", "--threads", 1)
    out = bench(*arguments, "--reason-tokens", 9, "--users", 2, "--candidates", 3)
    assert [len(user["items"]) for user in out["users"]] == [3, 3]
    assert out["generated_tokens"] == 2 * 3 * 9
    for user in out["users"]:
        for item in user["items"]:
            assert item["reasoning"]
            assert 1 <= item["expected_rating"] <= 10


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("{", ":1: not valid JSON"),
        ('{"prefix": 1, "candidates": []}', ':1: "prefix" must be a string'),
        ('{"prefix": "", "candidates": [{"suffix": ""}, {}]}', ':1: candidates[1] has no string "suffix"'),
        ("", ": no candidates to rate"),
        ('{"prefix": "", "candidates": []}', ": no candidates to rate"),
    ],
)
def test_a_faulty_workload_is_named(
    lines: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "workload.jsonl"
    path.write_text(lines, encoding="utf-8")
    arguments = ["bench", "--engine", "x", "--workload", str(path), "--mode", "score", "--json", "out.json"]
    monkeypatch.setattr(sys, "argv", ["exp3rt-trt", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    assert f"{path}{words}" in capsys.readouterr().err


def test_a_workload_is_not_written_over(
    workload: Path,
    tiny_engine: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = workload.read_bytes()
    arguments = ["--engine", tiny_engine("llama", "fp32"), "--workload", workload, "--json", workload]
    command = ["exp3rt-trt", "bench", "--mode", "score", "--threads", 1, *arguments]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    with pytest.raises(SystemExit) as exit_:
        main()
    assert workload.read_bytes() == before
    assert exit_.value.code == 1
    assert f"--json {workload} is the same file as --workload {workload}" in capsys.readouterr().err


@pytest.mark.skipif(not PUBLIC.exists(), reason=f"the public workload is not there ({PUBLIC})")
def test_prefixes_of_the_public_workload_are_computed_once(
    bench: Callable[..., dict[str, Any]], base_student_engine: Callable[[str], Path]
) -> None:
    from exp3rt_trt.cli.bench import read_workload
    from exp3rt_trt.tokenization import PromptTokenizer

    engine = base_student_engine("bf16")
    users, candidates = 2, 6
    arguments = ("--engine", engine, "--workload", PUBLIC, "--mode", "score", "--threads", 1)
    out = bench(*arguments, "--users", users, "--candidates", candidates)
    tokenizer = PromptTokenizer(engine / "tokenizer.json")
    needed = 0
    for user in read_workload(PUBLIC, users, candidates):
        suffixes = [item["suffix"] + "Predicted User Rating: " for item in user["candidates"]]
        cut = tokenizer.encode_joint(user["prefix"], suffixes)
        needed += len(cut[0].prefix) + sum(len(suffix) for _, suffix in cut)
    assert out["prompt_tokens_computed"] <= 1.01 * needed
    assert out["prompt_tokens_computed"] + out["prompt_tokens_reused"] > 1.5 * needed
