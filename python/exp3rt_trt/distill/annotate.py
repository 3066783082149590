"""Has the teacher answer a file of rows, row by row, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from exp3rt_trt.distill.tasks import UnusableAnswerError
from exp3rt_trt.distill.teacher import TeacherError
from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from exp3rt_trt.distill.tasks import Task
    from exp3rt_trt.distill.teacher import Teacher


@dataclass(frozen=True)
class AnnotateOptions:
    """How rows are annotated.

    Args:
        attempts: answers that a row gets until one can be read; then it is quarantined.
        cost_cap: most that all calls for an output file may cost together; None for no cap.
        workers: rows asked about at the same time; as many may be lost at a kill.
    """

    attempts: int = 3
    cost_cap: float | None = None
    workers: int = 4


class Annotated(NamedTuple):
    """Counts of an output file, and of the rows that the cost cap left out."""

    written: int
    quarantined: int
    left_out: int
    cost: float


class _Row(NamedTuple):
    key: str
    given: Mapping[str, Any]
    question: str


class _Outcome(NamedTuple):
    fields: dict[str, Any]  # of the output row, or what went wrong
    usable: bool
    cost: float
    error: TeacherError | None = None


def quarantine_of(out: Path) -> Path:
    """Return where the rows go whose answers could never be read."""
    return out.with_name(f"{out.stem}.quarantine{out.suffix}")


def annotate(
    task: Task,
    rows: Path,
    out: Path,
    teacher: Teacher,
    *,
    options: AnnotateOptions = AnnotateOptions(),
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Annotated:
    """Ask the teacher about every row that `out` and its quarantine do not have yet.

    Args:
        task: what is asked.
        rows: JSONL; see the task.
        out: JSONL; each row is on the disk before the next ones are asked about.
        teacher: who is asked.
        options: attempts, cost cap, workers.
        progress: called with the rows that are done and the rows in all.

    Returns:
        What the files now hold.

    Raises:
        InvalidInputError: naming file, line and field of a faulty row, before anything is asked.
        TeacherError: if the teacher refuses for good; rows that are done stay done.

    Example:
        >>> annotate(extraction(), Path("reviews.jsonl"), Path("out.jsonl"), Teacher("gpt-4o-mini"))
    """
    wanted = _read_rows(task, rows, teacher.model)
    done = {**_read_done(out), **_read_done(quarantine_of(out))}
    cost = sum(done.values())
    pending = iter([row for row in wanted if row.key not in done])
    with (
        out.open("a", encoding="utf-8") as file,
        quarantine_of(out).open("a", encoding="utf-8") as quarantine,
        ThreadPoolExecutor(options.workers) as pool,
    ):
        while batch := list(islice(pending, options.workers)):
            most = options.attempts * sum(teacher.most_cost(task.instruction, row.question) for row in batch)
            if options.cost_cap is not None and cost + most > options.cost_cap:
                break
            outcomes = list(pool.map(lambda row: _ask(task, row, teacher, options.attempts), batch))
            for row, outcome in zip(batch, outcomes, strict=True):
                cost += outcome.cost
                if outcome.error is None:
                    _append(file if outcome.usable else quarantine, row, outcome)
                    done[row.key] = outcome.cost
            for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error
            progress(sum(row.key in done for row in wanted), len(wanted))
    held = {row.key for row in wanted} & set(done)
    quarantined = len(held & set(_read_done(quarantine_of(out))))
    return Annotated(len(held) - quarantined, quarantined, len(wanted) - len(held), cost)


def _ask(task: Task, row: _Row, teacher: Teacher, attempts: int) -> _Outcome:
    cost, answers = 0.0, []
    for _ in range(attempts):
        text = ""
        try:
            answer = teacher.ask(task.instruction, row.question)
            cost += answer.cost
            text = answer.text
            return _Outcome(task.read(row.given, row.question, text), True, cost)
        except UnusableAnswerError as error:
            answers.append({"error": str(error), "answer": text})
        except TeacherError as error:
            return _Outcome({}, False, cost, error)
    return _Outcome({"row": dict(row.given), "answers": answers}, False, cost)


def _read_rows(task: Task, path: Path, model: str) -> list[_Row]:
    rows: dict[str, _Row] = {}
    for number, given in _objects(path):
        try:
            question = task.question(given)
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}:{number}: {error}") from None
        text = json.dumps([task.name, task.instruction, model, question])
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        rows.setdefault(key, _Row(key, given, question))  # the same question is asked once
    return list(rows.values())


def _read_done(path: Path) -> dict[str, float]:
    """Cost by key of the rows of an output file; a last line that a kill cut short is taken off."""
    if not path.exists():
        return {}
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        os.truncate(path, len(whole))
    return {given["key"]: given["cost"] for _, given in _objects(path)}


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                given = json.loads(line)
            except ValueError as error:
                raise InvalidInputError(f"{path}:{number}: {error}") from None
            if not isinstance(given, dict):
                raise InvalidInputError(f"{path}:{number}: not an object")
            yield number, given


def _append(file: TextIO, row: _Row, outcome: _Outcome) -> None:
    line = {**outcome.fields, "key": row.key, "cost": outcome.cost}
    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    file.flush()
    os.fsync(file.fileno())
