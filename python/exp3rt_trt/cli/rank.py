"""`exp3rt-trt rank`: JSONL in, tables or JSONL out."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from exp3rt_trt.cli.display import console, paused, progress_bar, ranking_table
from exp3rt_trt.cli.options import keep_inputs, scale_for
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.jsonl import Line, read_lines
from exp3rt_trt.reranker import Reranker
from exp3rt_trt.results import RankedResults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exp3rt_trt.cli.options import Scale
    from exp3rt_trt.prompts import RankingMode
    from exp3rt_trt.rating import RatingScale


@dataclass(frozen=True)
class RankOptions:
    """Options of the command; see its help."""

    engine: str
    mode: RankingMode
    top_k: int | None
    scale: Scale | None
    max_reasoning_tokens: int
    threads: int
    kv_cache_mib: int
    catalog: Path | None = None


def rank_command(path: str, output: str | None, options: RankOptions) -> None:
    """Rank every line of a file; a line that fails is named on standard error, and the others go on.

    Raises:
        InvalidInputError: if the file cannot be read, or the output cannot be written or is an input.
        typer.Exit: with code 1 if a line or a candidate got no ranking.
    """
    if path != "-" and not Path(path).exists():
        raise InvalidInputError(f"{path}: no such file")
    keep_inputs(
        {"--output": None if output in (None, "-") else Path(output)},
        [("JOBS", "/dev/stdin" if path == "-" else path), ("--engine", options.engine)],
    )
    scale = scale_for(options.engine, options.scale)
    faults = 0
    with _open(options, scale) as reranker, _writer(output, scale) as write, progress_bar("users") as bar:
        task = bar.add_task("Ranking", total=None)
        for line, results in _rank_lines(reranker, path, options):
            bar.advance(task)
            with paused(bar):
                faults += _tell_faults(line, results)
                write(line, results)
    if faults:
        raise typer.Exit(1)


def _open(options: RankOptions, scale: RatingScale) -> Reranker:
    return Reranker.from_pretrained(
        options.engine,
        scale=scale,
        threads=options.threads,
        kv_cache_mib=options.kv_cache_mib,
        max_reasoning_tokens=options.max_reasoning_tokens,
        catalog=options.catalog,
    )


def _rank_lines(reranker: Reranker, path: str, options: RankOptions) -> Iterator[tuple[Line, RankedResults]]:
    """Yields every line with its results, in order; those of a faulty line have its error."""
    ahead: deque[Line] = deque()

    def jobs() -> Iterator[tuple[Any, Any]]:
        for line in map(_checked, read_lines(path)):
            ahead.append(line)
            if line.error is None:
                yield line.value["user"], line.value["candidates"]

    def faulty() -> Iterator[tuple[Line, RankedResults]]:
        while ahead and ahead[0].error is not None:
            line = ahead.popleft()
            yield line, RankedResults((), error=line.error)

    for results in reranker.rank_many(jobs(), mode=options.mode, top_k=options.top_k):
        yield from faulty()
        yield ahead.popleft(), results
    yield from faulty()


def _checked(line: Line) -> Line:
    missing = [name for name in ("user", "candidates") if name not in line.value]
    if line.error is None and missing:
        return line._replace(error=InvalidInputError(f"{missing[0]!r} is missing"))
    return line


def _tell_faults(line: Line, results: RankedResults) -> int:
    """Names on standard error what got no rating, and returns how many that are."""
    if results.error is not None:
        typer.echo(f"{line.where}: {results.error}", err=True)
        return 1
    faulty = [item for item in results if item.status != "ok"]
    for item in faulty:
        typer.echo(f"{line.where}: {item.status}: {item.error}", err=True)
    return len(faulty)


@contextlib.contextmanager
def _writer(output: str | None, scale: RatingScale) -> Iterator[Callable[[Line, RankedResults], None]]:
    """Gives what writes a line's results: a table, or JSONL to a file or standard output."""
    if output is None:
        yield lambda line, results: _print_table(line, results, scale)
    elif output == "-":
        yield lambda line, results: typer.echo(_to_json(line, results))
    else:
        try:
            file = Path(output).open("w", encoding="utf-8")  # noqa: SIM115  (closed below)
        except OSError as error:
            raise InvalidInputError(f"{output}: cannot be written: {error.strerror}") from error
        with file:
            yield lambda line, results: typer.echo(_to_json(line, results), file=file)


def _print_table(line: Line, results: RankedResults, scale: RatingScale) -> None:
    if results.error is None:
        title = line.where if results.user_id is None else f"{results.user_id}"
        console().print(ranking_table(results, scale, title))


def _to_json(line: Line, results: RankedResults) -> str:
    """One object a line: the candidates in order, or the error of the whole line."""
    fields: dict[str, Any] = {"line": line.number, "user_id": results.user_id}
    if results.error is not None:
        fields["error"] = str(results.error)
    else:
        fields |= {"results": results.to_dicts(), "queue_s": results.queue_s, "compute_s": results.compute_s}
    return json.dumps(fields, ensure_ascii=False)
