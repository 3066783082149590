"""`exp3rt-trt calibrate`: held-out ratings in, a calibration beside the engine out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from exp3rt_trt.errors import Exp3rtError, InvalidInputError
from exp3rt_trt.jsonl import read_lines
from exp3rt_trt.pipeline.calibration import Calibration
from exp3rt_trt.rating import RatingScale
from exp3rt_trt.reranker import Reranker

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.jsonl import Line
    from exp3rt_trt.pipeline.calibration import Method
    from exp3rt_trt.results import RankedResults


def calibrate_command(engine: Path, path: Path, method: Method, highest: int, threads: int) -> None:
    """Score every row, fit, and save; a faulty row is named on standard error, and the others are used.

    Raises:
        InvalidInputError: if the file cannot be read, or its rows cannot be fitted.
        typer.Exit: with code 1 if a row was left out.
    """
    scale = RatingScale.one_to_five() if highest == 5 else RatingScale.one_to_ten()
    rows: list[tuple[Line, float]] = []
    faults = 0
    for line in read_lines(str(path)):
        try:
            rows.append((line, _rating(line, scale)))
        except InvalidInputError as error:  # noqa: PERF203  (a row costs far more)
            faults += _tell(line, error)
    expected, actual = [], []
    with Reranker.from_pretrained(engine, scale=scale, threads=threads) as reranker:
        jobs = [(line.value["user"], [line.value["item"]]) for line, _ in rows]
        for (line, rating), results in zip(rows, reranker.rank_many(jobs), strict=True):
            try:
                expected.append(_expected(results))
                actual.append(rating)
            except Exp3rtError as error:  # noqa: PERF203
                faults += _tell(line, error)
    made = Calibration.fit(expected, actual, method=method)
    saved = made.save(engine)
    typer.echo(
        f"{saved}: {method}, {made.num_rows} rows; expected calibration error "
        f"{made.error_before:.3f} before, {made.error:.3f} after (cross-validated)"
    )
    if faults:
        raise typer.Exit(1)


def _rating(line: Line, scale: RatingScale) -> float:
    if line.error is not None:
        raise line.error
    missing = [name for name in ("user", "item", "rating") if name not in line.value]
    if missing:
        raise InvalidInputError(f"{missing[0]!r} is missing")
    rating = line.value["rating"]
    low, high = scale.values[0], scale.values[-1]
    if isinstance(rating, bool) or not isinstance(rating, (int, float)) or not low <= rating <= high:
        raise InvalidInputError(f"rating must be a number from {low:g} to {high:g}, not {rating!r}")
    return float(rating)


def _expected(results: RankedResults) -> float:
    (item,) = results
    if item.expected_rating is None:
        raise InvalidInputError(item.error or item.status)
    return float(item.expected_rating)


def _tell(line: Line, error: Exp3rtError) -> int:
    typer.echo(f"{line.where}: {error}", err=True)
    return 1
