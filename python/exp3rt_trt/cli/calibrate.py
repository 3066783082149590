"""`exp3rt-trt calibrate`: held-out ratings in, a calibration beside the engine out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import typer

from exp3rt_trt.evaluate.predictors import student
from exp3rt_trt.evaluate.rows import read_ratings
from exp3rt_trt.pipeline.calibration import Calibration
from exp3rt_trt.rating import RatingScale
from exp3rt_trt.reranker import Reranker

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.pipeline.calibration import Method


def calibrate_command(engine: Path, path: Path, method: Method, highest: int, threads: int) -> None:
    """Score every row, fit, and save; a faulty row is named on standard error, and the others are used.

    Raises:
        InvalidInputError: if the file cannot be read, or its rows cannot be fitted.
        typer.Exit: with code 1 if a row was left out.
    """
    scale = RatingScale.one_to_five() if highest == 5 else RatingScale.one_to_ten()
    file = read_ratings(str(path), scale)
    with Reranker.from_pretrained(engine, scale=scale, threads=threads) as reranker:
        made = student(reranker, "score")(file.rows)
    faults = [*file.faults, *(failure.words for failure in made.failures.values())]
    for fault in faults:
        typer.echo(fault, err=True)
    actual = np.array([row.rating for row in file.rows])
    calibration = Calibration.fit(made.ratings[made.rated], actual[made.rated], method=method)
    saved = calibration.save(engine)
    typer.echo(
        f"{saved}: {method}, {calibration.num_rows} rows; expected calibration error "
        f"{calibration.error_before:.3f} before, {calibration.error:.3f} after (cross-validated)"
    )
    if faults:
        raise typer.Exit(1)
