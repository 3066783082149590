"""The routes, asked by real clients of a real server on loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

httpx = pytest.importorskip("httpx", reason="the extra test is not installed")
cohere = pytest.importorskip("cohere", reason="the extra test is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra test is not installed")

from exp3rt_trt.serve.app import make_app  # noqa: E402
from exp3rt_trt.serve.options import ServeOptions  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exp3rt_trt import Reranker

QUERY = "Likes slow films about work."
TEXTS = ["A baker at work.", "A war.", "A ship at sea."]
BODY = {"user": {"profile": QUERY}, "items": [{"item_id": t, "description": t} for t in TEXTS]}


@contextmanager
def served(reranker: Reranker, options: ServeOptions) -> Iterator[httpx.Client]:
    app = make_app(reranker, options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
        assert app.state.ranking.waiting_tokens == 0  # every slot was given back
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(reranker: Reranker) -> Iterator[httpx.Client]:
    with served(reranker, ServeOptions(max_candidates=5, max_bytes=5000)) as made:
        yield made


def test_profile_answers_what_the_reranker_says(client: httpx.Client, reranker: Reranker) -> None:
    answer = client.post("/v1/rerank/profile", json={**BODY, "top_k": 2}).json()
    assert answer["results"] == reranker.rank(BODY["user"], BODY["items"], top_k=2).to_dicts()
    assert answer["partial"] is False


def test_compatible_scores_are_the_scaled_rating(client: httpx.Client, reranker: Reranker) -> None:
    expected = {int(r.item_id): (r.expected_rating - 1) / 4 for r in reranker.rank(QUERY, TEXTS)}
    for path in ("/v1/rerank", "/v2/rerank"):
        answer = client.post(path, json={"model": "m", "query": QUERY, "documents": TEXTS}).json()
        assert {r["index"]: r["relevance_score"] for r in answer["results"]} == expected
    tei = client.post("/rerank", json={"query": QUERY, "texts": TEXTS}).json()
    assert {r["index"]: r["score"] for r in tei} == expected


def test_the_cohere_client_gets_the_ranking(client: httpx.Client, reranker: Reranker) -> None:
    expected = [int(r.item_id) for r in reranker.rank(QUERY, TEXTS, top_k=2)]
    for kind in (cohere.Client, cohere.ClientV2):
        with httpx.Client() as connection:
            asked = kind("any", base_url=str(client.base_url), httpx_client=connection)
            answer = asked.rerank(model="m", query=QUERY, documents=TEXTS, top_n=2)
        assert [r.index for r in answer.results] == expected


def test_many_at_once_each_get_their_own_answer(client: httpx.Client, reranker: Reranker) -> None:
    def ask(number: int) -> tuple[object, object]:
        user, texts = f"Likes {number}.", [f"Film {number}.", "A war."]
        got = client.post("/rerank", json={"query": user, "texts": texts}).json()
        return [r["index"] for r in got], [int(r.item_id) for r in reranker.rank(user, texts)]

    with ThreadPoolExecutor(16) as pool:
        assert all(got == expected for got, expected in pool.map(ask, range(40)))


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/rerank", {"query": QUERY, "texts": ["x"] * 6}, 422, "texts"),
        ("/rerank", {"query": QUERY}, 422, "body.texts"),
        ("/rerank", {"query": "x" * 5000, "texts": []}, 413, "body"),
        ("/rerank", {"query": " ", "texts": TEXTS}, 422, None),
        ("/rerank", {"query": QUERY, "texts": ["A war.", " "]}, 422, "texts[1]"),
        ("/v1/rerank", {"query": QUERY, "documents": [" "]}, 422, "documents[0]"),
        ("/v1/rerank/profile", {**BODY, "top_k": 0}, 422, "body.top_k"),
        ("/nowhere", {}, 404, None),
    ],
)
def test_errors_have_one_shape(
    client: httpx.Client, path: str, body: object, status: int, field: str | None
) -> None:
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)
    assert set(answer.json()["error"]) == {"code", "message", "field"}


def test_a_key_is_needed_everywhere_but_for_health(reranker: Reranker) -> None:
    with served(reranker, ServeOptions(api_key="secret")) as client:
        assert client.get("/health").status_code == 200
        for path in ("/openapi.json", "/docs", "/nowhere"):
            assert client.get(path).status_code == 401
        assert client.post("/v1/rerank/profile", json=BODY).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        assert client.post("/v1/rerank/profile", json=BODY, headers=headers).status_code == 200


def test_tenants_share_no_prefix(client: httpx.Client, reranker: Reranker) -> None:
    def computed(tenant: str) -> int:
        before = reranker.stats().prompt_tokens_computed
        body = {**BODY, "user": {"profile": "Likes to be alone."}}
        answer = client.post("/v1/rerank/profile", json=body, headers={"X-Tenant": tenant})
        assert answer.status_code == 200
        return reranker.stats().prompt_tokens_computed - before

    cold, warm, other = computed("ann"), computed("ann"), computed("bob")
    assert cold == other > warm


def test_a_deadline_that_passes_is_a_504_and_computes_nothing_more(client: httpx.Client) -> None:
    items = [{"item_id": str(n), "description": f"{n} boats. " * 50} for n in range(5)]
    body = {**BODY, "items": items, "deadline_ms": 1, "mode": "reason"}
    answer = client.post("/v1/rerank/profile", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline")


def test_a_client_that_goes_away_frees_its_slot(reranker: Reranker) -> None:
    with served(reranker, ServeOptions()) as client:
        app_waits = {
            **BODY,
            "mode": "reason",
            "items": [{"item_id": str(n), "description": "x"} for n in range(300)],
        }
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/rerank/profile", json=app_waits, timeout=0.05)
        assert client.post("/v1/rerank/profile", json=BODY).status_code == 200
        # `served` waits for the server and finds that nothing is admitted any more.


def test_a_full_server_answers_429_without_computing(reranker: Reranker) -> None:
    app = make_app(reranker, ServeOptions(max_waiting_tokens=100))
    app.state.ranking.waiting_tokens = 99
    before = reranker.stats().groups_done

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.post("/rerank", json={"query": QUERY, "texts": TEXTS})

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert reranker.stats().groups_done == before
