"""`exp3rt-trt calibrate`: held-out ratings in, a calibration beside the engine out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import typer

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.predictors import student
from exp3rt_trt.evaluate.rows import read_ratings
from exp3rt_trt.pipeline.calibration import Calibration
from exp3rt_trt.reranker import Reranker

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.pipeline.calibration import Method
    from exp3rt_trt.rating import RatingScale


def calibrate_command(
    engine: Path, path: Path, method: Method, scale: RatingScale, threads: int, *, force: bool = False
) -> None:
    """Score every row, fit, and save; a faulty row is named on standard error, and the others are used.

    Raises:
        InvalidInputError: if the file cannot be read, its rows cannot be fitted, or the calibration makes the
            error worse and is not forced.
        typer.Exit: with code 1 if a row was left out.
    """
    file = read_ratings(str(path), scale)
    with Reranker.from_pretrained(engine, scale=scale, threads=threads) as reranker:
        made = student(reranker, "score")(file.rows)
    faults = [*file.faults, *(failure.words for failure in made.failures.values())]
    for fault in faults:
        typer.echo(fault, err=True)
    actual = np.array([row.rating for row in file.rows])
    calibration = Calibration.fit(made.ratings[made.rated], actual[made.rated], method=method)
    found = (
        f"{method}, {calibration.num_rows} rows; expected calibration error "
        f"{calibration.error_before:.3f} before, {calibration.error:.3f} after (cross-validated)"
    )
    if calibration.error > calibration.error_before and not force:
        raise InvalidInputError(
            f"{engine}: calibration not saved, for it makes ratings worse: {found}; "
            "give more rows or another --method, or save it anyway with --force"
        )
    typer.echo(f"{calibration.save(engine, scale)}: {found}")
    if faults:
        raise typer.Exit(1)
