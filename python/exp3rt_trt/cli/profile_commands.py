"""Commands that make profiles from reviews."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exp3rt_trt.cli.options import CacheOption, EngineOption, Extraction, ReviewChoice, ThreadsOption

profile_app = typer.Typer(no_args_is_help=True, help="Make profiles from reviews, or show them.")
StoreOption = Annotated[Path, typer.Option(help="SQLite file of the preferences.")]


@profile_app.command("build")
def profile_build(
    reviews: Annotated[Path, typer.Argument(help=".jsonl, .csv, .parquet or RecBole's .inter.")],
    *,
    store: StoreOption,
    engine: EngineOption,
    items: Annotated[Path | None, typer.Option(help="Titles and descriptions.")] = None,
    by: Annotated[
        Extraction, typer.Option(help="Judge a review's clauses, or have the student write lists.")
    ] = Extraction.clauses,
    highest_rating: Annotated[
        float, typer.Option(min=2, help="Of the reviews' scale, which begins at 1.")
    ] = 5,
    threads: ThreadsOption = 0,
    kv_cache_mib: CacheOption = 1024,
) -> None:
    """Extract the preferences of the reviews that the store does not have."""
    from exp3rt_trt.cli.profile import profile_command  # noqa: PLC0415

    profile_command(
        reviews,
        items,
        store,
        engine,
        by.value,
        highest_rating=highest_rating,
        threads=threads,
        kv_cache_mib=kv_cache_mib,
    )


@profile_app.command("show")
def profile_show(
    *,
    store: StoreOption,
    user: Annotated[str | None, typer.Option(help="Id of a user.")] = None,
    item: Annotated[
        str | None, typer.Option(help="Id of an item; with --user, as that user is shown it.")
    ] = None,
    choice: Annotated[
        ReviewChoice, typer.Option(help="Which reviews stand behind an item's profile first.")
    ] = ReviewChoice.helpful,
    max_words: Annotated[int, typer.Option(min=1, help="Of the points taken into an item's profile.")] = 400,
) -> None:
    """Print the profile of a user or of an item."""
    from exp3rt_trt.cli.profile import show_command  # noqa: PLC0415

    show_command(store, user, item, choice.value, max_words)
