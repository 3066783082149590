"""Of tensorrt_llm.llmapi, what the worker uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(kw_only=True)
class KvCacheConfig:
    enable_block_reuse: bool
    free_gpu_memory_fraction: float
    tokens_per_block: int
    dtype: str


@dataclass
class TokenRangeRetentionConfig:
    start: int
    end: int | None
    priority: int
    duration_ms: float | None


@dataclass
class KvCacheRetentionConfig:
    token_range_retention_configs: list[TokenRangeRetentionConfig]
    decode_retention_priority: int
    decode_duration_ms: float | None
    TokenRangeRetentionConfig: ClassVar = TokenRangeRetentionConfig
