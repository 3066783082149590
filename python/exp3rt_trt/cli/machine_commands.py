"""Commands about machines: what fits on one, and what this one has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from exp3rt_trt.engines.fleet import Demand

FLEET = "A fleet, instead of one machine"
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
    candidates: Annotated[int, typer.Option(min=1, help="Candidates of each user.")],
    users: Annotated[int | None, typer.Option(min=1, help="Users whose prefixes should stay cached.")] = None,
    target: Annotated[str, typer.Option(help="auto, cpu, or a recipe: h100, l4, ...")] = "auto",
    prefix_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a user's prefix: instructions and profile.")
    ] = 512,
    suffix_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a candidate, or of its item.")] = 192,
    reasoning_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens written before the rating; 0 in score mode.")
    ] = 0,
    daily_users: Annotated[
        int | None, typer.Option(help="Users who come on a day, in place of --users.", rich_help_panel=FLEET)
    ] = None,
    visits: Annotated[
        float | None, typer.Option(help="Rankings of each on a day.", rich_help_panel=FLEET)
    ] = None,
    peak_factor: Annotated[
        float | None,
        typer.Option(help="Visits at the busiest time, as a multiple of the mean.", rich_help_panel=FLEET),
    ] = None,
    candidates_per_s: Annotated[
        float | None,
        typer.Option(help="What one machine does, as bench measured it.", rich_help_panel=FLEET),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Of one machine, in any currency.", rich_help_panel=FLEET)
    ] = None,
    utilization: Annotated[
        float, typer.Option(help="Share of its rate that is planned with.", rich_help_panel=FLEET)
    ] = 0.7,
    json: JsonOption = False,
) -> None:
    """Compute what fits on a device: weights, cached users, candidates at the same time; or a fleet."""
    from exp3rt_trt.cli.machine import plan_command  # noqa: PLC0415
    from exp3rt_trt.engines.plan import Workload  # noqa: PLC0415

    if (users is None) == (daily_users is None):
        raise InvalidInputError("exactly one of --users and --daily-users is needed")
    workload = Workload(users or 1, candidates, prefix_tokens, suffix_tokens, reasoning_tokens)
    given = {
        "visits": visits,
        "peak_factor": peak_factor,
        "candidates_per_s": candidates_per_s,
        "price_per_hour": price_per_hour,
    }
    demand = None if daily_users is None else _demand(daily_users, utilization, given)
    plan_command(model, target, workload, demand, as_json=json)


def _demand(daily_users: int, utilization: float, given: dict[str, float | None]) -> Demand:
    from exp3rt_trt.engines.fleet import Demand  # noqa: PLC0415

    known = {name: value for name, value in given.items() if value is not None}
    missing = [f"--{name.replace('_', '-')}" for name in given if name not in known]
    if missing:
        raise InvalidInputError(f"--daily-users needs {', '.join(missing)}")
    return Demand(daily_users, **known, utilization=utilization)


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
