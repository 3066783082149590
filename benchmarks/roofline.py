"""How much of the machine's rate the engine uses.

    python benchmarks/roofline.py --engine engines/smollm2-135m --json roofline.json

Measures the rate of bare matrix products of the model's shapes in PyTorch (oneDNN for bf16, MKL for fp32) by
the number of rows, on one thread and times the threads; how fast memory is read; and the engine in score
mode, and while it writes for few and many candidates. The engine's rate counts every operation of flops.py;
what else takes time weighs it down.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from exp3rt_trt import RatingScale, Reranker
from flops import Shape
from measure import engine_facts
from records import host, write_record
from scaling import Job, Size
from tables import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROWS = (1, 4, 16, 64, 256, 1024)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}  # what int8 is held against
SCORE = (Size(candidates=10, prefix=256, suffix=256), Size(candidates=50, prefix=256, suffix=256))
REASON = tuple(Size(candidates=count, prefix=256, suffix=64, written=64) for count in (1, 4, 16, 64))
QUICK = (Size(candidates=2, prefix=16, suffix=16), Size(candidates=2, prefix=16, suffix=16, written=2))


def seconds_of(call: Callable[[], object], least_s: float) -> float:
    """Return the best time of a call, repeated for at least that long."""
    call()
    times, ends = [], time.perf_counter() + least_s
    while not times or time.perf_counter() < ends:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def layer_products(shape: Shape) -> list[tuple[str, int, int]]:
    """Return the matrices of a layer: name, depth, columns."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return [
        ("qkv", shape.hidden, query + 2 * key),
        ("out", query, shape.hidden),
        ("gate_up", shape.hidden, 2 * shape.intermediate),
        ("down", shape.intermediate, shape.hidden),
    ]


def product_rates(
    shape: Shape, dtype: str, rows: Sequence[int], threads: int, least_s: float
) -> list[dict[str, Any]]:
    """Measure bare products of activations and a layer's matrices: of one thread, times the threads."""
    found = []
    for name, depth, columns in layer_products(shape):
        weights = torch.randn(columns, depth, dtype=DTYPES[dtype])
        for count in rows:
            inputs = torch.randn(count, depth, dtype=DTYPES[dtype])
            with torch.inference_mode():
                taken = seconds_of(lambda x=inputs, w=weights: torch.nn.functional.linear(x, w), least_s)
            gflop = 2 * count * depth * columns / 1e9
            found.append(
                {"matrix": name, "rows": count, "gflop": gflop, "gflop_per_s": threads * gflop / taken}
            )
    return found


def layer_rate(products: Sequence[dict[str, Any]], rows: int) -> float:
    """Return the rate of a whole layer's products, GFLOP/s."""
    of_rows = [each for each in products if each["rows"] == rows]
    return float(
        sum(each["gflop"] for each in of_rows) / sum(each["gflop"] / each["gflop_per_s"] for each in of_rows)
    )


def bandwidth(mib: int, least_s: float) -> float:
    """Return how many GB a second all threads read, from an array that no cache holds."""
    values = torch.ones(mib << 18, dtype=torch.float32)
    return float(values.nbytes / seconds_of(values.sum, least_s) / 1e9)


def engine_rates(job: Job, sizes: Sequence[Size], threads: int) -> list[dict[str, Any]]:
    """Measure the engine; `rows` is how many tokens meet a matrix together, at most."""
    found = []
    for size in sizes:
        point = job.measure(size)
        gflop, taken = point["gflop"], point["seconds"]
        if size.written:  # the writing alone: half of it less
            half = job.measure(replace(size, written=size.written // 2))
            gflop, taken = gflop - half["gflop"], taken - half["seconds"]
        mode = "reason" if size.written else "score"
        rate = gflop / taken if taken > 0 else None  # the machine was busy with something else
        found.append(
            {"mode": mode, "candidates": size.candidates, "rows": rows_of(size, threads), "gflop_per_s": rate}
        )
    return found


def rows_of(size: Size, threads: int) -> int:
    """Return the rows of a step: a token of every candidate when it writes, a full batch when it reads."""
    return size.candidates if size.written else min(512 * threads, 2048, size.candidates * size.suffix)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", type=Path, required=True, help="engine directory")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="sizes of a smoke test")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    rows, least_s, mib = ((1, 16), 0.0, 1) if args.quick else (ROWS, 0.3, 1024)
    with Reranker.from_pretrained(
        args.engine, scale=RatingScale.one_to_ten(), threads=args.threads
    ) as reranker:
        facts, shape = engine_facts(reranker), Shape.of(reranker.engine.manifest.model)
        job = Job(reranker, args.repeats)
        job.measure(QUICK[0])
        points = engine_rates(job, QUICK if args.quick else (*SCORE, *REASON), facts["threads"])
    torch.set_num_threads(1)
    products = product_rates(shape, facts["dtype"], rows, facts["threads"], least_s)
    torch.set_num_threads(facts["threads"])
    peak = max(layer_rate(products, count) for count in rows)
    for point in points:
        rate = point["gflop_per_s"]
        point["share_of_peak"] = rate and rate / peak
        words = f"{shown(rate, 1)} GFLOP/s, {shown(point['share_of_peak'])} of the layer's products"
        print(f"{point['mode']} of {point['candidates']}: {words}")
    if args.json is not None:
        record = {
            "kind": "roofline",
            "host": host(),
            **facts,
            "torch": torch.__version__,
            "bandwidth_gb_per_s": bandwidth(mib, least_s),
            "weight_bytes": {"fp32": 4, "bf16": 2, "int8": 1}[facts["dtype"]],
            "products": products,
            "layer": [{"rows": count, "gflop_per_s": layer_rate(products, count)} for count in rows],
            "engine": points,
        }
        write_record(args.json, record)


if __name__ == "__main__":
    main()
