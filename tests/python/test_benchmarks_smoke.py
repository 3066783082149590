"""Each benchmark runs, small, on a random engine; figures are looked at for form, not for size."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TEXTS = ["She likes slow films. ", "A loud one with a thin plot. ", "A drama. "]


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of the benchmarks, or of the peers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS / "peers")
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module


@pytest.fixture(scope="module")
def engine(tiny_engine: Callable[[str, str], Path]) -> Path:
    return tiny_engine("llama", "fp32")


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Callable[[str], Path]) -> Path:
    return tiny_checkpoint("llama")


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    candidates = [{"item_id": str(i), "suffix": text} for i, text in enumerate(TEXTS)]
    users = [
        {"user_id": f"u{i}", "prefix": f"The user likes {what}. ", "candidates": candidates}
        for i, what in enumerate(["quiet dramas", "loud films"])
    ]
    path = tmp_path / "workload.jsonl"
    path.write_text("".join(json.dumps(user) + "\n" for user in users), encoding="utf-8")
    return path


def run(module: ModuleType, *arguments: object) -> None:
    module.main([str(argument) for argument in arguments])


def rate(load: Callable[[str], ModuleType], checkpoint: Path, *arguments: object) -> None:
    """Rates a workload with the peer that the tests' environment can run."""
    given = ("--model", checkpoint, "--dtype", "fp32", *arguments)
    load("common").main("transformers", load("transformers_peer").Transformers, [str(each) for each in given])


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_peers_are_run_and_compared(
    load: Callable[[str], ModuleType], engine: Path, checkpoint: Path, workload: Path, tmp_path: Path
) -> None:
    peers, reference, out = tmp_path / "peers.toml", tmp_path / "reference.json", tmp_path / "out.json"
    python, model = json.dumps(sys.executable), json.dumps(str(checkpoint))
    script = json.dumps(str(BENCHMARKS / "peers" / "transformers_peer.py"))
    peers.write_text(
        f"""
        peer = [
          {{name="transformers", python={python}, script={script}, model={model}, args=["--dtype", "fp32"]}},
          {{name="broken", python={python}, script="not_there.py", model={model}}},
        ]""",
        encoding="utf-8",
    )
    shared = ("--workload", workload, "--mode", "score", "--threads", 1)
    rate(load, checkpoint, *shared, "--json", reference)
    given = ("--engine", engine, *shared, "--rounds", 1, "--reference", reference, "--json", out)
    run(load("compare"), *given, "--peers", peers)
    ours, theirs, broken = read(out)["summary"]
    assert ours["max_abs_difference"] < 1e-4
    assert theirs["max_abs_difference"] < 1e-6
    assert (theirs["name"], theirs["dtype"], ours["dtype"]) == ("transformers", "fp32", "fp32")
    assert theirs["ours_over_theirs"] > 0
    assert (broken["runs"], broken["candidates_per_s"]) == (0, None)
    assert not any(text in out.read_text("utf-8") for text in TEXTS)


def test_a_peer_writes_what_the_engine_writes(
    load: Callable[[str], ModuleType], engine: Path, checkpoint: Path, workload: Path, tmp_path: Path
) -> None:
    from exp3rt_trt.cli.bench import BenchOptions, bench_command

    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    options = BenchOptions(str(engine), "reason", None, None, reason_tokens=5, threads=1, kv_cache_mib=64)
    bench_command(workload, ours, options)
    shared = ("--workload", workload, "--mode", "reason", "--reason-tokens", 5, "--threads", 1)
    rate(load, checkpoint, *shared, "--json", theirs)
    found = load("compare").differences(read(theirs), read(ours))
    assert found["same_reasoning_share"] == 1.0
    assert found["max_abs_difference"] < 1e-4
    assert list(read(theirs))[: len(read(ours))] == list(read(ours))
    assert read(theirs)["generated_tokens"] == read(ours)["generated_tokens"] == 30


def test_what_peers_share_is_what_we_use(load: Callable[[str], ModuleType]) -> None:
    from exp3rt_trt import RatingScale, prompts

    common = load("common")
    names = ("SCORE_OPENING", "REASON_OPENING", "REASON_ANSWER")
    assert [getattr(common, name) for name in names] == [getattr(prompts, name) for name in names]
    scale = RatingScale.one_to_ten()
    assert list(common.DIGITS) == list(scale.labels)
    assert list(common.RATINGS) == list(scale.values)
    assert common.common_length([[1, 2, 3], [1, 2, 4], [1, 2]]) == 1
    assert common.common_length([[1, 2, 3]]) == 2
    np.testing.assert_allclose(common.softmax(np.zeros((2, 10))), 0.1)


def test_a_record_holds_no_texts(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    records = load("records")
    with pytest.raises(ValueError, match="reasoning"):
        records.write_record(tmp_path / "out.json", {"runs": [{"reasoning": "because"}]})
    records.write_record(tmp_path / "out.json", {"base": {"prefix": 64}})
    assert records.percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert records.percentile([float(i) for i in range(1, 101)], 99) == 99.0
