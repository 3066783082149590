"""Bodies of requests and answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

_QUERY = "Likes: slow science fiction, dry humour."
_ID = "A string; an id that is a number is sent as its digits."
_TEXTS = ["Once a year one Tuesday happens twice.", "Five students find a ninth cellar. Horror."]


class UserBody(BaseModel):
    """A user's taste in words."""

    model_config = ConfigDict(extra="forbid")
    profile: str
    user_id: str | None = Field(None, description=_ID)
    average_rating: float | None = Field(None, allow_inf_nan=False)


class ItemBody(BaseModel):
    """A candidate."""

    model_config = ConfigDict(extra="forbid")
    item_id: str = Field(description=_ID)
    title: str | None = None
    description: str | None = None
    profile: str | None = None


class ProfileRequest(BaseModel):
    """Body of /v1/rerank/profile: a user or the id of a stored one, items or the ids of stored ones."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "user": {"profile": _QUERY},
                    "items": [
                        {"item_id": "tuesday", "title": "The Second Tuesday", "description": _TEXTS[0]}
                    ],
                    "top_k": 10,
                }
            ]
        },
    )
    user: UserBody | None = None
    user_id: str | None = Field(None, description=_ID)
    items: list[ItemBody] | None = None
    item_ids: list[str] | None = Field(None, description=_ID)
    top_k: int | None = Field(None, ge=1, le=1_000_000)
    mode: Literal["score", "reason", "adaptive"] = "score"
    deadline_ms: int | None = Field(None, ge=1, le=3_600_000)
    stream: bool = False

    @model_validator(mode="after")
    def _check_alternatives(self) -> Self:
        for one, other in (("user", "user_id"), ("items", "item_ids")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise ValueError(f"exactly one of {one} and {other} is needed")
        return self


class Candidate(BaseModel):
    """What became of a candidate; see `RankedItem`."""

    rank: int | None
    item_id: str | int | None
    title: str | None
    expected_rating: float | None
    probabilities: list[float] | None
    reasoning: str | None
    status: str
    error: str | None


class Timings(BaseModel):
    """Seconds in queue, and from the first computed token to the last result."""

    queue_s: float
    compute_s: float


class ProfileAnswer(BaseModel):
    """Answer of /v1/rerank/profile; partial if the deadline passed before all were finished."""

    user_id: str | int | None
    results: list[Candidate]
    partial: bool
    timings: Timings


class TextDocument(BaseModel):
    """A document as an object, whose other fields are not read."""

    text: str


class RerankRequest(BaseModel):
    """Body of /v1/rerank and /v2/rerank, as Cohere, Jina and vLLM have it; other fields are not read.

    A server has one model, whatever `model` says.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": _QUERY, "documents": [*_TEXTS]}]})
    model: str | None = None
    query: str
    documents: list[str | TextDocument]
    top_n: int | None = Field(None, ge=1, le=1_000_000)
    return_documents: bool = False

    def texts(self) -> list[str]:
        """Return the documents' texts."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


class RerankResult(BaseModel):
    """A document's score, 0 to 1; the document if it was asked for."""

    index: int
    relevance_score: float
    document: TextDocument | None = None


class RerankAnswer(BaseModel):
    """Answer of /v1/rerank and /v2/rerank."""

    id: str
    model: str
    results: list[RerankResult]


class TeiRequest(BaseModel):
    """Body of /rerank, as text-embeddings-inference has it; other fields are not read."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": _QUERY, "texts": [*_TEXTS]}]})
    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False


class TeiResult(BaseModel):
    """A text's score; the text if it was asked for."""

    index: int
    score: float
    text: str | None = None


class Tensor(BaseModel):
    """A tensor of the KServe v2 protocol; its data follow the JSON if the parameters give their size."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=8)]
    datatype: str
    parameters: dict[str, bool | int | float | str] = {}
    data: list[str] | list[float] | list[list[str]] | None = None


class OutputRequest(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, bool | int | float | str] = {}


class InferRequest(BaseModel):
    """Body of /v2/models/NAME/infer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": [
                        {"name": "query", "shape": [1], "datatype": "BYTES", "data": [_QUERY]},
                        {"name": "documents", "shape": [2], "datatype": "BYTES", "data": [*_TEXTS]},
                    ]
                }
            ]
        }
    )
    id: str | None = None
    parameters: dict[str, bool | int | float | str] = {}
    inputs: list[Tensor]
    outputs: list[OutputRequest] | None = None


class InferAnswer(BaseModel):
    """Answer of /v2/models/NAME/infer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]
