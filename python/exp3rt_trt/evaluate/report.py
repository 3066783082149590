"""The record of an evaluation, as JSON: `report.schema.json` says what it looks like."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import exp3rt_trt
from exp3rt_trt.engines.manifest import MANIFEST, WEIGHTS
from exp3rt_trt.engines.weights_file import sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exp3rt_trt.engines.engine import Engine
    from exp3rt_trt.evaluate.data import Source
    from exp3rt_trt.evaluate.explanations.measure import ExplanationTable, Judged
    from exp3rt_trt.evaluate.ranking import RankingTable
    from exp3rt_trt.evaluate.ratings import RatingTable

SCHEMA = "exp3rt-trt/evaluation"
VERSION = 1
SAMPLE = 10  # explanations that are written out


@dataclass(frozen=True)
class EngineIdentity:
    """Which engine was measured; the manifest holds the sha256 of all of its files, so its own names them."""

    path: str
    model: str
    dtype: str
    manifest_sha256: str
    weights_sha256: str

    @classmethod
    def of(cls, engine: Engine) -> EngineIdentity:
        """Read it from an opened engine."""
        manifest = engine.manifest
        return cls(
            str(engine.path),
            manifest.source.model,
            manifest.dtype,
            sha256_of(engine.path / MANIFEST),
            manifest.files[WEIGHTS].sha256,
        )


@dataclass(frozen=True)
class Report:
    """All that was measured, and on what. The same inputs give the same report.

    Args:
        engine: None if no student was measured.
        sources: the files that were read.
        settings: options by name.
        coverage: how many users and items have texts.
        ratings: None if there are none.
        ranking: None if there are none.
        explanations: by the name of the method that wrote them.
    """

    engine: EngineIdentity | None
    sources: Sequence[Source]
    settings: Mapping[str, Any]
    coverage: Mapping[str, int] = field(default_factory=dict)
    ratings: RatingTable | None = None
    ranking: RankingTable | None = None
    explanations: Mapping[str, ExplanationTable] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values; what is not a finite number is null."""
        explanations = {name: _explanations(table) for name, table in self.explanations.items()}
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "explanations"}
        record: dict[str, Any] = _plain(
            {
                "schema": SCHEMA,
                "version": VERSION,
                "created_by": f"exp3rt_trt {exp3rt_trt.__version__}",
                **fields,
                "explanations": explanations,
            }
        )
        return record

    def to_json(self) -> str:
        """Return the record as JSON text, ending in a newline."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


def _explanations(table: ExplanationTable) -> dict[str, Any]:
    fields = {f.name: getattr(table, f.name) for f in dataclasses.fields(table) if f.name != "judged"}
    return {**fields, "sample": [_judged(each) for each in table.judged[:SAMPLE]]}


def _judged(judged: Judged) -> dict[str, Any]:
    row = judged.explained.row
    return {
        "user_id": row.user_id,
        "item_id": row.item.item_id,
        "rating": row.rating,
        "expected_rating": judged.explained.rating,
        "reasoning": judged.explained.reasoning,
        "grounding": judged.grounding,
        "coverage": judged.coverage,
        "agreement": judged.agreement,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401  (JSON)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
