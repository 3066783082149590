"""What an actor of Ray Data does: rows of users in, rows with rankings out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from exp3rt_trt.errors import EngineError, InvalidInputError
from exp3rt_trt.reranker import Reranker

if TYPE_CHECKING:
    from exp3rt_trt.prompts import RankingMode

NEEDED = ("user", "candidates")


class BlockRanker:
    """An actor with an engine, for `Dataset.map_batches`; see `ray_data.rank_dataset`."""

    def __init__(self, engine: str, options: dict[str, Any]) -> None:
        self._reranker = Reranker.from_pretrained(engine, **options)

    def __call__(self, rows: pa.Table, *, mode: RankingMode, top_k: int | None) -> pa.Table:
        """Rank the users of a block together.

        Raises:
            InvalidInputError: if a column is missing, or an option cannot be used.
            EngineError: if the executor failed.
        """
        for name in NEEDED:
            if name not in rows.column_names:
                raise InvalidInputError(f"the dataset has no column {name!r}, only {rows.column_names}")
        jobs = list(zip(*(rows[name].to_pylist() for name in NEEDED), strict=True))
        ranked = list(self._reranker.rank_many(jobs, mode=mode, top_k=top_k))
        for each in ranked:
            if isinstance(each.error, EngineError):
                raise each.error
        rankings = [each.to_dicts() if each.error is None else None for each in ranked]
        errors = [None if each.error is None else str(each.error) for each in ranked]
        table = rows.drop_columns(list(NEEDED))
        table = table.append_column("ranking", pa.array(rankings, _ranking_type(rows["candidates"].type)))
        return table.append_column("error", pa.array(errors, pa.string()))


def _ranking_type(candidates: pa.DataType) -> pa.DataType:
    """Return the type of a ranking; item ids are of the candidates' own type, since Arrow cannot mix them."""
    item = getattr(candidates, "value_type", pa.string())
    known = pa.types.is_struct(item) and item.get_field_index("item_id") >= 0
    item_id = item.field("item_id").type if known else pa.string()
    fields = {"rank": pa.int64(), "item_id": item_id, "title": pa.string(), "expected_rating": pa.float64()}
    fields |= {"probabilities": pa.list_(pa.float64())}
    return pa.list_(pa.struct(fields | dict.fromkeys(("reasoning", "status", "error"), pa.string())))
