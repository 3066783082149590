"""The KServe v2 protocol with the binary extension, as Triton's clients speak it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError

from exp3rt_trt.serve.faults import RESPONSES, Fault
from exp3rt_trt.serve.kserve_tensors import HEADER_LENGTH, answer_bytes, read_request, strings
from exp3rt_trt.serve.ranking import Work
from exp3rt_trt.serve.schemas import InferAnswer, InferRequest
from exp3rt_trt.serve.scores import rated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exp3rt_trt.results import RankedResults
    from exp3rt_trt.serve.ranking import Ranking
    from exp3rt_trt.serve.scores import Scorer

VERSION = "1"
DOCUMENTS = "inputs.documents"  # what errors call them
INPUTS = [
    {"name": "query", "datatype": "BYTES", "shape": [1]},
    {"name": "documents", "datatype": "BYTES", "shape": [-1]},
]


def _inlined(part: object, definitions: dict[str, Any]) -> object:
    """Return a JSON schema with its definitions in their places, so that it can stand inside a document."""
    if isinstance(part, list):
        return [_inlined(each, definitions) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in part.items() if key != "$defs"}


_SCHEMA = InferRequest.model_json_schema()
_BODY = {
    "requestBody": {
        "content": {"application/json": {"schema": _inlined(_SCHEMA, _SCHEMA["$defs"])}},
        "required": True,
    }
}


def routes(ranking: Ranking, scorer: Scorer, model_name: str) -> APIRouter:
    """Return the routes below /v2 but those of health."""
    router = APIRouter(prefix="/v2", responses={404: RESPONSES[404]})
    labels = len(ranking.reranker.scale.values)

    def check(name: str, version: str = VERSION) -> None:
        if (name, version) != (model_name, VERSION):
            words = (
                f"model {name!r}, version {version!r}: this server has {model_name!r}, version {VERSION!r}"
            )
            raise Fault(404, "not_found", words, "model_name")

    @router.get("")
    async def server() -> dict[str, Any]:
        return {"name": "exp3rt_trt", "version": VERSION, "extensions": ["binary_tensor_data"]}

    @router.get("/models/{name}")
    @router.get("/models/{name}/versions/{version}")
    async def model(name: str, version: str = VERSION) -> dict[str, Any]:
        check(name, version)
        shapes = {"scores": [-1], "expected_ratings": [-1], "probabilities": [-1, labels]}
        outputs = [{"name": key, "datatype": "FP32", "shape": shape} for key, shape in shapes.items()]
        platform = "exp3rt_trt"
        return {
            "name": model_name,
            "versions": [VERSION],
            "platform": platform,
            "inputs": INPUTS,
            "outputs": outputs,
        }

    @router.get("/models/{name}/ready")
    @router.get("/models/{name}/versions/{version}/ready")
    async def ready(name: str, version: str = VERSION) -> dict[str, Any]:
        check(name, version)
        return {"name": model_name, "ready": True}

    async def infer(name: str, request: Request, version: str = VERSION) -> Response:
        check(name, version)
        asked, texts = await _read(request)
        ranked = await ranking.rank(request, _work(asked, texts))
        outputs = _outputs(ranked, scorer, labels)
        header = {"model_name": model_name, "model_version": VERSION, "id": asked.id}
        return _answer(header, outputs, asked)

    for path in ("/models/{name}/infer", "/models/{name}/versions/{version}/infer"):
        router.post(
            path,
            operation_id="infer" if "version" not in path else "infer_version",
            response_model=InferAnswer,
            responses=RESPONSES,
            openapi_extra=_BODY,
        )(infer)
    return router


async def _read(request: Request) -> tuple[InferRequest, dict[str, list[str]]]:
    try:
        asked, binary = read_request(await request.body(), request.headers.get(HEADER_LENGTH))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    return asked, strings(asked.inputs, binary)


def _work(asked: InferRequest, texts: dict[str, list[str]]) -> Work:
    for name in ("query", "documents"):
        if name not in texts:
            raise Fault(422, "invalid", f"inputs: {name!r} is missing", "inputs")
    if len(texts["query"]) != 1:
        raise Fault(422, "invalid", f"inputs.query has {len(texts['query'])} texts, not one", "inputs.query")
    timeout_us = asked.parameters.get("timeout")
    deadline_ms = max(1, int(timeout_us) // 1000) if isinstance(timeout_us, int) and timeout_us > 0 else None
    return Work(
        texts["query"][0],
        texts["documents"],
        DOCUMENTS,
        deadline_ms=deadline_ms,
        user_field="inputs.query",
    )


def _outputs(ranked: RankedResults, scorer: Scorer, labels: int) -> dict[str, NDArray[np.float32]]:
    """Return the outputs in the order of the documents."""
    found = rated(ranked, DOCUMENTS)
    ratings = np.zeros(len(found), np.float32)
    scores = np.zeros(len(found), np.float32)
    probabilities = np.zeros((len(found), labels), np.float32)
    for (index, rating), item in zip(found, ranked, strict=True):
        ratings[index], scores[index] = rating, scorer.score(rating)
        probabilities[index] = item.probabilities
    return {"scores": scores, "expected_ratings": ratings, "probabilities": probabilities}


def _answer(header: dict[str, Any], outputs: dict[str, NDArray[np.float32]], asked: InferRequest) -> Response:
    by_default = bool(asked.parameters.get("binary_data_output", False))
    wanted = dict.fromkeys(outputs, by_default)
    if asked.outputs is not None:
        wanted = {each.name: bool(each.parameters.get("binary_data", by_default)) for each in asked.outputs}
    for name in wanted:
        if name not in outputs:
            raise Fault(422, "invalid", f"outputs: {name!r} is none of {', '.join(outputs)}", "outputs")
    content, header_length = answer_bytes(header, {name: outputs[name] for name in wanted}, wanted)
    if header_length == len(content):
        return Response(content, media_type="application/json")
    headers = {HEADER_LENGTH: str(header_length)}
    return Response(content, headers=headers, media_type="application/octet-stream")
