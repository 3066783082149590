"""`exp3rt-trt plan` and `exp3rt-trt doctor`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from exp3rt_trt.cli.display import console
from exp3rt_trt.cli.fleet import fleet_rows
from exp3rt_trt.doctor import diagnose
from exp3rt_trt.engines.fleet import make_fleet_plan
from exp3rt_trt.engines.footprint import read_model
from exp3rt_trt.engines.plan import make_plan, planned_device

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from exp3rt_trt.doctor import Diagnosis
    from exp3rt_trt.engines.fleet import Demand
    from exp3rt_trt.engines.plan import Plan, Workload


def plan_command(
    model: str, target: str, workload: Workload, demand: Demand | None = None, *, as_json: bool
) -> None:
    """Print a plan of one machine, or of a fleet if there is a demand.

    Raises:
        typer.Exit: with code 1 if the model does not fit.
    """
    device, fleet = planned_device(target), None
    if demand is None:
        plan = make_plan(read_model(model), device, workload)
    else:
        fleet, plan = make_fleet_plan(read_model(model), device, workload, demand)
        workload = dataclasses.replace(workload, users=-(-demand.daily_users // fleet.machines))
    if as_json:
        told = dataclasses.asdict(plan) | {
            "kv_bytes_per_token": plan.kv_bytes_per_token,
            "kind": device.recipe.kind,
            "workload": dataclasses.asdict(workload),
        }
        if demand is not None and fleet is not None:
            told |= {"demand": dataclasses.asdict(demand), "fleet": dataclasses.asdict(fleet)}
        typer.echo(json.dumps(told, indent=2))
    else:
        _print(f"{model} on {plan.recipe}", _plan_rows(plan, workload, device.recipe.kind))
        if demand is not None and fleet is not None:
            _print(f"A fleet for {demand.daily_users:,} daily users", fleet_rows(fleet, workload, demand))
    if not plan.fits:
        raise typer.Exit(1)


def doctor_command(directory: Path | None, *, as_json: bool) -> None:
    """Print what this machine has.

    Raises:
        typer.Exit: with code 1 if candidates cannot be reranked here.
    """
    diagnosis = diagnose(directory)
    if as_json:
        typer.echo(json.dumps({"works": diagnosis.works, **dataclasses.asdict(diagnosis)}, indent=2))
    else:
        _print("this machine", _doctor_rows(diagnosis))
    if not diagnosis.works:
        raise typer.Exit(1)


def _print(title: str, rows: Iterable[tuple[str, str]]) -> None:
    table = Table(title=Text(title), show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, Text(value))
    console().print(table)


def _plan_rows(plan: Plan, workload: Workload, kind: str) -> list[tuple[str, str]]:
    matrices = "" if plan.quantization == "none" else f"{plan.quantization} matrices, the rest "
    block = f"{plan.kv_bytes_per_token / 1024:g} KiB a token, {plan.tokens_per_block} tokens a block"
    give = f"; give it by --kv-cache-mib {plan.kv_bytes >> 20}" if kind == "cpu" else ""
    rows = [
        ("device", f"{_gib(plan.memory_bytes)}, by recipe {plan.recipe}"),
        ("weights", f"{_gib(plan.weights_bytes)}, {matrices}{plan.dtype}"),
        ("working memory", f"{_gib(plan.working_bytes)}, an estimate"),
        ("keys and values", f"{_gib(plan.kv_bytes)}{give}"),
        ("", f"{plan.kv_dtype}, {block}, {plan.blocks} blocks"),
        ("a user's prefix", f"{plan.prefix_blocks} blocks for {workload.prefix_tokens} tokens"),
        ("a candidate", f"{plan.candidate_blocks} blocks for {_own(workload)}"),
        *_item_rows(plan, workload),
        ("a step takes", f"{plan.step_candidates} candidates"),
        ("in flight", f"{plan.in_flight} candidates"),
        ("cached users", f"{plan.cached_users} have room, {workload.users} are wanted"),
        ("it fits", "yes" if plan.fits else "no"),
    ]
    rows += [("to change", change) for change in plan.changes]
    return rows + ([("warning", plan.warning)] if plan.warning else [])


def _item_rows(plan: Plan, workload: Workload) -> list[tuple[str, str]]:
    """What an item of a segmented student takes, in memory (item_cache_mib) and in a catalogue."""
    tokens = f"of {workload.suffix_tokens} tokens"
    return [
        (f"an item in {dtype}", f"{size / 1024:g} KiB {tokens}, {2**30 // size} in a GiB")
        for dtype, size in plan.item_bytes.items()
    ]


def _own(workload: Workload) -> str:
    reasoning = f" and {workload.reasoning_tokens} of reasoning" if workload.reasoning_tokens else ""
    return f"{workload.suffix_tokens} tokens{reasoning}"


def _doctor_rows(found: Diagnosis) -> list[tuple[str, str]]:
    built = "with" if found.built_with_tensorrt_llm else "without"
    rows = [
        ("exp3rt_trt", f"{found.version}, built {built} TensorRT-LLM"),
        ("python", found.python),
        ("cpu", f"{found.cpu.isa}, {found.cpu.cores} cores"),
        ("memory", _gib(found.memory_bytes)),
    ]
    for gpu in found.gpus:
        mig = ", an instance (MIG)" if gpu.device.mig else ""
        rows.append((f"gpu {gpu.device.index}", f"{gpu.device}{mig}, driver {gpu.device.driver}"))
        rows.append(("", f"recipe {gpu.recipe}" if gpu.recipe else "no recipe"))
        rows += [("warning", gpu.note)] if gpu.note else []
    rows += [] if found.gpus else [("gpus", "none")]
    rows.append(("tensorrt-llm", found.tensorrt_llm or "not installed"))
    rows.append(("executor", f"{found.executor or 'none'}: {found.reason}"))
    rows += [("missing", f"{each.what}, for {each.why}\n{each.command}") for each in found.missing]
    rows += [("engine", f"{each.path}: {each.problem or each.description}") for each in found.engines]
    return [*rows, ("reranking works", "yes" if found.works else "no")]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
