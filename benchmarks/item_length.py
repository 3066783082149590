"""What a pair costs against the length of its item, when both sides are cached (docs/segments.md).

    python benchmarks/item_length.py --engine SEGMENTED --json item_length.json

One user with so many candidates, whose items are in memory and whose own text is in the prefix cache: what
is left of a pair is its answer and the reading of its item's keys and values. The best of `--repeats` calls
counts, in three parts: attention, what else the engine computes, and what Python does beside it (tokenizing).
Beside them stands the time that memory takes for these bytes at the bandwidth that is measured here.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exp3rt_trt import RatingScale, Reranker
from exp3rt_trt.engines.footprint import cpu_item_bytes
from exp3rt_trt.groups import RawPrompts
from exp3rt_trt.prompts import SCORE_OPENING
from exp3rt_trt.tokenization import PromptTokenizer
from measure import engine_facts
from records import host, write_record
from roofline import bandwidth
from workloads import make_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTHS = (64, 128, 256, 512, 768, 1000)
INSTRUCTIONS = "Rate.\n"


def measure(reranker: Reranker, length: int, candidates: int, repeats: int, kept: str) -> dict[str, Any]:
    """Return a pair's seconds with an item of `length` words, in all and by part, and the bytes of one item.

    Raises:
        ValueError: a candidate was not rated.
    """
    user = make_prompts(64, length, candidates, seed=length)
    suffixes = [item["suffix"] for item in user["candidates"]]
    prompts = RawPrompts(INSTRUCTIONS + user["prefix"], suffixes, SCORE_OPENING, instructions=INSTRUCTIONS)
    calls = []
    for _ in range(1 + repeats):  # the first call computes the items
        before, started = reranker.stats(), time.perf_counter()
        (scores,) = reranker.run_prompts([prompts])
        seconds, after = time.perf_counter() - started, reranker.stats()
        calls.append((seconds, after.compute_s - before.compute_s, after.attention_s - before.attention_s))
        wrong = next((status for status in scores.statuses if status != "ok"), None)
        if wrong is not None:
            raise ValueError(f"an item of {length} words: {wrong}")
    cut = PromptTokenizer(reranker.engine.tokenizer_path).encode_joint("", suffixes)
    tokens = round(sum(len(each.suffix) for each in cut) / len(cut))
    item_bytes = cpu_item_bytes(reranker.engine.manifest.model, kept, tokens)
    seconds, compute, attention = (each / candidates for each in min(calls[1:]))
    parts = {"attention_s": attention, "rest_s": compute - attention, "python_s": seconds - compute}
    return {"tokens": tokens, "seconds_a_pair": seconds, **parts, "item_bytes": item_bytes}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", type=Path, required=True, help="engine of a segmented student")
    parser.add_argument("--item-kv-dtype", default="", help="int8, or as the engine's")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), help="words of an item")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--item-cache-mib", type=int, default=4096)
    parser.add_argument("--bandwidth-mib", type=int, default=1024, help="read to measure the memory")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    gb_per_s = bandwidth(args.bandwidth_mib, 0.5)
    with Reranker.from_pretrained(
        args.engine,
        scale=RatingScale.one_to_ten(),
        item_cache_mib=args.item_cache_mib,
        item_kv_dtype=args.item_kv_dtype,
    ) as reranker:
        facts = engine_facts(reranker)
        kept = args.item_kv_dtype or facts["dtype"]
        rows = [measure(reranker, each, args.candidates, args.repeats, kept) for each in args.lengths]
    for row in rows:
        row["reading_s"] = row["item_bytes"] / gb_per_s / 1e9
        print(
            f"{row['tokens']:5d} tokens: {row['seconds_a_pair'] * 1e3:.3f} ms a pair, "
            f"{row['attention_s'] * 1e3:.3f} of them attention, {row['python_s'] * 1e3:.3f} Python, "
            f"{row['rest_s'] * 1e3:.3f} the rest; "
            f"{row['reading_s'] * 1e3:.3f} ms to read {row['item_bytes'] / 1e6:.2f} MB"
        )
    if args.json is not None:
        found = {
            "candidates": args.candidates,
            "item_dtype": kept,
            "bandwidth_gb_per_s": gb_per_s,
            "rows": rows,
        }
        write_record(args.json, {"kind": "item_length", "host": host(), **facts, **found})


if __name__ == "__main__":
    main()
