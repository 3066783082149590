"""Scores between 0 and 1, for shapes that have nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exp3rt_trt.pipeline.calibration import Calibration
from exp3rt_trt.serve.faults import Fault

if TYPE_CHECKING:
    from exp3rt_trt.reranker import Reranker
    from exp3rt_trt.results import RankedResults


class Scorer:
    """Makes scores of expected ratings: calibrated if the engine has a calibration, then scaled.

    Args:
        reranker: gives the scale, and the engine beside which the calibration lies.

    Raises:
        EngineError: if the calibration is damaged, or was made for another engine or scale.
    """

    def __init__(self, reranker: Reranker) -> None:
        self._calibration = Calibration.load(reranker.engine.path, reranker.scale)
        self._lowest, self._highest = reranker.scale.values[0], reranker.scale.values[-1]

    def rating(self, expected: float) -> float:
        """Return the calibrated rating."""
        return expected if self._calibration is None else float(self._calibration.apply(expected))

    def score(self, expected: float) -> float:
        """Return the calibrated rating on 0 for the scale's lowest to 1 for its highest."""
        share = (self.rating(expected) - self._lowest) / (self._highest - self._lowest)
        return min(max(share, 0.0), 1.0)


def rated(ranked: RankedResults, field: str) -> list[tuple[int, float]]:
    """Return each candidate's place in the request and its expected rating, best first.

    Raises:
        Fault: 422 naming a candidate without a rating, since these shapes have no place for it.
    """
    found = []
    for item in ranked:
        if item.expected_rating is None:
            place = f"{field}[{item.item_id}]"
            status = 504 if item.status == "expired" else 422
            raise Fault(status, item.status, f"{place}: {item.error}", place)
        found.append((int(str(item.item_id)), item.expected_rating))
    return found
