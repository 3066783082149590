"""Each benchmark runs, small, on a random engine; figures are looked at for form, not for size."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rank_cases import open_

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


def test_latency_and_throughput(engine: Path, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw.json", tmp_path / "out.json"
    options = ["-p", "no:cacheprovider", "--bench-candidates=2", "--bench-users=2", "--bench-rounds=2"]
    options += ["--engine", str(engine), f"--benchmark-json={raw}", "--benchmark-max-time=0.01"]
    command = [sys.executable, "-m", "pytest", "-q", str(BENCHMARKS), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    subprocess.run([sys.executable, str(BENCHMARKS / "record_latency.py"), str(raw), str(out)], check=True)
    rows = {row["name"]: row["extra_info"] for row in read(out)["rows"]}
    for name in ("test_warm_prefix[2]", "test_cold_prefix[2]", "test_many_users[2]"):
        info = rows[name]
        assert (info["dtype"], info["generated_tokens"]) == ("fp32", 0)
        assert min(info["p50_s"], info["p99_s"], info["prompt_tokens_computed"], info["threads"]) > 0
    assert rows["test_reasoning_of_32_tokens"]["generated_tokens"] > 0


def test_a_pair_against_the_length_of_its_item(
    load: Callable[[str], ModuleType], segmented_engine: Callable[[str, str], Path], tmp_path: Path
) -> None:
    engine, out = segmented_engine("llama", "fp32"), tmp_path / "item_length.json"
    given = ("--lengths", 8, 16, "--candidates", 3, "--repeats", 1, "--bandwidth-mib", 1)
    run(load("item_length"), "--engine", engine, *given, "--json", out)
    short, long = read(out)["rows"]
    assert short["tokens"] < long["tokens"]
    parts = ("attention_s", "rest_s", "python_s")
    assert min(short["reading_s"], *(short[part] for part in parts)) > 0
    assert sum(short[part] for part in parts) == pytest.approx(short["seconds_a_pair"])
    assert short["item_bytes"] <= long["item_bytes"]
    pytest.importorskip("matplotlib", reason="plots need the extra [bench]")
    load("plots").item_length(read(out))


def test_measurements_and_report(
    load: Callable[[str], ModuleType], engine: Path, workload: Path, tmp_path: Path
) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    given = ("--engine", engine, "--threads", 1)
    axes = ("candidates", "users", "prefix", "written")
    run(load("scaling"), *given, "--quick", "--axes", *axes, "--json", results / "scaling.json")
    assert [axis["axis"] for axis in read(results / "scaling.json")["axes"]] == list(axes)
    run(load("roofline"), *given, "--quick", "--json", results / "roofline.json")
    assert len(read(results / "roofline.json")["engine"]) == 2
    arrivals = ("--rates", "20,40", "--users", 5, "--candidates", 2)
    run(load("arrivals"), *given, *arrivals, "--json", results / "arrivals.json")
    for row, rate in zip(read(results / "arrivals.json")["rows"], (20, 40), strict=True):
        assert (row["rate"], row["failed"]) == (rate, 0)
        assert 0 < row["p50_s"] <= row["p99_s"]
        assert 0 <= row["goodput_users_per_s"] <= row["served_users_per_s"]
    run(load("compare"), *given, "--workload", workload, "--rounds", 1, "--json", results / "compare.json")
    assert not any(text in (results / "compare.json").read_text("utf-8") for text in TEXTS)
    pytest.importorskip("matplotlib", reason="plots need the extra [bench]")
    run(load("report"), "--results", results, "--docs", docs)
    page = (docs / "benchmarks.md").read_text(encoding="utf-8")
    assert "| exp3rt_trt | fp32 |" in page
    for name in ("scaling", "roofline", "arrivals"):
        assert f"plots/{name}.svg" in page
        assert (docs / "plots" / f"{name}.svg").exists()


def test_random_model_shapes(load: Callable[[str], ModuleType], engine: Path, tmp_path: Path) -> None:
    shape = load("flops").Shape(2, 64, 128, 2, 1, 32, 320)
    made = load("shapes").make_engine(shape, engine, tmp_path / "random", "bf16")
    assert read(made / "manifest.json")["model"]["num_layers"] == 2
    assert not (tmp_path / "random.checkpoint").exists()


def test_operations_are_those_of_the_matrices(load: Callable[[str], ModuleType]) -> None:
    shape = load("flops").Shape(
        layers=2, hidden=8, intermediate=16, heads=4, kv_heads=2, head_dim=2, vocab=32
    )
    weights = 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16)
    assert shape.weights_per_token() == weights
    assert shape.tokens(1, 0) == 2 * weights + 2 * 4 * 4 * 2  # a query meets its own key and value
    assert shape.score(2, 3, 5, 7) == 2 * (shape.tokens(5, 0) + 3 * shape.tokens(7, 5))
    assert shape.tokens(12, 0) == shape.tokens(5, 0) + shape.tokens(7, 5)


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


def test_a_fleet_is_played(
    load: Callable[[str], ModuleType], engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("simpy", reason="needs the extra [bench]")
    from exp3rt_trt.cli.machine import plan_command
    from exp3rt_trt.engines.fleet import Demand
    from exp3rt_trt.engines.plan import Workload

    demand = Demand(1000, visits=3, peak_factor=3, candidates_per_s=5, price_per_hour=1, utilization=0.5)
    plan_command(str(engine), "cpu", Workload(1, 10, 128, 64), demand, as_json=True)
    plan = json.loads(capsys.readouterr().out)
    assert plan["fleet"]["machines"] == 1
    fleet = load("fleet")
    plan["fleet"]["machines"], machines = (
        2,
        2,
    )  # room for all users, so that each is new on one machine, or two
    by_session = fleet.play(plan, machines, 1, patience=1000)
    two_choices = fleet.play(plan, machines, 1, patience=None)
    assert by_session["visits"] == two_choices["visits"] == pytest.approx(3000, rel=0.1)
    assert by_session["elsewhere"] == 0
    assert by_session["hit_rate"] > two_choices["hit_rate"] > 0.5
    assert by_session["tokens"] < two_choices["tokens"]
    crowded = {**plan, "blocks": 100}
    assert fleet.play(crowded, machines, 1, patience=1000)["hit_rate"] < 0.5


def test_prefix_blocks_leave_oldest_first_and_from_their_end(load: Callable[[str], ModuleType]) -> None:
    pytest.importorskip("simpy", reason="needs the extra [bench]")
    cost = load("routing_trace").Cost(150, 50, 3, 1)
    blocks = load("routing_simulation").PrefixBlocks(7)
    assert [blocks.acquire(user, cost) for user in (1, 2, 1)] == [3, 3, 0]
    assert blocks.acquire(3, cost) == 3  # takes those of 2
    assert [blocks.acquire(user, cost) for user in (1, 3, 2)] == [0, 0, 3]


def test_the_simulated_cache_is_the_engine_s(load: Callable[[str], ModuleType], engine: Path) -> None:
    pytest.importorskip("simpy", reason="needs the extra [bench]")
    traces, simulation = load("routing_trace"), load("routing_simulation")
    trace = traces.make_trace(users=12, visits=80, rate=1.0, skew=0.5, candidates=2, seed=2)
    with open_(engine) as roomy:
        costs, instructions = traces.costs_of(roomy, trace)
    with open_(engine, kv_cache_mib=6) as reranker:
        reranker.rank(*traces.visit_of(99, 2))  # the instructions
        stats = reranker.stats()
        cache = simulation.PrefixBlocks(stats.blocks_total - instructions)
        said, found = [], []
        for user in trace.users:
            before = reranker.stats().prompt_tokens_computed
            reranker.rank(*traces.visit_of(user, 2))
            found.append(reranker.stats().prompt_tokens_computed - before)
            said.append(costs[user].tokens(cache.acquire(user, costs[user]), stats.block_size))
    assert found == said
    new = sum(costs[user].prefix_tokens + costs[user].own_tokens for user in set(trace.users))
    assert new + sum(costs[user].own_tokens for user in trace.users[len(costs) :]) < sum(found)  # some left


def test_all_records_are_asked_for(
    load: Callable[[str], ModuleType], workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = load("record")
    commands: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record.subprocess, "run", lambda command, **_: commands.append(command))
    given = ["--engine", "mine", "--also", "other", "--workload", str(workload), "--only", "vllm"]
    record.main([*given, "--launcher", "nice"])
    assert {command[0] for command in commands} == {sys.executable, "nice"}
    scripts = {Path(word) for command in commands for word in command if word.endswith(".py")}
    names = {"compare.py", "arrivals.py", "scaling.py", "roofline.py", "record_latency.py"}
    assert scripts == {BENCHMARKS / name for name in names}
    results = {Path(command[-1]).stem for command in commands if command[-2] == "--json"}
    assert {"arrivals", "scaling", "roofline"} <= results
    with pytest.raises(SystemExit, match="no such file"):
        record.main(["--engine", "mine", "--workload", "nowhere"])
