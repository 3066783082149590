"""The KServe v2 routes, asked by Triton's client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exp3rt_trt.serve.options import ServeOptions
from serve_cases import LONG, QUERY, TEXTS, httpx, served

triton = pytest.importorskip("tritonclient.http", reason="the extra test is not installed")
from tritonclient.utils import InferenceServerException  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exp3rt_trt import Reranker

NAME = "student"


@pytest.fixture(scope="module")
def http(reranker: Reranker) -> Iterator[httpx.Client]:
    with served(reranker, ServeOptions(model_name=NAME)) as made:
        yield made


@pytest.fixture(scope="module")
def client(http: httpx.Client) -> Iterator[Any]:
    with triton.InferenceServerClient(f"{http.base_url.host}:{http.base_url.port}") as made:
        yield made


def _inputs(query: list[str], documents: list[str], *, binary: bool = True) -> list[Any]:
    inputs = []
    for name, texts in (("query", query), ("documents", documents)):
        tensor = triton.InferInput(name, [len(texts)], "BYTES")
        tensor.set_data_from_numpy(np.array([text.encode() for text in texts], object), binary_data=binary)
        inputs.append(tensor)
    return inputs


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_infer_gives_scores_in_the_order_of_the_documents(
    client: Any, reranker: Reranker, binary_in: bool, binary_out: bool
) -> None:
    names = ("scores", "expected_ratings", "probabilities")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    inputs = _inputs([QUERY], [*TEXTS, "Ümläute."], binary=binary_in)
    answer = client.infer(NAME, inputs, outputs=outputs, request_id="7")
    ranked = sorted(reranker.rank(QUERY, [*TEXTS, "Ümläute."]), key=lambda r: str(r.item_id))
    ratings = np.array([r.expected_rating for r in ranked], np.float32)
    np.testing.assert_array_equal(answer.as_numpy("expected_ratings"), ratings)
    np.testing.assert_allclose(answer.as_numpy("scores"), (ratings - 1) / 4, rtol=1e-6)
    probabilities = np.stack([r.probabilities for r in ranked]).astype(np.float32)
    np.testing.assert_array_equal(answer.as_numpy("probabilities").reshape(4, 5), probabilities)
    assert answer.get_response()["id"] == "7"


def test_all_outputs_come_if_none_is_named(client: Any) -> None:
    answer = client.infer(NAME, _inputs([QUERY], TEXTS), model_version="1")
    assert answer.as_numpy("scores").shape == (3,)
    assert answer.as_numpy("probabilities").shape == (3, 5)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert not client.is_model_ready("another")
    assert client.get_server_metadata()["name"] == "exp3rt_trt"
    metadata = client.get_model_metadata(NAME)
    assert {each["name"]: each["shape"] for each in metadata["outputs"]} == {
        "scores": [-1],
        "expected_ratings": [-1],
        "probabilities": [-1, 5],
    }


def test_errors_reach_the_client_in_words(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"\[422\] inputs.documents\[1\]: the text is empty"):
        client.infer(NAME, _inputs([QUERY], ["A war.", " "]))
    with pytest.raises(InferenceServerException, match=r"\[422\] inputs.query is empty"):
        client.infer(NAME, _inputs([" "], TEXTS))
    with pytest.raises(InferenceServerException, match=r"\[422\] inputs.query has 2 texts"):
        client.infer(NAME, _inputs([QUERY, QUERY], TEXTS))
    with pytest.raises(InferenceServerException, match=r"\[422\] inputs: 'documents' is missing"):
        client.infer(NAME, _inputs([QUERY], TEXTS)[:1])
    with pytest.raises(InferenceServerException, match=r"\[404\] model 'another'"):
        client.infer("another", _inputs([QUERY], TEXTS))
    wanted = [triton.InferRequestedOutput("logits")]
    with pytest.raises(InferenceServerException, match="'logits' is none of scores"):
        client.infer(NAME, _inputs([QUERY], TEXTS), outputs=wanted)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (
            {"inputs": [{"name": "query", "shape": [1], "datatype": "BYTES", "data": [None]}]},
            "inputs[0].data[0]",
        ),
        ({"inputs": [{"name": "query", "shape": [-1], "datatype": "BYTES"}]}, "inputs[0].shape[0]"),
        ({}, "inputs"),
        ("", "body"),
        ([], "body"),
    ],
)
def test_faulty_json_is_named(http: httpx.Client, body: Any, field: str) -> None:
    answer = http.post(f"/v2/models/{NAME}/infer", **({"json": body} if body != "" else {"content": b"{"}))
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert answer.json()["error"].startswith(f"{field}: ")


def test_a_timeout_is_a_deadline(client: Any) -> None:
    documents = [item["description"] for item in LONG["items"]]
    with pytest.raises(InferenceServerException, match=r"\[504\]"):
        client.infer(NAME, _inputs([QUERY], documents), timeout=1000)


TENSOR = {"name": "query", "shape": [1], "datatype": "BYTES", "data": ["x"]}


@pytest.mark.parametrize(
    ("tensor", "behind", "words"),
    [
        ({"datatype": "FP32"}, b"", "datatype is 'FP32'"),
        ({"data": [1.5]}, b"", "data must be strings"),
        ({"shape": [2]}, b"", r"shape [2], but 1 texts"),
        ({"parameters": {"binary_data_size": 9}}, b"\x01", "binary_data_size is 9, 1 are left"),
        ({"parameters": {"binary_data_size": 3}}, b"\x01\x00\x00", "3 bytes are too few"),
        ({"parameters": {"binary_data_size": 5}}, b"\x09\x00\x00\x00x", "a text of 9 bytes, 1 are left"),
        ({"parameters": {"binary_data_size": 5}}, b"\x01\x00\x00\x00\xff", "not UTF-8"),
    ],
)
def test_faulty_tensors_are_named(
    http: httpx.Client, tensor: dict[str, Any], behind: bytes, words: str
) -> None:
    import json

    text = json.dumps({"inputs": [{**TENSOR, **tensor}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = http.post(f"/v2/models/{NAME}/infer", content=text + behind, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["field"] == "inputs.query"
    assert words in answer.json()["error"]


def test_a_header_length_that_is_none(http: httpx.Client) -> None:
    for length in ("x", "-1", "999"):
        headers = {"Inference-Header-Content-Length": length}
        answer = http.post(f"/v2/models/{NAME}/infer", content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["field"]) == (422, "Inference-Header-Content-Length")
