"""Compares an engine with transformers in float32 on the same weights.

    python benchmarks/verify_reference.py --engine engines/smollm2-135m --workload FILE.jsonl --json out.json

Score mode: the largest difference in expected rating, and how many of each user's ten best candidates are the
same. Reason mode: the share of candidates for which both write the same greedy tokens. The reference takes
about a second a candidate (reason mode: ten), so its results are kept in --reference-cache, candidate by
candidate; run it again to go on. Needs PyTorch (the extra [test]).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exp3rt_trt import RatingScale, Reranker
from exp3rt_trt.cli.bench import read_workload
from exp3rt_trt.distill.branching import cache_argument
from exp3rt_trt.engines.sources import fingerprint, resolve
from exp3rt_trt.groups import RawPrompts
from exp3rt_trt.prompts import REASON_ANSWER, REASON_OPENING, SCORE_OPENING
from exp3rt_trt.rating import expected_rating, label_probabilities
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

SCALE = RatingScale.one_to_ten()
Rated = dict[str, Any]  # {"logits": [num_labels], "reasoning": token ids}


class Reference:
    """The checkpoint in transformers, in float32, with its own tokenizer.

    Args:
        path: a checkpoint directory or a GGUF file.
        reason_tokens: how many tokens to write before the rating; 0 for none.
    """

    def __init__(self, path: Path, reason_tokens: int) -> None:
        where: dict[str, Any] = {"pretrained_model_name_or_path": path}
        if path.suffix == ".gguf":
            where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
        self.model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(**where)
        self.reason_tokens = reason_tokens
        self.answer = self.encode(REASON_ANSWER)
        self.labels = [self.encode("x" + label)[-1] for label in SCALE.labels]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a raw text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def prefill(self, tokens: list[int]) -> DynamicCache:
        """Compute what all candidates share."""
        cache = DynamicCache(config=self.model.config)
        self._logits(tokens, cache)
        return cache

    def rate(self, prefix: DynamicCache, tokens: list[int]) -> Rated:
        """Continue a prefix with a candidate's tokens, and read the labels."""
        cache = copy.deepcopy(prefix)
        logits = self._logits(tokens, cache)
        reasoning = []
        for _ in range(self.reason_tokens):
            reasoning.append(int(logits.argmax()))
            logits = self._logits(reasoning[-1:], cache)
        if reasoning:
            logits = self._logits(self.answer, cache)
        return {"logits": logits[self.labels].tolist(), "reasoning": reasoning}

    @torch.no_grad()
    def _logits(self, tokens: list[int], cache: DynamicCache) -> torch.Tensor:
        past = {cache_argument(self.model): cache}
        out = self.model(torch.tensor([tokens]), **past, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = out.logits[0, -1]
        return logits


class Kept:
    """The reference's results so far: a JSONL file, one candidate a line."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rated: dict[str, Rated] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.rated[row["key"]] = row

    def add(self, key: str, rated: Rated) -> None:
        """Keep one candidate's result."""
        self.rated[key] = rated
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **rated}) + "\n")


def reference_ratings(
    users: list[Rated], model: Path, reason_tokens: int, opening: str, kept: Kept
) -> list[list[Rated]]:
    """Rate a workload with the reference, but for what is kept already."""
    source = f"{fingerprint(model)} {reason_tokens} {opening}"
    reference: Reference | None = None
    ratings = []
    for number, user in enumerate(users, start=1):
        prompts = [user["prefix"] + item["suffix"] + opening for item in user["candidates"]]
        keys = [hashlib.sha256(f"{source}\n{prompt}".encode()).hexdigest() for prompt in prompts]
        missing = [i for i, key in enumerate(keys) if key not in kept.rated]
        if missing:
            reference = reference or Reference(model, reason_tokens)
            tokens = [reference.encode(prompt) for prompt in prompts]
            shared = common_length(tokens)
            prefix = reference.prefill(tokens[0][:shared])
            for count, i in enumerate(missing, start=1):
                kept.add(keys[i], reference.rate(prefix, tokens[i][shared:]))
                print(
                    f"\ruser {number}: reference {count}/{len(missing)}", end="", file=sys.stderr, flush=True
                )
            print(file=sys.stderr)
        ratings.append([kept.rated[key] for key in keys])
    return ratings


