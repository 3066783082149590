"""A real Ray: datasets, against one process and killed in the middle; replicas, and who goes where."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exp3rt_trt import Reranker

ray = pytest.importorskip("ray", reason="needs the extra [ray]")

# Ray sets options of its own that it has deprecated, leaves sockets to the collector, and minds that the rest
# of a killed job is too little for two actors.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:The minimum number of concurrent actors:UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """Starts Ray. Its CPUs are numbers: more than there are, so that nothing waits for a place."""
    from ray.data import DataContext

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        patch.setenv("RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S", "30")  # a slow machine is not overload
        context = ray.init(
            num_cpus=8, object_store_memory=128 << 20, include_dashboard=False, log_to_driver=False
        )
        settings = DataContext.get_current()
        settings.enable_progress_bars, settings.default_hash_shuffle_parallelism = False, 2
        yield context.address_info["address"]
        ray.shutdown()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def faulty_rows() -> list[dict[str, Any]]:
    """Returns a row that cannot be ranked, one without candidates, and one with faulty candidates."""
    from ray_cases import user_row

    rows = [user_row(number) for number in (100, 101, 102)]
    rows[0]["user"]["profile"] = " "
    rows[1]["candidates"] = None
    rows[2]["candidates"][1]["description"] = None
    rows[2]["candidates"][2]["item_id"] = "i0"
    return rows


def test_two_actors_say_what_one_process_says(tmp_path: Path, engine: Path, reranker: Reranker) -> None:
    import ray_cases
    from ray.data import read_json

    rows = [ray_cases.user_row(number, candidates=number % 4) for number in range(20)] + faulty_rows()
    dataset = read_json(write_rows(tmp_path / "rows.jsonl", rows))
    ranked = ray_cases.rank(dataset, str(engine), users_per_block=4, top_k=2)
    got = {row["user_id"]: row for row in ranked.take_all()}
    assert len(got) == len(rows)
    expected = reranker.rank_many([(row["user"], row["candidates"]) for row in rows], top_k=2)
    for row, want in zip(rows, expected, strict=True):
        ranking = None if want.error else want.to_dicts()
        error = str(want.error) if want.error else None
        assert got[row["user_id"]] == {
            "user_id": row["user_id"], "country": row["country"], "ranking": ranking, "error": error
        }  # fmt: skip
    assert got[100]["error"] == "user.profile is empty"
    assert "candidates must be a list" in got[101]["error"]
    assert [each["status"] for each in got[102]["ranking"]] == ["ok", "invalid", "duplicate"]


def test_pairs_are_gathered_by_user() -> None:
    import ray_cases
    from exp3rt_trt.integrations.ray_data import group_by_user
    from ray.data import from_items

    rows = [ray_cases.user_row(number) for number in range(5)]
    pairs = [
        {"user_id": row["user_id"], "user": row["user"], "candidate": candidate}
        for place in range(3)
        for row in rows
        for candidate in row["candidates"][place : place + 1]
    ]
    grouped = group_by_user(from_items(pairs)).take_all()
    assert sorted(grouped, key=lambda row: row["user_id"]) == [
        {name: row[name] for name in ("user_id", "user", "candidates")} for row in rows
    ]


def test_a_killed_job_goes_on_and_pays_for_nothing_twice(tmp_path: Path, engine: Path, cluster: str) -> None:
    import ray_cases

    (tmp_path / "rows").mkdir()
    for number in range(12):
        write_rows(tmp_path / "rows" / f"{number:02}.jsonl", [ray_cases.user_row(number)])
    names = ("rows", "out", "checkpoint", "gate")
    rows, out, checkpoint, gate = (tmp_path / name for name in names)
    arguments = [str(each) for each in (rows, engine, out, checkpoint, gate)]
    job = subprocess.Popen([sys.executable, ray_cases.__file__, cluster, *arguments])
    deadline = time.monotonic() + 120  # of a job that hangs
    try:
        while len(users_of(checkpoint)) < ray_cases.BEFORE_GATE and job.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        job.kill()
        job.wait()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert users_of(out) == list(range(ray_cases.BEFORE_GATE))
    gate.touch()
    ray_cases.job(*arguments)
    assert users_of(out) == list(range(12))  # each once
    assert before.items() <= {path: path.stat().st_mtime_ns for path in out.iterdir()}.items()


def users_of(folder: Path) -> list[int]:
    """Returns the users in a folder of Parquet files that are finished."""
    import pyarrow.parquet as pq

    found: list[int] = []
    for path in folder.glob("*.parquet"):
        if ".pending" not in path.name:
            found += pq.read_table(path, columns=["user_id"])["user_id"].to_pylist()
    return sorted(found)


@pytest.fixture(scope="module")
def port() -> int:
    """Starts Ray Serve on a free port."""
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    serve.start(http_options={"port": number})
    return number


@pytest.fixture(scope="module")
def run(engine: Path, port: int) -> Callable[[int | None], Any]:
    """Starts two replicas, by the router's patience."""
    from exp3rt_trt.integrations.ray_serve import application
    from ray import serve

    def start(patience: int | None) -> Any:
        assert port
        app = application(
            str(engine),
            replicas=2,
            threads=1,
            max_ongoing_requests=1000,
            patience=patience,
            options=ray_options(),
        )
        name = f"patience-{patience}"
        return serve.run(app, name=name, route_prefix=f"/{name}")

    return start


def test_a_user_comes_back_to_the_replica_that_has_the_prefix(
    run: Callable[[int | None], Any], port: int, reranker: Reranker
) -> None:
    import httpx
    from routing import replay
    from routing_simulation import Fleet, simulate
    from routing_trace import costs_of, hit_rate, make_trace, visit_of

    trace = make_trace(users=8, visits=60, rate=50.0, skew=0.0, candidates=2, seed=3)
    costs, _ = costs_of(reranker, trace)
    rates = {}
    for patience in (1000, None):
        told = replay(run(patience), trace)
        assert sum(told["visits_by_replica"]) == len(trace.users)
        rates[patience] = hit_rate(trace, costs, told["prompt_tokens_computed"])
    said = simulate(trace, costs, Fleet(2, 10_000, 64, 1e6, 1000, 1000), seed=0)
    assert rates[1000] == hit_rate(trace, costs, sum(visit.tokens for visit in said))  # each user once
    assert rates[None] < rates[1000]

    user, items = visit_of(0, 2)
    answer = httpx.post(
        f"http://127.0.0.1:{port}/patience-1000/v1/rerank/profile",
        json={"user": user, "items": items},
        headers={"x-session-id": "user 0"},
        timeout=60,
    )
    assert answer.json()["results"] == reranker.rank(user, items).to_dicts()


def test_a_busy_replica_is_passed_over(run: Callable[[int | None], Any]) -> None:
    from routing import replay
    from routing_trace import Trace

    burst = Trace([0.0] * 24, [0] * 24, candidates=40)  # of one user: a replica is at it for a while
    assert min(replay(run(2), burst)["visits_by_replica"]) > 0
    assert min(replay(run(1000), burst)["visits_by_replica"]) == 0


def ray_options() -> dict[str, Any]:
    import ray_cases

    return ray_cases.ENGINE_OPTIONS
