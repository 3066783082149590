"""The OpenAPI document, and whether the server keeps to it whatever it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="the extra test is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="the extra test is not installed")

from exp3rt_trt.serve.app import make_app  # noqa: E402
from exp3rt_trt.serve.options import ServeOptions  # noqa: E402
from exp3rt_trt.serve.stored import StoredProfiles  # noqa: E402
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import CHECKS, load_all_checks  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from exp3rt_trt import Reranker
    from fastapi import FastAPI

NAME = "student"
EXAMPLES = settings(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
load_all_checks()
# What is right in form can still be turned away with 422: a blank text, more candidates than the limit.
NOT_HELD = [CHECKS.get_one("positive_data_acceptance")]


@pytest.fixture
def app(
    reranker: Reranker, tmp_path: Path
) -> Iterator[FastAPI]:  # of each test: it serves from one event loop
    store = StoredProfiles(tmp_path / "profiles.sqlite")
    yield make_app(reranker, ServeOptions(model_name=NAME, max_candidates=5, max_bytes=20_000), store)
    store.close()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_server_keeps_to_its_document(app: FastAPI, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    if (
        mode is GenerationMode.NEGATIVE
    ):  # nothing is wrong in a path, and one of two routes of infer is enough
        schema = schema.include(method="POST").exclude(path_regex="versions")
    statuses = set()
    for found in schema.get_all_operations():

        @EXAMPLES
        @given(case=found.ok().as_strategy(generation_mode=mode))
        def keeps(case: schemathesis.Case) -> None:
            _aim(case)
            answer = case.call()
            statuses.add(answer.status_code)
            case.validate_response(answer, excluded_checks=NOT_HELD)

        keeps()
    assert statuses >= ({200, 404, 422} if mode is GenerationMode.POSITIVE else {400, 422})
    assert max(statuses) < 500


def _aim(case: schemathesis.Case) -> None:
    """Gives a request to infer the names that the server knows, so that the rest of it is looked at too."""
    if case.method == "POST" and "name" in case.path_parameters:
        case.path_parameters.update(dict.fromkeys(case.path_parameters, "1"), name=NAME)
        tensors = case.body.get("inputs") if isinstance(case.body, dict) else None
        for name, tensor in zip(
            ("query", "documents"), tensors if isinstance(tensors, list) else (), strict=False
        ):
            if isinstance(tensor, dict):
                tensor.update(name=name, datatype="BYTES")


def test_references_and_examples_of_the_document_hold(app: FastAPI) -> None:
    with testclient.TestClient(app) as client:
        document = client.get("/openapi.json").json()
        schemas = document["components"]["schemas"]
        for reference in _references(document):
            assert reference.removeprefix("#/components/schemas/") in schemas
        posts = {path: each["post"] for path, each in document["paths"].items() if "post" in each}
        assert len(posts) == 6
        for path, operation in posts.items():
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
            (example,) = schema["examples"]
            answer = client.post(path.format(name=NAME, version="1"), json=example)
            assert answer.status_code == 200, answer.text


def test_the_document_says_that_ids_are_strings(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    for name, fields in {
        "UserBody": ["user_id"],
        "ItemBody": ["item_id"],
        "ProfileRequest": ["user_id", "item_ids"],
    }.items():
        for field in fields:
            assert schemas[name]["properties"][field]["description"].startswith("A string")


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    for each in part if isinstance(part, list) else ():
        yield from _references(each)
