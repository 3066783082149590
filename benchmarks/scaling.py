"""How cost grows: candidates, users, prefix, reasoning, model size. Each should be a straight line.

    python benchmarks/scaling.py --engine engines/smollm2-135m --json scaling.json

Every point is a job of synthetic prompts that are new to the cache; the best of `--repeats` runs counts,
because other work on the machine only ever adds. A line is fitted to time against the size. The expected
slope is that of the operations (flops.py) at the rate of the axis's best point. Reasoning's line is steeper
than that: when it writes, few rows meet the weights in a step; when prompts are read, many do.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from exp3rt_trt import RatingScale, Reranker
from exp3rt_trt.groups import RawPrompts
from exp3rt_trt.prompts import REASON_ANSWER, REASON_OPENING, SCORE_OPENING
from exp3rt_trt.tokenization import PromptTokenizer
from flops import Shape
from measure import engine_facts
from records import host, write_record
from shapes import SHAPES, make_engine
from tables import axes_table
from workloads import make_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Size:
    """A job: users, candidates of each, words of the prefix and of a suffix, tokens of a reasoning."""

    users: int = 1
    candidates: int = 10
    prefix: int = 256
    suffix: int = 128
    written: int = 0


@dataclass(frozen=True)
class Axis:
    """One size that grows, the others as in `base`."""

    name: str
    values: tuple[int, ...]
    quick: tuple[int, ...]
    base: Size = field(default_factory=Size)

    def sizes(self, *, quick: bool) -> list[tuple[int, Size]]:
        """Return the values with their jobs."""
        values = self.quick if quick else self.values
        return [(value, Size(**{**vars(self.base), self.name: value})) for value in values]


AXES = (
    Axis("candidates", (10, 30, 100, 300, 1000), (2, 4, 6), Size(prefix=256, suffix=32)),
    Axis("users", (1, 2, 4, 8, 16, 32, 64), (1, 2, 3), Size(candidates=4, prefix=128, suffix=32)),
    Axis("prefix", (64, 128, 256, 512, 1024, 2048), (16, 32, 64), Size(candidates=4, suffix=64)),
    Axis("written", (16, 32, 64, 128, 256), (2, 4, 6), Size(candidates=8, suffix=64)),
)
MODEL_SIZE = Size(candidates=8, prefix=256, suffix=64)
ENOUGH_S = 10.0  # a job that took so long is not repeated
QUICK_SIZE = Size(candidates=2, prefix=16, suffix=16)


class Job:
    """Measures jobs on an engine; no prompt is seen twice."""

    def __init__(self, reranker: Reranker, repeats: int) -> None:
        self._reranker = reranker
        self._repeats = repeats
        self._shape = Shape.of(reranker.engine.manifest.model)
        self._tokenizer = PromptTokenizer(reranker.engine.tokenizer_path)
        self._seed = 0

    def measure(self, size: Size) -> dict[str, float]:
        """Return the best time of a job, its operations, and the tokens of its last user."""
        seconds = []
        while len(seconds) < self._repeats and sum(seconds) < ENOUGH_S:
            prompts = [self._prompts(size) for _ in range(size.users)]
            started = time.perf_counter()
            for _ in self._reranker.run_prompts(prompts):
                pass
            seconds.append(time.perf_counter() - started)
        best = min(seconds)
        counts = self._counts(prompts[-1])
        gflop = self._flops(size, *counts) / 1e9
        return {
            "seconds": best,
            "gflop": gflop,
            "gflop_per_s": gflop / best,
            "prefix_tokens": counts[0],
            "suffix_tokens": counts[1],
        }

    def _prompts(self, size: Size) -> RawPrompts:
        self._seed += 1
        user = make_prompts(size.prefix, size.suffix, size.candidates, self._seed)
        suffixes = [item["suffix"] for item in user["candidates"]]
        if size.written:
            return RawPrompts(user["prefix"], suffixes, REASON_OPENING, size.written, REASON_ANSWER)
        return RawPrompts(user["prefix"], suffixes, SCORE_OPENING)

    def _counts(self, prompts: RawPrompts) -> tuple[float, float]:
        """Return the tokens of the prefix, and those of a suffix on average."""
        cut = self._tokenizer.encode_joint(
            prompts.prefix, [each + prompts.opening for each in prompts.suffixes]
        )
        return float(len(cut[0].prefix)), sum(len(each.suffix) for each in cut) / len(cut)

    def _flops(self, size: Size, prefix: float, suffix: float) -> float:
        if not size.written:
            return self._shape.score(size.users, size.candidates, prefix, suffix)
        answer = len(self._tokenizer.encode_joint("", [REASON_ANSWER])[0].suffix)
        return self._shape.reason(
            size.users, size.candidates, prefix, suffix, written=size.written, answer=answer
        )


def fit(sizes: Sequence[float], points: Sequence[dict[str, float]]) -> dict[str, float]:
    """Fit a straight line to the times and one to the operations, by least squares.

    Returns:
        Slope and intercept of the times, R^2, the slope of the operations, GFLOP/s along the line, and the
        slope that is expected: that of the operations, at the rate of the axis's best point.
    """
    x, seconds = np.array(sizes, dtype=float), np.array([point["seconds"] for point in points])
    slope, intercept = np.polyfit(x, seconds, 1)
    unexplained = np.sum((seconds - slope * x - intercept) ** 2)
    spread = np.sum((seconds - seconds.mean()) ** 2)
    gflop_slope = np.polyfit(x, [point["gflop"] for point in points], 1)[0]
    return {
        "slope_s": float(slope),
        "intercept_s": float(intercept),
        "r2": float(1 - unexplained / spread),
        "slope_gflop": float(gflop_slope),
        "gflop_per_s": float(gflop_slope / slope),
        "expected_slope_s": float(gflop_slope / max(point["gflop_per_s"] for point in points)),
    }


def measure_axis(job: Job, axis: Axis, *, quick: bool) -> dict[str, Any]:
    """Measure an axis and fit its line."""
    points, sizes = [], []
    for value, size in axis.sizes(quick=quick):
        points.append({"size": value, **job.measure(size)})
        sizes.append(points[-1]["prefix_tokens"] if axis.name == "prefix" else value)
    return {"axis": axis.name, "base": vars(axis.base), "points": points, "fit": fit(sizes, points)}


def measure_models(
    engines: Path, tokenizer_of: Path, names: Sequence[str], options: dict[str, Any], size: Size
) -> dict[str, Any]:
    """Measure models of random weights; their size is the operations of the job."""
    points = []
    for name in names:
        engine = make_engine(
            SHAPES[name], tokenizer_of, engines / f"random-{name}-{options['dtype']}", options["dtype"]
        )
        with Reranker.from_pretrained(
            engine, scale=RatingScale.one_to_ten(), threads=options["threads"]
        ) as reranker:
            job = Job(reranker, options["repeats"])
            job.measure(size)  # the weights are mapped: the first run reads them
            points.append({"model": name, **job.measure(size)})
    found = {"axis": "model", "base": vars(size), "points": points}
    if len(points) > 1:
        found["fit"] = fit([point["gflop"] for point in points], points)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", type=Path, required=True, help="engine directory")
    parser.add_argument("--axes", nargs="*", default=[*(axis.name for axis in AXES), "model"])
    parser.add_argument("--models", nargs="*", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument(
        "--model-engines", type=Path, default=Path("engines"), help="where random engines are kept"
    )
    parser.add_argument("--repeats", type=int, default=3, help="of short jobs")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="sizes of a smoke test")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    with Reranker.from_pretrained(
        args.engine, scale=RatingScale.one_to_ten(), threads=args.threads
    ) as reranker:
        facts = engine_facts(reranker)
        job = Job(reranker, args.repeats)
        job.measure(QUICK_SIZE)
        axes = [measure_axis(job, axis, quick=args.quick) for axis in AXES if axis.name in args.axes]
    if "model" in args.axes:
        options = {"dtype": facts["dtype"], "threads": args.threads, "repeats": args.repeats}
        size = QUICK_SIZE if args.quick else MODEL_SIZE
        axes.append(measure_models(args.model_engines, args.engine, args.models, options, size))
    print(axes_table(axes))
    if args.json is not None:
        write_record(args.json, {"kind": "scaling", "host": host(), **facts, "axes": axes})


if __name__ == "__main__":
    main()
