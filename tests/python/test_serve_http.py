"""The routes, asked by real clients of a real server on loopback."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from serve_cases import BODY, LONG, PROFILE, QUERY, TEXTS, ask, httpx, metric, served, until

cohere = pytest.importorskip("cohere", reason="the extra test is not installed")

from exp3rt_trt import EngineError, Item, RatingScale  # noqa: E402
from exp3rt_trt.pipeline.calibration import Calibration  # noqa: E402
from exp3rt_trt.profiles import ProfileStore  # noqa: E402
from exp3rt_trt.serve.app import make_app  # noqa: E402
from exp3rt_trt.serve.options import ServeOptions  # noqa: E402
from exp3rt_trt.serve.stored import StoredProfiles  # noqa: E402
from rank_cases import open_  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exp3rt_trt import Reranker

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(reranker: Reranker) -> Iterator[httpx.Client]:
    with served(reranker, ServeOptions(max_candidates=5, max_bytes=5000)) as made:
        yield made


def test_profile_answers_what_the_reranker_says(client: httpx.Client, reranker: Reranker) -> None:
    answer = client.post(PROFILE, json={**BODY, "top_k": 2}).json()
    assert answer["results"] == reranker.rank(BODY["user"], BODY["items"], top_k=2).to_dicts()
    assert answer["partial"] is False


def test_compatible_scores_are_the_scaled_rating(client: httpx.Client, reranker: Reranker) -> None:
    ratings = {int(r.item_id): r.expected_rating for r in reranker.rank(QUERY, TEXTS)}
    expected = {index: (rating - 1) / 4 for index, rating in ratings.items()}
    for path in ("/v1/rerank", "/v2/rerank"):
        answer = client.post(path, json={"model": "m", "query": QUERY, "documents": TEXTS}).json()
        assert {r["index"]: r["relevance_score"] for r in answer["results"]} == expected
    tei = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "truncate": False}).json()
    assert {r["index"]: r["score"] for r in tei} == expected
    raw = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "raw_scores": True}).json()
    assert {r["index"]: r["score"] for r in raw} == ratings


def test_documents_come_back_when_asked_for(client: httpx.Client) -> None:
    documents = [{"text": TEXTS[0], "url": "x"}, *TEXTS[1:]]
    body = {"query": QUERY, "documents": documents, "return_documents": True, "top_n": 2}
    results = client.post("/v1/rerank", json=body).json()["results"]
    assert [r["document"]["text"] for r in results] == [TEXTS[r["index"]] for r in results]
    tei = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "return_text": True}).json()
    assert [r["text"] for r in tei] == [TEXTS[r["index"]] for r in tei]


def test_the_cohere_client_gets_the_ranking(client: httpx.Client, reranker: Reranker) -> None:
    expected = [int(r.item_id) for r in reranker.rank(QUERY, TEXTS, top_k=2)]
    for kind in (cohere.Client, cohere.ClientV2):
        with httpx.Client() as connection:
            asked = kind("any", base_url=str(client.base_url), httpx_client=connection)
            answer = asked.rerank(model="m", query=QUERY, documents=TEXTS, top_n=2)
            with pytest.raises(cohere.UnprocessableEntityError, match=r"documents\[0\]"):
                asked.rerank(model="m", query=QUERY, documents=[" "])
        assert [r.index for r in answer.results] == expected


def test_scores_are_calibrated_where_the_engine_has_a_calibration(
    tiny_engine: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    import shutil

    path = shutil.copytree(tiny_engine("llama", "fp32"), tmp_path / "engine")
    calibration = Calibration.fit([1, 2, 3, 4, 5], [1, 1.25, 1.5, 1.75, 2], method="linear")
    with open_(path) as reranker:
        calibration.save(path, reranker.scale)
        ratings = {int(r.item_id): r.expected_rating for r in reranker.rank(QUERY, TEXTS)}
        (answer,) = ask(make_app(reranker, ServeOptions()), {"query": QUERY, "texts": TEXTS}, path="/rerank")
    expected = {index: (rating - 1) / 16 for index, rating in ratings.items() if rating is not None}
    assert {r["index"]: r["score"] for r in answer.json()} == pytest.approx(expected)
    with (
        open_(path, scale=RatingScale.one_to_ten()) as reranker,
        pytest.raises(EngineError, match="made for the scale 1, 2, 3, 4, 5, and"),
    ):
        make_app(reranker, ServeOptions())


def test_many_at_once_each_get_their_own_answer(client: httpx.Client, reranker: Reranker) -> None:
    def ask_one(number: int) -> tuple[object, object]:
        user, texts = f"Likes {number}.", [f"Film {number}.", "A war."]
        got = client.post("/rerank", json={"query": user, "texts": texts}).json()
        return [r["index"] for r in got], [int(r.item_id) for r in reranker.rank(user, texts)]

    with ThreadPoolExecutor(16) as pool:
        assert all(got == expected for got, expected in pool.map(ask_one, range(40)))


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/rerank", {"query": QUERY, "texts": ["x"] * 6}, 422, "texts"),
        ("/rerank", {"query": QUERY}, 422, "texts"),
        ("/rerank", {"query": "x" * 5000, "texts": []}, 413, "body"),
        ("/rerank", {"query": " ", "texts": TEXTS}, 422, "query"),
        ("/rerank", {"query": "\ud800", "texts": TEXTS}, 422, "query"),
        ("/rerank", {"query": QUERY, "texts": [1]}, 422, "texts[0]"),
        ("/rerank", {"query": QUERY, "texts": ["A war.", " "]}, 422, "texts[1]"),
        ("/v1/rerank", {"query": QUERY, "documents": [" "]}, 422, "documents[0]"),
        ("/v1/rerank", {"query": QUERY, "documents": [1]}, 422, "documents[0]"),
        ("/v2/rerank", {"query": "", "documents": TEXTS}, 422, "query"),
        (PROFILE, {**BODY, "user": {"profile": ""}}, 422, "user.profile"),
        (PROFILE, {**BODY, "user": {"profile": "\ud800"}}, 422, "user.profile"),
        (PROFILE, {**BODY, "user": {"profile": ""}, "stream": True}, 422, "user.profile"),
        (PROFILE, {**BODY, "user": {"profile": QUERY, "user_id": ""}}, 422, "user.user_id"),
        (PROFILE, {**BODY, "user": {"profile": QUERY, "user_id": 7}}, 422, "user.user_id"),
        (PROFILE, {**BODY, "items": [{"item_id": 7, "title": "A war."}]}, 422, "items[0].item_id"),
        (PROFILE, {**BODY, "top_k": 0}, 422, "top_k"),
        (PROFILE, {**BODY, "topk": 3}, 422, "topk"),
        (PROFILE, {**BODY, "mode": "adaptive"}, 422, "top_k"),
        (PROFILE, {**BODY, "user_id": "ann"}, 422, "body"),
        (PROFILE, {"user_id": "ann", "items": BODY["items"]}, 422, "user_id"),
        (PROFILE, {"user": BODY["user"], "item_ids": ["a"]}, 422, "item_ids"),
        (PROFILE, {"user": BODY["user"], "item_ids": ["a"] * 6}, 422, "item_ids"),
        (PROFILE, {**BODY, "mode": "adaptive", "top_k": 1, "stream": True}, 422, "mode"),
        ("/nowhere", {}, 404, None),
        ("/health", {}, 405, None),
    ],
)
def test_errors_have_one_shape(
    client: httpx.Client, path: str, body: object, status: int, field: str | None
) -> None:
    answer = client.post(path, content=json.dumps(body), headers=JSON)
    assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
    assert set(answer.json()) == {"error", "code", "field"}
    words = answer.json()["error"]
    assert "candidates[" not in words
    assert "profile" not in words or path == PROFILE
    if status == 422 and field is not None:
        assert words.startswith(field)
        assert words.count(field) == 1 or len(field) < 6


def test_a_document_is_named_once(client: httpx.Client) -> None:
    for path, field in (("/v1/rerank", "documents"), ("/v2/rerank", "documents"), ("/rerank", "texts")):
        for text, words in (
            ("", "the text is empty"),
            ("\ud800", "the text is not valid Unicode: surrogates not allowed at position 0"),
            ("x" * 3000, " tokens ("),
        ):
            body = json.dumps({"query": QUERY, field: ["A war.", text]})  # httpx would not send half a pair
            error = client.post(path, content=body, headers=JSON).json()["error"]
            assert error.startswith(f"{field}[1]: ")
            assert words in error
            assert not any(name in error for name in ("candidates", "item_id", "description"))


@pytest.mark.parametrize("stream", [False, True])
def test_items_are_named_as_the_request_has_them(client: httpx.Client, stream: bool) -> None:
    items = [{"item_id": "a", "title": "A war."}, {"item_id": "a", "title": "x"}, {"item_id": "b"}]
    answer = client.post(PROFILE, json={**BODY, "items": items, "stream": stream})
    lines = answer.text.splitlines()[:-1]
    found = [json.loads(line)["candidate"] for line in lines] if stream else answer.json()["results"]
    assert {each["error"] for each in found} == {
        None,
        "items[1].item_id 'a' is that of items[0] already",
        "items[2]: title, description and profile are all empty",
    }


def test_stored_items_are_named_by_their_place_among_the_ids(reranker: Reranker, tmp_path: Path) -> None:
    path = tmp_path / "profiles.sqlite"
    with closing(ProfileStore(path)) as made:
        made.add_items([Item("a", "A war."), Item("b", description="Long. " * 3000)])
    store = StoredProfiles(path)
    body = {"user": BODY["user"], "item_ids": ["gone", "a", "a", "b"]}
    (answer,) = ask(make_app(reranker, ServeOptions(), store), body)
    store.close()
    found = {each["status"]: each["error"] for each in answer.json()["results"]}
    assert found["invalid"] == "item_ids[0]: nothing is known of item 'gone'"
    assert found["duplicate"] == "item_ids[2] 'a' is that of item_ids[1] already"
    assert found["too_long"].startswith("item_ids[3] (item_id 'b'): ")


@pytest.mark.parametrize(("header", "status"), [(None, 415), ("text/plain", 415), ("application/json", 200)])
def test_a_body_must_be_declared_as_json(client: httpx.Client, header: str | None, status: int) -> None:
    headers = {} if header is None else {"Content-Type": header}
    content = json.dumps({"query": QUERY, "texts": TEXTS})
    answer = client.post("/rerank", content=content.encode(), headers=headers)
    assert answer.status_code == status
    if status == 415:
        assert answer.json()["field"] == "Content-Type"
        assert "application/json" in answer.json()["error"]


def test_what_is_no_json_is_told_with_its_place(client: httpx.Client) -> None:
    for content, status, words in (
        (b'{"query":', 422, "not valid JSON: Expecting value at character 9"),
        (b"\xff", 400, "parsing the body"),
    ):
        answer = client.post("/rerank", content=content, headers=JSON)
        assert (answer.status_code, answer.json()["field"]) == (status, "body")
        assert words in answer.json()["error"]


def test_a_key_is_needed_everywhere_but_for_health(reranker: Reranker) -> None:
    with served(reranker, ServeOptions(api_key="secret")) as client:
        for path in ("/health", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        for path in ("/openapi.json", "/docs", "/metrics", "/v2", "/nowhere"):
            assert client.get(path).status_code == 401
        assert client.post(PROFILE, json=BODY).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        assert client.post(PROFILE, json=BODY, headers=headers).status_code == 200


def test_tenants_share_no_prefix(client: httpx.Client, reranker: Reranker) -> None:
    def computed(tenant: str) -> int:
        before = reranker.stats().prompt_tokens_computed
        body = {**BODY, "user": {"profile": "Likes to be alone."}}
        answer = client.post(PROFILE, json=body, headers={"X-Tenant": tenant})
        assert answer.status_code == 200
        return reranker.stats().prompt_tokens_computed - before

    cold, warm, other = computed("ann"), computed("ann"), computed("bob")
    assert cold == other > warm


def test_a_deadline_that_passes_is_a_504(client: httpx.Client) -> None:
    items = [{"item_id": str(n), "description": f"{n} boats. " * 50} for n in range(5)]
    for stream in (False, True):
        body = {**BODY, "items": items, "deadline_ms": 1, "mode": "reason", "stream": stream}
        answer = client.post(PROFILE, json=body)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline")


def test_a_client_that_goes_away_frees_its_slot(reranker: Reranker) -> None:
    with served(reranker, ServeOptions()) as client:
        for stream in (False, True):
            before = reranker.stats().generated_tokens
            with pytest.raises(httpx.ReadTimeout):
                client.post(PROFILE, json={**LONG, "stream": stream}, timeout=0.05)
            until(lambda: metric(client.get("/metrics").text, "exp3rt_requests_running") == 0)
            written = reranker.stats().generated_tokens - before
            assert written < len(LONG["items"]) * reranker.max_reasoning_tokens
        assert client.post(PROFILE, json=BODY).status_code == 200