def common_length(prompts: list[list[int]]) -> int:
    """Return how many leading tokens all prompts share, leaving each at least one of its own."""
    limit = min(map(len, prompts)) - 1
    return next((i for i in range(limit) if len({prompt[i] for prompt in prompts}) > 1), limit)


def engine_ratings(
    engine: str, users: list[Rated], reason_tokens: int, opening: str, threads: int
) -> tuple[list[list[Rated]], str]:
    """Rate a workload with the engine; also return its dtype."""
    with Reranker.from_pretrained(engine, scale=SCALE, threads=threads) as reranker:
        prompts = []
        for user in users:
            suffixes = [item["suffix"] for item in user["candidates"]]
            prompts.append(RawPrompts(user["prefix"], suffixes, opening, reason_tokens, REASON_ANSWER))
        ratings = [
            [
                {"ratings": rating, "reasoning": list(tokens)}
                for rating, tokens in zip(scores.expected_ratings, scores.reasoning_tokens, strict=True)
            ]
            for scores in reranker.run_prompts(prompts)
        ]
        return ratings, reranker.engine.manifest.dtype


def compare(reference: list[list[Rated]], engine: list[list[Rated]]) -> Rated:
    """Compare two ratings of the same workload.

    Returns:
        Differences in expected rating over the candidates whose reasoning is the same, overlaps of each
        user's ten best, the share of candidates with the same reasoning, and of tokens before the first
        difference.
    """
    differences, overlaps, same, leading = [], [], [], []
    for expected, found in zip(reference, engine, strict=True):
        a = expected_rating(label_probabilities(np.array([row["logits"] for row in expected])), SCALE.values)
        b = np.array([row["ratings"] for row in found])
        overlaps.append(
            len(set(np.argsort(-a, kind="stable")[:10]) & set(np.argsort(-b, kind="stable")[:10]))
        )
        for i, (one, other) in enumerate(zip(expected, found, strict=True)):
            equal = [x == y for x, y in zip(one["reasoning"], other["reasoning"], strict=True)]
            same.append(all(equal))
            leading.append(equal.index(False) / len(equal) if not all(equal) else 1.0)
            if all(equal):
                differences.append(abs(float(a[i] - b[i])))
    return {
        "candidates": len(same),
        "max_abs_difference": max(differences, default=None),
        "mean_abs_difference": float(np.mean(differences)) if differences else None,
        "top10_overlap": overlaps,
        "same_reasoning_share": float(np.mean(same)),
        "same_leading_tokens_share": float(np.mean(leading)),
    }


def main() -> None:
    """Compare, and write the findings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", required=True, help="engine directory")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="what the engine was built from")
    parser.add_argument("--workload", required=True, type=Path)
    parser.add_argument("--mode", choices=["score", "reason"], default="score")
    parser.add_argument("--users", type=int, default=2)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--reason-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="of both; 1 is much faster on a busy machine")
    parser.add_argument("--reference-cache", type=Path, help="JSONL file that keeps the reference's results")
    parser.add_argument("--json", type=Path, help="file for the findings")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    reason_tokens = args.reason_tokens if args.mode == "reason" else 0
    opening = REASON_OPENING if args.mode == "reason" else SCORE_OPENING
    users = list(read_workload(args.workload, args.users, args.candidates))
    reference = reference_ratings(
        users, resolve(args.model), reason_tokens, opening, Kept(args.reference_cache)
    )
    engine, dtype = engine_ratings(args.engine, users, reason_tokens, opening, args.threads)
    findings = {"mode": args.mode, "dtype": dtype, "users": len(users), **compare(reference, engine)}
    print(json.dumps(findings, indent=2))
    if args.json is not None:
        args.json.write_text(json.dumps(findings) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
