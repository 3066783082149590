"""Commands and their options; what they do is imported when they run, so that `--help` is quick."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path  # noqa: TC003  (typer reads the annotations)
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


class RankingMode(str, Enum):
    """How a ranking is made of ratings."""

    score = "score"
    reason = "reason"
    adaptive = "adaptive"


class Dtype(str, Enum):
    """Type of an engine's weights."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class Scale(str, Enum):
    """Highest rating of the scale."""

    five = "5"
    ten = "10"


class Method(str, Enum):
    """Shape of a calibration."""

    isotonic = "isotonic"
    linear = "linear"


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
    mode: Annotated[
        RankingMode,
        typer.Option(help="Rate at once; reason first; or score all, and reason for possible winners."),
    ] = RankingMode.score,
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
def calibrate(
    *,
    engine: Annotated[Path, typer.Option(help="Engine directory; the calibration is written into it.")],
    ratings: Annotated[
        Path, typer.Option(help='Held-out JSONL: {"user": ..., "item": ..., "rating": number}.')
    ],
    method: Annotated[Method, typer.Option(help="Shape of the map.")] = Method.isotonic,
    scale: Annotated[Scale, typer.Option(help="Highest rating.")] = Scale.five,
    threads: ThreadsOption = 0,
) -> None:
    """Fit what an engine's expected ratings mean in real ones."""
    from exp3rt_trt.cli.calibrate import calibrate_command  # noqa: PLC0415

    calibrate_command(engine, ratings, method.value, int(scale.value), threads)


def main() -> None:
    """Run the command line; errors that the user can mend are told without a traceback."""
    try:
        app()
    except Exp3rtError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
