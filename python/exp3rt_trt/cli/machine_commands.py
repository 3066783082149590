"""Commands about machines: what fits on one, and what this one has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def plan(
    *,
    model: Annotated[
        str,
        typer.Option(
            help="An engine or checkpoint directory (config.json is enough), FILE.gguf, a base student or a "
            "hub name."
        ),
    ],
    users: Annotated[int, typer.Option(min=1, help="Users whose prefixes should stay cached.")],
    candidates: Annotated[int, typer.Option(min=1, help="Candidates of each user.")],
    target: Annotated[str, typer.Option(help="auto, cpu, or a recipe: h100, l4, ...")] = "auto",
    prefix_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a user's prefix: instructions and profile.")
    ] = 512,
    suffix_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a candidate, or of its item.")] = 192,
    reasoning_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens written before the rating; 0 in score mode.")
    ] = 0,
    json: JsonOption = False,
) -> None:
    """Compute what fits on a device: weights, cached users, candidates at the same time."""
    from exp3rt_trt.cli.machine import plan_command  # noqa: PLC0415
    from exp3rt_trt.engines.plan import Workload  # noqa: PLC0415

    workload = Workload(users, candidates, prefix_tokens, suffix_tokens, reasoning_tokens)
    plan_command(model, target, workload, as_json=json)


def doctor(
    engines: Annotated[
        Path | None, typer.Argument(help="An engine, or a directory of engines, to try to open.")
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Say what this machine has, what runs on it and what is missing; fails if nothing runs."""
    from exp3rt_trt.cli.machine import doctor_command  # noqa: PLC0415

    doctor_command(engines, as_json=json)
