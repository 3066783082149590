"""Commands for catalogues of items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exp3rt_trt.cli.options import EngineOption, ItemKvDtype, ScaleOption, ThreadsOption, scale_for

catalog_app = typer.Typer(
    no_args_is_help=True, help="Compute the keys and values of items ahead of time, for segmented students."
)
CatalogArgument = Annotated[Path, typer.Argument(help="Folder of the catalogue.")]


@catalog_app.command("build")
def catalog_build(
    *,
    items: Annotated[
        Path, typer.Option(help='JSONL, one {"item_id", "title", "description", "profile"} a line.')
    ],
    engine: EngineOption,
    out: Annotated[
        Path, typer.Option(help="Folder of the catalogue; one that is there is brought up to date.")
    ],
    scale: ScaleOption = None,
    item_kv_dtype: Annotated[
        ItemKvDtype | None,
        typer.Option(help="Type of keys and values; default: as the catalogue, or the engine."),
    ] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Compute the items that the catalogue does not have; go on where a killed build stopped."""
    from exp3rt_trt.cli.catalog import build_command  # noqa: PLC0415

    dtype = item_kv_dtype.value if item_kv_dtype is not None else ""
    build_command(items, engine, out, scale=scale_for(engine, scale), item_kv_dtype=dtype, threads=threads)


@catalog_app.command("info")
def catalog_info(catalog: CatalogArgument) -> None:
    """Print what a catalogue holds and what it was computed with."""
    from exp3rt_trt.cli.catalog import info_command  # noqa: PLC0415

    info_command(catalog)


@catalog_app.command("verify")
def catalog_verify(catalog: CatalogArgument) -> None:
    """Read every item and compare its checksum; fails if one is damaged."""
    from exp3rt_trt.cli.catalog import verify_command  # noqa: PLC0415

    verify_command(catalog)
