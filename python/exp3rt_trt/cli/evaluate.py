"""`exp3rt-trt evaluate`: a student beside baselines."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

from exp3rt_trt.cli.display import console, progress_bar
from exp3rt_trt.cli.evaluate_rankings import Rankings
from exp3rt_trt.cli.evaluate_tables import tables
from exp3rt_trt.cli.options import keep_inputs, scale_for
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.ablation import without
from exp3rt_trt.evaluate.bootstrap import Bootstrap
from exp3rt_trt.evaluate.collaborative import collaborative_rating, fit_als
from exp3rt_trt.evaluate.data import EvaluationData, read_data
from exp3rt_trt.evaluate.explanations.measure import Explained, ExplanationTable, measure_explanations
from exp3rt_trt.evaluate.picture import draw
from exp3rt_trt.evaluate.predictors import (
    Predictions,
    Predictor,
    calibrated,
    global_mean,
    has_averages,
    student,
    user_item_bias,
)
from exp3rt_trt.evaluate.ratings import measure_ratings
from exp3rt_trt.evaluate.report import EngineIdentity, Report
from exp3rt_trt.extras import require
from exp3rt_trt.reranker import Reranker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.progress import Progress

    from exp3rt_trt.cli.evaluate_options import EvaluateOptions
    from exp3rt_trt.evaluate.ranking import RankingTable
    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.prompts import Mode

GLOBAL_MEAN, BIAS, CF = "global mean", "user + item bias", "CF alone (ALS)"


def evaluate_command(options: EvaluateOptions, json: Path | None, plot: Path | None) -> None:
    """Measure a student and baselines; print tables, and write a record and a picture.

    Raises:
        InvalidInputError: naming the file or option that cannot be used.
        EngineError: if the engine cannot be opened.
    """
    for package in ("scipy", "ir_measures", "snowballstemmer", "matplotlib"):
        require(package, "evaluate")  # rather now than when all is computed
    options.check()
    for path in (json, plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise InvalidInputError(f"{path}: the folder does not exist")
    if plot is not None and plot.suffix.lower() != ".svg":
        raise InvalidInputError(f"--plot {plot}: the picture is written as SVG alone; end the name in .svg")
    keep_inputs({"--json": json, "--plot": plot}, options.inputs())
    scale = scale_for(options.engine, options.scale)
    data = read_data(
        options.ratings,
        options.fit,
        scale,
        interactions=options.interactions,
        texts=options.texts,
        limit=options.limit,
        seed=options.seed,
    )
    for fault in (fault for source in data.sources for fault in source.faults):
        typer.echo(fault, err=True)
    with (
        Reranker.from_pretrained(
            options.engine,
            scale=scale,
            threads=options.threads,
            max_reasoning_tokens=options.max_reasoning_tokens,
        ) as reranker,
        progress_bar("users") as bar,
    ):
        report = _Evaluation(options, data, reranker, bar).report()
    console().print(*tables(report), sep="\n")
    try:
        if json is not None:
            json.write_text(report.to_json(), encoding="utf-8")
        if plot is not None:
            draw(report, plot)
    except OSError as error:
        raise InvalidInputError(f"{error.filename}: cannot be written: {error.strerror}") from error


class _Evaluation:
    """The methods that the options name, and what they reach."""

    def __init__(
        self, options: EvaluateOptions, data: EvaluationData, reranker: Reranker, bar: Progress
    ) -> None:
        self._options = options
        self._data = data
        self._reranker = reranker
        self._bar = bar
        self._bootstrap = Bootstrap(options.seed)
        self._stage = fit_als(data.train, options.seed, data.texts.catalogue()) if data.train else None

    def report(self) -> Report:
        data, predictors = self._data, self._predictors()
        names = [
            *predictors,
            *(_calibrated(mode) for mode in self._rating_modes() if self._options.calibrated),
        ]
        baseline = self._options.against or (BIAS if BIAS in predictors else GLOBAL_MEAN)
        if baseline not in names:  # told now, not after an hour
            raise InvalidInputError(f"against: no method {baseline!r}; there are {', '.join(names)}")
        predictions = {name: predict(data.rows) for name, predict in predictors.items()}
        if self._options.calibrated:
            predictions |= self._calibrated(predictions)
        for failure in (each for made in predictions.values() for each in made.failures.values()):
            typer.echo(f"{failure.status}: {failure.words}", err=True)
        return Report(
            EngineIdentity.of(self._reranker.engine),
            data.sources,
            {**dataclasses.asdict(self._options), **dataclasses.asdict(self._bootstrap)},
            data.coverage(),
            measure_ratings(
                data.rows,
                predictions,
                baseline=baseline,
                known=data.known(),
                cold_below=self._options.cold_below,
                bootstrap=self._bootstrap,
            ),
            self._ranking(),
            self._explanations(predictions),
        )

    def _rating_modes(self) -> list[Mode]:
        """Return the modes that rate a row by itself; adaptive mode needs a list."""
        return [mode for mode in self._options.modes if mode != "adaptive"]

    def _predictors(self) -> dict[str, Predictor]:
        fit = self._data.fit
        predictors = {GLOBAL_MEAN: global_mean(fit)}
        if has_averages(fit):
            predictors[BIAS] = user_item_bias(fit)
        if self._stage is not None:
            predictors[CF] = collaborative_rating(self._stage, fit)
        for mode in self._rating_modes():
            predictors[mode] = self._student(mode, mode, self._data.rows)
            for parts in self._options.without:
                name = f"{mode} without {parts}"
                predictors[name] = without(self._student(mode, name, self._data.rows), parts.split(","))
        return predictors

    def _calibrated(self, predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
        fit, found = self._data.fit, {}
        for mode in self._rating_modes():
            of_fit = self._student(mode, f"{mode}, to calibrate", fit)(fit)
            found[_calibrated(mode)] = calibrated(predictions[mode], of_fit, fit)
        return found

    def _student(self, mode: Mode, name: str, rows: Sequence[RatingRow]) -> Predictor:
        task = self._bar.add_task(name, total=len({row.user for row in rows}))
        return student(self._reranker, mode, lambda done, _: self._bar.update(task, completed=done))

    def _ranking(self) -> RankingTable | None:
        if self._stage is None:
            return None
        rankings = Rankings(self._options, self._data, self._stage, self._reranker, self._bar)
        return rankings.table(CF, self._bootstrap)

    def _explanations(self, predictions: Mapping[str, Predictions]) -> dict[str, ExplanationTable]:
        """Judge the reasonings of the student that saw everything."""
        if "reason" not in predictions:
            return {}
        made = predictions["reason"]
        explained = [
            Explained(row, reasoning, float(rating))
            for row, reasoning, rating in zip(
                self._data.rows, made.reasonings or (), made.ratings, strict=True
            )
            if reasoning is not None
        ]
        return {"reason": measure_explanations(explained, self._reranker.scale, self._bootstrap)}


def _calibrated(mode: Mode) -> str:
    return f"{mode}, calibrated"
