"""Commands and their options; what they do is imported when they run, so that `--help` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from exp3rt_trt import __version__
from exp3rt_trt.cli.catalog_commands import catalog_app
from exp3rt_trt.cli.machine_commands import doctor, plan
from exp3rt_trt.cli.options import (
    CacheOption,
    Dtype,
    EngineOption,
    Mode,
    RankingMode,
    ScaleOption,
    ThreadsOption,
)
from exp3rt_trt.cli.profile_commands import profile_app
from exp3rt_trt.cli.serve_commands import serve
from exp3rt_trt.cli.student_commands import annotate, calibrate, distill, evaluate
from exp3rt_trt.errors import Exp3rtError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Rerank a user's candidate items with a distilled student LLM.",
)
app.add_typer(profile_app, name="profile")
app.add_typer(catalog_app, name="catalog")
for command in (annotate, distill, calibrate, evaluate, plan, doctor, serve):
    app.command()(command)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"exp3rt-trt {__version__}")
        raise typer.Exit


@app.callback()
def common(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of no command."""


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
    target: Annotated[
        str, typer.Option(help="cpu; auto for the GPU or processor at hand; or a recipe, such as h100.")
    ] = "cpu",
    dtype: Annotated[
        Dtype | None, typer.Option(help="Type of a CPU engine's weights; default bf16, or the recipe's.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Directory of a LoRA adapter to merge into the model.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="JSONL of prompts that scales are measured on, for recipes that quantize."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done: every command and file.")
    ] = False,
) -> None:
    """Build an engine from a checkpoint."""
    from exp3rt_trt.cli.engines import BuildOptions, build_command, plan_command  # noqa: PLC0415

    options = BuildOptions(model, out, target, dtype.value if dtype else None, adapter, calibration)
    (plan_command if dry_run else build_command)(options)


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
    scale: ScaleOption = None,
    max_reasoning_tokens: Annotated[int, typer.Option(min=1, help="Where reasoning is cut off.")] = 256,
    catalog: Annotated[
        Path | None, typer.Option(help="Catalogue of items that were computed ahead of time.")
    ] = None,
    threads: ThreadsOption = 0,
    kv_cache_mib: CacheOption = 1024,
) -> None:
    """Rank the candidates of one or many users."""
    from exp3rt_trt.cli.rank import RankOptions, rank_command  # noqa: PLC0415

    options = RankOptions(
        engine, mode.value, top_k, scale, max_reasoning_tokens, threads, kv_cache_mib, catalog
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
    item_cache_mib: Annotated[
        int, typer.Option(min=1, help="Memory for the items of a segmented student.")
    ] = 1024,
    warm: Annotated[
        bool, typer.Option("--warm", help="Compute a segmented student's items before the clock starts.")
    ] = False,
) -> None:
    """Measure how fast raw prompts are rated, on the scale from 1 to 10."""
    from exp3rt_trt.cli.bench import BenchOptions, bench_command  # noqa: PLC0415

    options = BenchOptions(
        engine,
        mode.value,
        users,
        candidates,
        reason_tokens,
        threads,
        kv_cache_mib,
        item_cache_mib,
        warm,
    )
    bench_command(workload, json, options)


def main() -> None:
    """Run the command line; errors that the user can mend are told without a traceback."""
    try:
        app()
    except Exp3rtError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
