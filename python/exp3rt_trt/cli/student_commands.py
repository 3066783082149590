"""Commands that make a student and measure it: teach, distil, calibrate, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exp3rt_trt.cli.options import (
    EngineOption,
    Method,
    RankingMode,
    ScaleOption,
    TeacherTask,
    ThreadsOption,
    scale_for,
)


def evaluate(
    *,
    engine: EngineOption,
    ratings: Annotated[
        Path,
        typer.Option(help="JSONL of rating rows: user_id, item_id, rating, user_profile, item_profile, ..."),
    ],
    fit: Annotated[
        str,
        typer.Option(
            help="What baselines are fitted on: another such file, a share of the users, or a "
            "number of first rows."
        ),
    ] = "0.5",
    interactions: Annotated[
        Path | None, typer.Option(help="Folder with train.txt and test.txt: measure rankings, and CF alone.")
    ] = None,
    texts: Annotated[
        list[Path] | None, typer.Option(help="JSONL with more texts of users or items; may be repeated.")
    ] = None,
    mode: Annotated[
        list[RankingMode] | None, typer.Option(help="How to rate; may be repeated. Adaptive: rankings only.")
    ] = None,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Measure ratings also calibrated on the fitting rows.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure also without user_profile, item_profile, description, averages, or several: a,b."
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Method that ratings are compared with; default the bias baseline.")
    ] = None,
    cold_below: Annotated[int, typer.Option(help="Users with fewer known ratings are cold.")] = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="Most rows to measure.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Most users to rank for.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates of each user to rank.")] = 20,
    blend_users: Annotated[
        int,
        typer.Option(min=0, help="Users, not measured, on whom the blend with CF is fitted; 0: no blend."),
    ] = 0,
    right_from: Annotated[
        float, typer.Option(min=0, help="Held-out items are right from this rating on; 0: all are.")
    ] = 0,
    scale: ScaleOption = None,
    max_reasoning_tokens: Annotated[int, typer.Option(min=1, help="Where reasoning is cut off.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the split, the sample, CF and the intervals.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File for the record.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for the picture, SVG.")] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Measure a student's ratings, rankings and reasons beside baselines."""
    from exp3rt_trt.cli.evaluate import evaluate_command  # noqa: PLC0415
    from exp3rt_trt.cli.evaluate_options import EvaluateOptions  # noqa: PLC0415

    options = EvaluateOptions(
        ratings=str(ratings),
        fit=fit,
        engine=engine,
        modes=[each.value for each in mode or [RankingMode.score]],
        calibrated=calibrated,
        interactions=str(interactions) if interactions else None,
        texts=[str(path) for path in texts or []],
        without=without or [],
        against=against,
        cold_below=cold_below,
        limit=limit,
        users=users,
        candidates=candidates,
        blend_users=blend_users,
        right_from=right_from,
        scale=scale,
        max_reasoning_tokens=max_reasoning_tokens,
        seed=seed,
        threads=threads,
    )
    evaluate_command(options, json, plot)


def distill(
    recipe: Annotated[Path, typer.Argument(help="TOML: base, data, training; see docs/distillation.md.")],
) -> None:
    """Train a student by a recipe, merge it, build its engine and evaluate it; goes on where it was."""
    from exp3rt_trt.cli.distill import distill_command  # noqa: PLC0415

    distill_command(recipe)


def annotate(
    task: Annotated[TeacherTask, typer.Argument(help="What the teacher is asked for.")],
    rows: Annotated[Path, typer.Argument(help="JSONL: rows with review, with preferences, or of ratings.")],
    *,
    out: Annotated[Path, typer.Option(help="JSONL to write, or to go on with.")],
    model: Annotated[str, typer.Option(help="The teacher's name at its endpoint.")],
    base_url: Annotated[str | None, typer.Option(help="Endpoint; default OpenAI's own.")] = None,
    show_rating: Annotated[
        bool, typer.Option(help="Rationales: show the true rating, or have the teacher predict one.")
    ] = True,
    input_price: Annotated[float, typer.Option(min=0, help="Of a million tokens.")] = 0.0,
    output_price: Annotated[float, typer.Option(min=0, help="Of a million tokens.")] = 0.0,
    cost_cap: Annotated[float | None, typer.Option(min=0, help="Most that all rows may cost.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Rows asked about at the same time.")] = 4,
) -> None:
    """Have a teacher annotate rows; the key is taken from OPENAI_API_KEY. Goes on where it was."""
    from exp3rt_trt.cli.distill import AnnotateCommand, annotate_command  # noqa: PLC0415
    from exp3rt_trt.distill.annotate import AnnotateOptions  # noqa: PLC0415
    from exp3rt_trt.distill.teacher import Prices  # noqa: PLC0415

    options = AnnotateOptions(cost_cap=cost_cap, workers=workers)
    prices = Prices(input_price, output_price)
    command = AnnotateCommand(task.value, model, base_url, show_rating, prices, options)
    annotate_command(rows, out, command)


def calibrate(
    *,
    engine: Annotated[Path, typer.Option(help="Engine directory; the calibration is written into it.")],
    ratings: Annotated[Path, typer.Option(help="Held-out JSONL of rating rows, as for evaluate.")],
    method: Annotated[Method, typer.Option(help="Shape of the map.")] = Method.isotonic,
    scale: ScaleOption = None,
    threads: ThreadsOption = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Save it even if it makes the calibration error worse.")
    ] = False,
) -> None:
    """Fit what an engine's expected ratings mean in real ones."""
    from exp3rt_trt.cli.calibrate import calibrate_command  # noqa: PLC0415

    calibrate_command(engine, ratings, method.value, scale_for(engine, scale), threads, force=force)
