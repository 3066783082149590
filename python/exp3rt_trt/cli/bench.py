"""`exp3rt-trt bench`: how fast raw prompts are rated."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from exp3rt_trt.cli.display import progress_bar
from exp3rt_trt.cli.options import keep_inputs
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.groups import RawPrompts
from exp3rt_trt.jsonl import read_lines
from exp3rt_trt.prompts import REASON_ANSWER, REASON_OPENING, SCORE_OPENING
from exp3rt_trt.rating import RatingScale
from exp3rt_trt.reranker import Reranker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exp3rt_trt.prompts import Mode
    from exp3rt_trt.scores import PromptScores


@dataclass(frozen=True)
class BenchOptions:
    """Options of the command; see its help."""

    engine: str
    mode: Mode
    users: int | None
    candidates: int | None
    reason_tokens: int
    threads: int
    kv_cache_mib: int
    item_cache_mib: int = 1024
    warm: bool = False


def bench_command(workload: Path, out: Path, options: BenchOptions) -> None:
    """Rate a workload's prompts as one packed job, and write results and measurements as JSON.

    The clock runs from the first prompt handed over to the last result, tokenization included.

    Raises:
        InvalidInputError: naming the workload, its line or field, or the output that cannot be written.
        EngineError: if the engine cannot be opened.
    """
    keep_inputs({"--json": out}, [("--workload", workload), ("--engine", options.engine)])
    users = list(read_workload(workload, options.users, options.candidates))
    if not any(user["candidates"] for user in users):
        raise InvalidInputError(f"{workload}: no candidates to rate")
    if not out.absolute().parent.is_dir():
        raise InvalidInputError(f"{out}: the folder does not exist")
    started = time.perf_counter()
    with Reranker.from_pretrained(
        options.engine,
        scale=RatingScale.one_to_ten(),
        threads=options.threads,
        kv_cache_mib=options.kv_cache_mib,
        item_cache_mib=options.item_cache_mib,
    ) as reranker:
        load_s = time.perf_counter() - started
        instructions = _common_beginning([user["prefix"] for user in users])
        prompts = [_prompts(user, options, instructions) for user in users]
        if options.warm:
            _compute_items(reranker, prompts)
        scores, seconds = _run(reranker, prompts)
        measured = _measure(reranker, sum(map(len, scores)) / seconds, load_s)
        results = [_user(user, of_user, reranker) for user, of_user in zip(users, scores, strict=True)]
    try:
        out.write_text(
            json.dumps({"users": results, **measured}, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise InvalidInputError(f"{out}: cannot be written: {error.strerror}") from error
    typer.echo(" ".join(f"{name}={value}" for name, value in measured.items()))


def read_workload(path: Path, users: int | None, candidates: int | None) -> Iterator[dict[str, Any]]:
    """Read a workload.

    Args:
        path: JSONL of {"user_id", "prefix", "candidates": [{"item_id", "suffix"}]}.
        users: how many lines to take; None for all.
        candidates: how many candidates of each; None for all.

    Yields:
        The lines' objects, cut to that many candidates.

    Raises:
        InvalidInputError: naming file, line and field.
    """
    for count, line in enumerate(read_lines(str(path))):
        if users is not None and count >= users:
            return
        if line.error is not None:
            raise InvalidInputError(f"{line.where}: {line.error}")
        user = line.value
        items = user.get("candidates")
        if not isinstance(user.get("prefix"), str) or not isinstance(items, list):
            raise InvalidInputError(f'{line.where}: "prefix" must be a string and "candidates" a list')
        for number, item in enumerate(items):
            if not isinstance(item, dict) or not isinstance(item.get("suffix"), str):
                raise InvalidInputError(f'{line.where}: candidates[{number}] has no string "suffix"')
        yield {**user, "candidates": items[:candidates]}


def _common_beginning(prefixes: list[str]) -> str:
    """Give the lines with which all prefixes begin: the instructions."""
    common = os.path.commonprefix(prefixes)  # noqa: RUF071  (texts, no paths)
    return common[: common.rfind("\n") + 1]


def _prompts(user: dict[str, Any], options: BenchOptions, instructions: str) -> RawPrompts:
    suffixes = [item["suffix"] for item in user["candidates"]]
    if options.mode == "score":
        return RawPrompts(user["prefix"], suffixes, SCORE_OPENING, instructions=instructions)
    return RawPrompts(
        user["prefix"], suffixes, REASON_OPENING, options.reason_tokens, REASON_ANSWER, instructions
    )


def _compute_items(reranker: Reranker, prompts: list[RawPrompts]) -> None:
    """Compute every item before the clock starts, for a user whom the workload does not have."""
    for each in prompts:
        stranger = dataclasses.replace(
            each, prefix=f"{each.instructions}Nothing is known.\n", max_reasoning_tokens=0, answer=""
        )
        list(reranker.run_prompts([stranger]))


def _run(reranker: Reranker, prompts: list[RawPrompts]) -> tuple[list[PromptScores], float]:
    scores = []
    with progress_bar("users") as bar:
        task = bar.add_task("Rating", total=len(prompts))
        started = time.perf_counter()
        for result in reranker.run_prompts(prompts):
            scores.append(result)
            bar.advance(task)
        return scores, time.perf_counter() - started


def _measure(reranker: Reranker, candidates_per_s: float, load_s: float) -> dict[str, Any]:
    stats = reranker.stats()
    return {
        "candidates_per_s": candidates_per_s,
        "prompt_tokens_computed": stats.prompt_tokens_computed,
        "prompt_tokens_reused": stats.prompt_tokens_reused,
        "generated_tokens": stats.generated_tokens,
        "load_s": load_s,
        "peak_rss_mib": _peak_rss_mib(),
        "dtype": reranker.engine.manifest.dtype,
        "threads": reranker.threads,
        "isa": reranker.isa,
    }


def _user(user: dict[str, Any], scores: PromptScores, reranker: Reranker) -> dict[str, Any]:
    items = []
    for number, item in enumerate(user["candidates"]):
        rated = scores.statuses[number] == "ok"
        tokens = scores.reasoning_tokens[number]
        items.append(
            {
                "item_id": item.get("item_id"),
                "expected_rating": float(scores.expected_ratings[number]) if rated else None,
                "probabilities": scores.probabilities[number].tolist() if rated else None,
                "reasoning": reranker.decode(tokens) if tokens else None,
            }
        )
    return {"user_id": user.get("user_id"), "items": items}


def _peak_rss_mib() -> float:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
