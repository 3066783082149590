"""What an expected rating means in real ratings, learnt on rows that the student has not seen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exp3rt_trt.errors import EngineError, InvalidInputError
from exp3rt_trt.extras import require

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from exp3rt_trt.rating import RatingScale

FILE = "calibration.json"
NUM_BINS = 10
Method = Literal["isotonic", "linear"]


@dataclass(frozen=True)
class Calibration:
    """A non-decreasing map from expected ratings to real ones, straight between its points and flat outside.

    Args:
        method: "isotonic" (Zadrozny and Elkan, 2002) or "linear", least squares.
        expected: of the points, strictly increasing, [num_points].
        actual: their calibrated ratings, not decreasing, [num_points].
        num_rows: how many rows it was fitted on.
        error_before: expected calibration error of the ratings as they are, in points of the scale.
        error: the same after calibration, on rows that each fit had not seen.

    Example:
        >>> fit = Calibration.fit([1.0, 2.0, 3.0, 4.0], [2.0, 2.5, 3.0, 3.5], method="linear")
        >>> fit.apply([2.0, 3.0]).round(2).tolist()
        [2.5, 3.0]
    """

    method: Method
    expected: tuple[float, ...]
    actual: tuple[float, ...]
    num_rows: int
    error_before: float
    error: float

    @classmethod
    def fit(cls, expected: ArrayLike, actual: ArrayLike, *, method: Method = "isotonic") -> Calibration:
        """Fit on held-out rows.

        Args:
            expected: expected ratings, [num_rows].
            actual: the users' own, [num_rows], on the same scale.
            method: "isotonic" follows any rising shape and wants hundreds of rows; "linear" wants tens.

        Returns:
            The calibration; its `error` is measured by cross-validation in five folds.

        Raises:
            InvalidInputError: if the rows do not fit together, are fewer than 4, or do not differ.
            Exp3rtError: if "isotonic" is asked for and scikit-learn is not installed.
        """
        x, y = _rows(expected, actual)
        if method not in ("isotonic", "linear"):
            raise InvalidInputError(f'method must be "isotonic" or "linear", not {method!r}')
        folds = np.random.default_rng(0).permutation(len(x)) % min(5, len(x))
        held_out = np.empty_like(x)
        for fold in np.unique(folds):
            known = folds != fold
            held_out[~known] = np.interp(x[~known], *_points(x[known], y[known], method))
        points = _points(x, y, method)
        before, after = calibration_error(x, y), calibration_error(held_out, y)
        return cls(method, tuple(points[0].tolist()), tuple(points[1].tolist()), len(x), before, after)

    def apply(self, expected: ArrayLike) -> NDArray[np.float64]:
        """Return calibrated ratings for expected ones, [...]."""
        x = np.asarray(expected, dtype=np.float64)
        return np.asarray(np.interp(x, self.expected, self.actual), dtype=np.float64)

    def save(self, engine_dir: str | os.PathLike[str], scale: RatingScale) -> Path:
        """Write it beside an engine, for that engine and scale alone.

        Args:
            engine_dir: where the engine is.
            scale: that the expected ratings were on.

        Returns:
            The file.

        Raises:
            EngineError: if there is no engine, or the file cannot be written.
        """
        path = Path(engine_dir) / FILE
        values = list(map(float, scale.values))
        content = {"engine": _engine_hash(path.parent), "scale": values, **asdict(self)}
        try:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise EngineError(f"{path}: cannot be written: {error.strerror}") from error
        return path

    @classmethod
    def load(cls, engine_dir: str | os.PathLike[str], scale: RatingScale) -> Calibration | None:
        """Read the calibration beside an engine; None if there is none.

        Args:
            engine_dir: where the engine is.
            scale: of the ratings that it shall calibrate.

        Raises:
            EngineError: if the file is damaged, or was made for another engine or scale.
        """
        path = Path(engine_dir) / FILE
        if not path.exists():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            engine, values = content.pop("engine"), tuple(map(float, content.pop("scale", ())))
            for name in ("expected", "actual"):
                content[name] = tuple(map(float, content[name]))
            made = cls(**content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineError(f"{path}: not a usable calibration: {error}; calibrate again") from error
        if engine != _engine_hash(path.parent):
            raise EngineError(f"{path}: made for another engine; run `exp3rt-trt calibrate` again")
        if values != scale.values:
            words = f"made for the scale {_listed(values)}" if values else "does not say its scale"
            raise EngineError(
                f"{path}: {words}, and the reranker's is {_listed(scale.values)}; "
                "run `exp3rt-trt calibrate` again, with that scale"
            )
        if len(made.expected) != len(made.actual) or np.any(np.diff(made.expected) <= 0) or not made.expected:
            raise EngineError(f"{path}: expected and actual do not make a map; calibrate again")
        return made


def calibration_error(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Return the expected calibration error of ratings.

    The rows are put in order of their prediction and cut into at most ten bins of equal size; the error is
    the mean over bins of |mean predicted - mean actual|, weighted by size: what Naeini et al. (2015) and Guo
    et al. (2017) define for probabilities, with ratings in their place and bins as in Nguyen and O'Connor
    (2015).

    Args:
        predicted: [num_rows].
        actual: [num_rows].

    Returns:
        The error in points of the scale.
    """
    p, a = np.asarray(predicted, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    bins = np.array_split(np.argsort(p, kind="stable"), min(NUM_BINS, len(p)))
    return float(sum(abs(p[rows].sum() - a[rows].sum()) for rows in bins) / len(p))


def _rows(expected: ArrayLike, actual: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise InvalidInputError(f"expected and actual must both be [num_rows], not {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidInputError("expected and actual must be finite")
    if len(x) < 4 or np.ptp(x) == 0:
        raise InvalidInputError(f"{len(x)} rows: it takes at least 4, with different expected ratings")
    return x, y


def _points(
    x: NDArray[np.float64], y: NDArray[np.float64], method: Method
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if np.ptp(x) == 0:  # of a fold
        return x[:1], y.mean(keepdims=True)
    if method == "linear":
        slope, offset = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        # A falling line would turn the ranking over: then the ratings say nothing, and get the mean.
        return ends, slope * ends + offset if slope > 0 else np.full(2, y.mean())
    model = require("sklearn.isotonic", "pipeline").IsotonicRegression(out_of_bounds="clip").fit(x, y)
    return model.X_thresholds_.astype(np.float64), model.y_thresholds_.astype(np.float64)


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _engine_hash(engine_dir: Path) -> str:
    """The manifest names the sha256 of every other file of the engine, so that its own stands for all."""
    from exp3rt_trt.engines.manifest import MANIFEST  # noqa: PLC0415  (calibrating in memory needs no engine)

    path = engine_dir / MANIFEST
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error.strerror}") from error
