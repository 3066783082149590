"""`exp3rt-trt build` and `exp3rt-trt inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from exp3rt_trt.cli.display import console, progress_bar
from exp3rt_trt.engines.build import build_engine, plan_build
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.engines.manifest import MANIFEST, Manifest
from exp3rt_trt.engines.target_choice import choose
from exp3rt_trt.engines.trtllm.needs import notes_here
from exp3rt_trt.engines.weights_file import sha256_of
from exp3rt_trt.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class BuildOptions:
    """What `exp3rt-trt build` was given; see `build_engine`."""

    model: str
    out: Path
    target: str
    dtype: str | None
    adapter: Path | None
    calibration: Path | None


def plan_command(options: BuildOptions) -> None:
    """Print what a build would do."""
    text = plan_build(
        options.model,
        options.out,
        options.dtype,
        options.target,
        adapter=options.adapter,
        calibration=options.calibration,
    )
    typer.echo(text)  # command lines, to be copied: not wrapped


def build_command(options: BuildOptions) -> None:
    """Build an engine, with a progress bar."""
    for note in notes_here(choose(options.target)):
        typer.echo(f"note: {note}", err=True)
    with progress_bar(unit="MiB") as bar:
        task = bar.add_task("Building", total=None)

        def progress(tensor: str, written: int, total: int) -> None:
            bar.update(task, description=tensor, completed=written >> 20, total=total >> 20)

        manifest = build_engine(
            options.model,
            options.out,
            options.dtype,
            options.target,
            adapter=options.adapter,
            calibration=options.calibration,
            progress=progress,
        )
    size = sum(record.size for record in manifest.files.values())
    console().print(
        Text(f"{options.out}: {manifest.architecture} in {manifest.dtype}, {size / 2**20:.0f} MiB")
    )


def inspect_command(directory: Path, *, verify: bool) -> None:
    """Print an engine's manifest.

    Raises:
        EngineError: if there is none, or a file is not what the manifest says.
    """
    if not directory.is_dir():
        raise EngineError(f"{directory}: no such engine directory")
    if not (directory / MANIFEST).exists():
        raise EngineError(f"{directory}: no {MANIFEST}: not an engine")
    manifest = Manifest.load(directory / MANIFEST)
    out = console()
    out.print(_facts(directory, manifest))
    out.print(_files(manifest))
    if verify:
        for name, record in manifest.files.items():
            path = directory / name
            if not path.is_file():
                raise EngineError(f"{path}: missing; rebuild the engine")
            if path.stat().st_size != record.size or sha256_of(path) != record.sha256:
                raise EngineError(f"{path}: altered: its size or sha256 is not that of the manifest")
        Engine.open(directory)
        out.print("verified: every file is what the manifest says")


def _facts(directory: Path, manifest: Manifest) -> Table:
    table = Table(title=Text(str(directory)), show_header=False, title_justify="left")
    dims = manifest.model
    rows = {
        "format": f"{manifest.format_version}, by {manifest.builder}",
        "source": manifest.source.model,
        "architecture": manifest.architecture,
        "weights": f"{manifest.dtype}, {'tied' if dims.tie_word_embeddings else 'untied'} embeddings",
        "target": str(manifest.target),
        "layers": f"{dims.num_layers} of {dims.hidden_size}, feed-forward {dims.intermediate_size}",
        "heads": f"{dims.num_heads} of {dims.head_dim}, {dims.num_kv_heads} for keys and values",
        "vocabulary": f"{dims.vocab_size}",
        "context": f"{dims.max_context} tokens",
        "rope": f"theta {dims.rope_theta:g}, scaling {dims.rope_scaling or 'none'}",
        "chat": " ... ".join(map(repr, manifest.chat)) if manifest.chat else "none: plain text",
        "labels": ", ".join(f"{label} = {token}" for label, token in manifest.label_tokens.items()),
        "scale": f"{scale.values[0]:g} to {scale.values[-1]:g}" if (scale := manifest.scale) else "not said",
        "end of turn": ", ".join(map(str, manifest.end_tokens)) or "none",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _files(manifest: Manifest) -> Table:
    table = Table("file", "bytes", "sha256")
    for name, record in manifest.files.items():
        table.add_row(name, f"{record.size}", record.sha256)
    return table
