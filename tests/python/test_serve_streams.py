"""Candidates as they finish: from the Reranker, and over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt import EngineError, InvalidInputError, Item, RankedItem
from exp3rt_trt.serve.options import ServeOptions
from rank_cases import ITEMS, USER, open_
from serve_cases import BODY, LONG, PROFILE, QUERY, TEXTS, httpx, metric, served, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from exp3rt_trt import Reranker
    from exp3rt_trt.prompts import Mode

FAULTY = [ITEMS[0], Item("none"), ITEMS[1], ITEMS[0], *ITEMS[2:]]


@pytest.fixture(scope="module")
def client(reranker: Reranker) -> Iterator[httpx.Client]:
    with served(reranker, ServeOptions()) as made:
        yield made


@pytest.mark.parametrize("mode", ["score", "reason"])
def test_a_stream_ends_in_the_same_ranking(reranker: Reranker, mode: Mode) -> None:
    async def main() -> tuple[list[RankedItem], list[dict[str, Any]]]:
        stream = await reranker.stream(USER, FAULTY, mode=mode, top_k=3)
        return [item async for item in stream], stream.ranking().to_dicts()

    items, ranking = asyncio.run(main())
    whole = reranker.rank(USER, FAULTY, mode=mode, top_k=3)
    assert ranking == whole.to_dicts()
    assert [item.rank for item in items] == [None] * len(FAULTY)
    everyone = {(id(r.item), r.status): r.to_dict() for r in (*whole, *whole.beyond)}  # one is there twice
    assert len(items) == len(FAULTY)
    for item in items:
        assert {**item.to_dict(), "rank": 0} == {**everyone[id(item.item), item.status], "rank": 0}


def test_a_stream_computes_no_more_than_a_group(engine: Path) -> None:
    counts = []
    for streamed in (False, True):
        with open_(engine) as reranker:

            async def main(reranker: Reranker = reranker) -> None:
                async for _ in await reranker.stream(USER, ITEMS):
                    pass

            asyncio.run(main()) if streamed else reranker.rank(USER, ITEMS)
            counts.append(reranker.stats().prompt_tokens_computed)
    assert counts[0] == counts[1]


def test_faults_and_early_ends(engine: Path) -> None:
    async def main(reranker: Reranker) -> None:
        assert [item async for item in await reranker.stream(USER, [])] == []
        with pytest.raises(InvalidInputError, match="in a stream"):
            await reranker.stream(USER, ITEMS, mode="adaptive", top_k=1)  # type: ignore[arg-type]
        many = [f"It is about number {n}." for n in range(300)]
        stream = await reranker.stream(USER, many, mode="reason")
        async for item in stream:
            assert item.status == "ok"
            break
        stream.cancel()
        assert len(stream.ranking()) < len(many)
        stream = await reranker.stream(USER, many, mode="reason", timeout_s=1e-9)
        assert {item.status async for item in stream} == {"expired"}
        stream = await reranker.stream(USER, many, mode="reason")
        await asyncio.to_thread(reranker.close)
        with pytest.raises(EngineError, match="closed"):
            [item async for item in stream]

    with open_(engine) as reranker:
        asyncio.run(main(reranker))


def test_lines_of_json_then_the_ranking(client: httpx.Client, reranker: Reranker) -> None:
    body = {**BODY, "mode": "reason", "top_k": 2, "stream": True}
    with client.stream("POST", PROFILE, json=body) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        *lines, last = [json.loads(line) for line in answer.iter_lines()]
    expected = reranker.rank(QUERY, BODY["items"], mode="reason")
    assert {c["candidate"]["item_id"]: c["candidate"]["expected_rating"] for c in lines} == {
        r.item_id: r.expected_rating for r in expected
    }
    assert all(c["candidate"]["reasoning"] is not None for c in lines)
    assert last["ranking"] == [r.item_id for r in expected][:2]
    assert last["partial"] is False


def test_candidates_come_before_the_last_is_done(client: httpx.Client) -> None:
    items = [{"item_id": str(n), "description": f"Number {n}. " * 60} for n in range(800)]
    body = {**LONG, "items": items, "stream": True}
    with client.stream("POST", PROFILE, json=body, timeout=60) as answer:
        lines = answer.iter_lines()  # kept: who lets go of it closes the connection
        first = json.loads(next(lines))
        assert first["candidate"]["status"] == "ok"
        assert metric(client.get("/metrics").text, "exp3rt_requests_running") == 1
    until(lambda: metric(client.get("/metrics").text, "exp3rt_requests_running") == 0)


def test_a_stream_that_runs_out_of_time_is_partial(client: httpx.Client) -> None:
    deadline_ms = 100
    while True:  # until some are done, however fast this machine is
        body = {**LONG, "stream": True, "deadline_ms": deadline_ms}
        answer = client.post(PROFILE, json=body)
        if answer.status_code == 200:
            break
        assert answer.status_code == 504
        deadline_ms *= 2
    *lines, last = [json.loads(line) for line in answer.text.splitlines()]
    statuses = {each["candidate"]["status"] for each in lines}
    assert statuses == {"ok", "expired"}
    assert last["partial"] is True
    assert len(last["ranking"]) == sum(each["candidate"]["status"] == "ok" for each in lines)


def test_an_engine_that_ends_in_a_stream_is_told_in_its_last_line(engine: Path) -> None:
    with (
        open_(engine) as reranker,
        served(reranker, ServeOptions()) as client,
        client.stream("POST", PROFILE, json={**LONG, "stream": True}, timeout=60) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        reranker.close()
        *_, last = lines
        assert json.loads(last)["code"] == "engine"
        assert TEXTS[0] not in last
