"""Commands and their options; what they do is imported when they run, so that `--help` is quick."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from exp3rt_trt.errors import Exp3rtError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Rerank a user's candidate items with a distilled student LLM.",
)


class Mode(str, Enum):
    """How a rating is made."""

    score = "score"
    reason = "reason"


class Dtype(str, Enum):
    """Type of an engine's weights."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class Scale(str, Enum):
    """Highest rating of the scale."""

    five = "5"
    ten = "10"


EngineOption = Annotated[
    str,
    typer.Option(
        help="Engine directory; or a checkpoint, a GGUF file, a hub name, to build one in the cache."
    ),
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Cores to compute on; 0 for all.")]
CacheOption = Annotated[int, typer.Option(min=1, help="Memory for keys and values, in MiB.")]


@app.command()
def build(
    *,
    model: Annotated[
        str,
        typer.Option(
            help="smollm2-135m-instruct (fetched if needed), a checkpoint directory, FILE.gguf, a hub name."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Engine directory to write.")],
    target: Annotated[str, typer.Option(help="Kind of device that the engine is for.")] = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="Type of the weights.")] = Dtype.bf16,
) -> None:
    """Build an engine from a checkpoint."""
    from exp3rt_trt.cli.engines import build_command  # noqa: PLC0415

    build_command(model, out, target, dtype.value)


@app.command()
def inspect(
    engine: Annotated[Path, typer.Argument(help="Engine directory.")],
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and compare its sha256.")] = False,
) -> None:
    """Print what an engine says about itself."""
    from exp3rt_trt.cli.engines import inspect_command  # noqa: PLC0415

    inspect_command(engine, verify=verify)


@app.command()
def rank(
    jobs: Annotated[
        str, typer.Argument(help='JSONL, one {"user": ..., "candidates": [...]} a line; - for stdin.')
    ],
    *,
    engine: EngineOption,
    output: Annotated[
        str | None, typer.Option(help="Write JSONL here instead of printing tables; - for stdout.")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Rate at once, or reason first.")] = Mode.score,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Candidates to keep for each user; default all.")
    ] = None,
    scale: Annotated[Scale, typer.Option(help="Highest rating.")] = Scale.five,
    max_reasoning_tokens: Annotated[int, typer.Option(min=1, help="Where reasoning is cut off.")] = 256,
    threads: ThreadsOption = 0,
    kv_cache_mib: CacheOption = 1024,
) -> None:
    """Rank the candidates of one or many users."""
    from exp3rt_trt.cli.rank import RankOptions, rank_command  # noqa: PLC0415

    options = RankOptions(
        engine, mode.value, top_k, int(scale.value), max_reasoning_tokens, threads, kv_cache_mib
    )
    rank_command(jobs, output, options)


@app.command()
def bench(
    *,
    engine: EngineOption,
    workload: Annotated[
        Path, typer.Option(help='JSONL: {"user_id", "prefix", "candidates": [{"item_id", "suffix"}]}.')
    ],
    mode: Annotated[Mode, typer.Option(help="Rate at once, or reason first.")],
    json: Annotated[Path, typer.Option(help="File for the results and measurements.")],
    users: Annotated[int | None, typer.Option(min=1, help="Only the first users.")] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Only the first candidates of each user.")
    ] = None,
    reason_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of each reasoning, in reason mode.")
    ] = 128,
    threads: ThreadsOption = 0,
    kv_cache_mib: CacheOption = 1024,
) -> None:
    """Measure how fast raw prompts are rated."""
    from exp3rt_trt.cli.bench import BenchOptions, bench_command  # noqa: PLC0415

    options = BenchOptions(engine, mode.value, users, candidates, reason_tokens, threads, kv_cache_mib)
    bench_command(workload, json, options)


@app.command()
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
    mode: Annotated[list[Mode] | None, typer.Option(help="How to rate; may be repeated.")] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Measure also without user_profile, item_profile, averages, or several: a,b."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Method that ratings are compared with; default the bias baseline.")
    ] = None,
    cold_below: Annotated[int, typer.Option(help="Users with fewer known ratings are cold.")] = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="Most rows to measure.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Most users to rank for.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates of each user to rank.")] = 20,
    scale: Annotated[Scale, typer.Option(help="Highest rating.")] = Scale.ten,
    max_reasoning_tokens: Annotated[int, typer.Option(min=1, help="Where reasoning is cut off.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the split, the sample, CF and the intervals.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File for the record.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for the picture, SVG.")] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Measure a student's ratings, rankings and reasons beside baselines."""
    from exp3rt_trt.cli.evaluate import EvaluateOptions, evaluate_command  # noqa: PLC0415

    options = EvaluateOptions(
        ratings=str(ratings),
        fit=fit,
        engine=engine,
        modes=[each.value for each in mode or [Mode.score]],
        interactions=str(interactions) if interactions else None,
        texts=[str(path) for path in texts or []],
        without=without or [],
        against=against,
        cold_below=cold_below,
        limit=limit,
        users=users,
        candidates=candidates,
        highest=int(scale.value),
        max_reasoning_tokens=max_reasoning_tokens,
        seed=seed,
        threads=threads,
    )
    evaluate_command(options, json, plot)


profile_app = typer.Typer(no_args_is_help=True)
app.add_typer(profile_app, name="profile", help="Make profiles from reviews, or show them.")
StoreOption = Annotated[Path, typer.Option(help="SQLite file of the preferences.")]


@profile_app.command("build")
def profile_build(
    reviews: Annotated[Path, typer.Argument(help=".jsonl, .csv, .parquet or RecBole's .inter.")],
    *,
    store: StoreOption,
    engine: EngineOption,
    items: Annotated[Path | None, typer.Option(help="Titles and descriptions.")] = None,
    threads: ThreadsOption = 0,
    kv_cache_mib: CacheOption = 1024,
) -> None:
    """Extract the preferences of the reviews that the store does not have."""
    from exp3rt_trt.cli.profile import profile_command  # noqa: PLC0415

    profile_command(reviews, items, store, engine, threads=threads, kv_cache_mib=kv_cache_mib)


@profile_app.command("show")
def profile_show(
    *,
    store: StoreOption,
    user: Annotated[str | None, typer.Option(help="Id of a user.")] = None,
    item: Annotated[str | None, typer.Option(help="Id of an item.")] = None,
) -> None:
    """Print the profile of a user or of an item."""
    from exp3rt_trt.cli.profile import show_command  # noqa: PLC0415

    show_command(store, user, item)


def main() -> None:
    """Run the command line; errors that the user can mend are told without a traceback."""
    try:
        app()
    except Exp3rtError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
