"""What all peers share: the command line and the JSON of `exp3rt-trt bench`, and how a rating is read.

Standard library and numpy only, so that it runs in any peer's environment. A peer's script makes a `Peer`
and gives it to `main`; see vllm_peer.py for the shortest one. Prompts, digits and greedy tokens are the
same for all: score mode reads the digits behind "Predicted User Rating: ", reason mode writes exactly so
many tokens first.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SCORE_OPENING = "Predicted User Rating: "
REASON_OPENING = "Reasoning:"
REASON_ANSWER = "\nPredicted User Rating: "
DIGITS = "0123456789"
RATINGS = np.arange(1.0, 11.0)

Prompts = list[list[int]]  # token ids of one user's candidates, whole prompts
User = dict[str, Any]


class Peer(Protocol):
    """An engine under measurement. Lists are by user; a user's prompts share their beginning."""

    name: str
    version: str
    dtype: str
    threads: int
    settings: dict[str, Any]
    prompt_tokens_computed: int | None
    prompt_tokens_reused: int | None

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens, special ones recognised, none added."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""

    def read_labels(self, users: list[Prompts], labels: list[int]) -> list[NDArray[np.float64]]:
        """Return logits or log-probabilities of the labels, [num_prompts, num_labels] a user."""

    def reason(
        self, users: list[Prompts], num_tokens: int, answer: list[int], labels: list[int]
    ) -> tuple[list[Prompts], list[NDArray[np.float64]]]:
        """Write exactly so many greedy tokens behind each prompt, then the answer, and read the labels.

        The end of the text is ignored. Returns the written tokens, and what `read_labels` returns.
        """


def parse_arguments(name: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line that all peers share."""
    parser = argparse.ArgumentParser(description=f"Rates a workload with {name}.")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint directory or GGUF file")
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--mode", choices=["score", "reason"], required=True)
    parser.add_argument("--json", type=Path, required=True, help="file for the results and measurements")
    parser.add_argument("--users", type=int)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--reason-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="0 for all")
    parser.add_argument("--kv-cache-mib", type=int, default=1024, help="where the peer has such a setting")
    parser.add_argument("--dtype", default="bf16", help="bf16 or fp32, where the peer has a choice")
    args = parser.parse_args(arguments)
    args.threads = args.threads or len(os.sched_getaffinity(0))
    return args


def main(
    name: str, make: Callable[[argparse.Namespace], Peer], arguments: Sequence[str] | None = None
) -> None:
    """Run a peer on a workload and write its JSON.

    The clock runs from the first prompt handed over to the last result, tokenization included. One short
    prompt before it, which counts as loading, lets a peer compile and allocate.
    """
    args = parse_arguments(name, arguments)
    users = read_workload(args.workload, args.users, args.candidates)
    started = time.perf_counter()
    peer = make(args)
    labels = [peer.encode("x" + digit)[-1] for digit in DIGITS]
    peer.read_labels([[peer.encode("Warm. " + SCORE_OPENING)]], labels)
    peer.prompt_tokens_computed = peer.prompt_tokens_reused = None
    load_s = time.perf_counter() - started
    started = time.perf_counter()
    results = rate(peer, users, labels, args.reason_tokens if args.mode == "reason" else 0)
    seconds = time.perf_counter() - started
    count = sum(len(user["items"]) for user in results)
    measured = {
        "candidates_per_s": count / seconds,
        "prompt_tokens_computed": peer.prompt_tokens_computed,
        "prompt_tokens_reused": peer.prompt_tokens_reused,
        "generated_tokens": count * args.reason_tokens if args.mode == "reason" else 0,
        "load_s": load_s,
        "peak_rss_mib": peak_rss_mib(),
        "dtype": peer.dtype,
        "threads": peer.threads,
        "isa": None,
        "peer": peer.name,
        "version": peer.version,
        "settings": peer.settings,
    }
    args.json.write_text(
        json.dumps({"users": results, **measured}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(" ".join(f"{key}={value}" for key, value in measured.items()))


def read_workload(path: Path, users: int | None, candidates: int | None) -> list[User]:
    """Read a workload, cut to that many users and candidates of each."""
    with path.open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    return [{**user, "candidates": user["candidates"][:candidates]} for user in lines[:users]]


def rate(peer: Peer, users: list[User], labels: list[int], reason_tokens: int) -> list[User]:
    """Rate a workload: the users' objects as `exp3rt-trt bench` writes them."""
    opening = REASON_OPENING if reason_tokens else SCORE_OPENING
    prompts = [
        [peer.encode(user["prefix"] + item["suffix"] + opening) for item in user["candidates"]]
        for user in users
    ]
    if reason_tokens:
        written, logits = peer.reason(prompts, reason_tokens, peer.encode(REASON_ANSWER), labels)
        texts: list[Sequence[str | None]] = [
            [peer.decode(tokens) for tokens in of_user] for of_user in written
        ]
    else:
        logits = peer.read_labels(prompts, labels)
        texts = [[None] * len(of_user) for of_user in prompts]
    return [_rated(*of_user) for of_user in zip(users, logits, texts, strict=True)]


def extended(users: list[Prompts], written: list[Prompts], answer: list[int]) -> list[Prompts]:
    """Return the prompts of the second request, for peers that need one to read the labels."""
    return [
        [prompt + tokens + answer for prompt, tokens in zip(*of_user, strict=True)]
        for of_user in zip(users, written, strict=True)
    ]


def _rated(user: User, logits: NDArray[np.float64], reasonings: Sequence[str | None]) -> User:
    probabilities = softmax(logits)
    items = [
        {
            "item_id": item.get("item_id"),
            "expected_rating": float(row @ RATINGS),
            "probabilities": row.tolist(),
            "reasoning": reasoning,
        }
        for item, row, reasoning in zip(user["candidates"], probabilities, reasonings, strict=True)
    ]
    return {"user_id": user.get("user_id"), "items": items}


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities over exactly the labels, [num_prompts, num_labels]."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)


def common_length(prompts: Prompts) -> int:
    """Return how many leading tokens all prompts share, leaving each at least one of its own."""
    first, last = min(prompts), max(prompts)  # in the order of lists these two differ first
    limit = min(map(len, prompts)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def peak_rss_mib() -> float:
    """Return the peaks of this process and of its living children, summed."""
    return sum(_peak_kib(pid) for pid in _family(os.getpid())) / 1024


def _family(pid: int) -> list[int]:
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            found += _family(int(child))
    return found


def _peak_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
