"""What an actor of Ray Data makes of a block of rows; Ray itself is not needed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from exp3rt_trt.errors import EngineError, InvalidInputError
from rank_cases import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exp3rt_trt import Reranker

pa = pytest.importorskip("pyarrow", reason="needs the extra [ray]")


@pytest.fixture(scope="module")
def rank(engine: Path) -> Callable[..., list[dict[str, Any]]]:
    from exp3rt_trt.integrations.ray_blocks import BlockRanker

    ranker = BlockRanker(str(engine), OPTIONS)
    return lambda rows: ranker(pa.Table.from_pylist(rows), mode="score", top_k=None).to_pylist()


@pytest.mark.parametrize("candidates", [["A war.", "A ship."], [{"title": "A war"}], []])
def test_any_shape_of_candidates(
    rank: Callable[..., list[dict[str, Any]]], reranker: Reranker, candidates: list[Any]
) -> None:
    (row,) = rank([{"user": "Likes ships.", "candidates": candidates, "n": 7}])
    want = reranker.rank("Likes ships.", candidates).to_dicts()
    assert row == {"n": 7, "ranking": want, "error": None}


def test_a_missing_column_is_named(rank: Callable[..., list[dict[str, Any]]]) -> None:
    with pytest.raises(InvalidInputError, match="no column 'candidates', only \\['user', 'items'\\]"):
        rank([{"user": "Likes ships.", "items": ["A war."]}])


def test_a_failed_engine_is_no_row_s_error(engine: Path) -> None:
    from exp3rt_trt.integrations.ray_blocks import BlockRanker

    ranker = BlockRanker(str(engine), OPTIONS)
    ranker._reranker.close()
    with pytest.raises(EngineError, match="closed"):
        ranker(pa.table({"user": ["Likes ships."], "candidates": [["A war."]]}), mode="score", top_k=None)
