"""Bodies of requests."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class UserBody(BaseModel):
    """A user's taste in words."""

    profile: str
    user_id: str | None = None
    average_rating: float | None = Field(None, allow_inf_nan=False)


class ItemBody(BaseModel):
    """A candidate."""

    item_id: str
    title: str | None = None
    description: str | None = None
    profile: str | None = None


class ProfileRequest(BaseModel):
    """Body of /v1/rerank/profile."""

    user: UserBody
    items: list[ItemBody]
    top_k: int | None = Field(None, ge=1)
    mode: Literal["score", "reason", "adaptive"] = "score"
    deadline_ms: int | None = Field(None, ge=1, le=3_600_000)


class RerankRequest(BaseModel):
    """Body of /v1/rerank and /v2/rerank; `model` is read by nobody, since a server has one."""

    model: str | None = None
    query: str
    documents: list[str]
    top_n: int | None = Field(None, ge=1)


class TeiRequest(BaseModel):
    """Body of /rerank."""

    query: str
    texts: list[str]
