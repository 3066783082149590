"""Runs locust against a server."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SCENARIO = Path(__file__).with_name("locustfile.py")
FLAGS = ("--headless", "--only-summary", "--loglevel", "CRITICAL", "--exit-code-on-error", "0")


@dataclass
class Asking:
    """Sizes of the requests, and where locust puts what it saw.

    Args:
        candidates: of a request.
        words: of a candidate.
        profile_words: of a user.
        folder: for files.
    """

    candidates: int
    words: int
    profile_words: int
    folder: Path
    runs: int = 0

    def ask(
        self,
        address: str,
        requests: int,
        connections: int,
        rate: float = 0.0,
        during: Callable[[], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Return a row for each request.

        Args:
            address: of the server.
            requests: how many.
            connections: how many requests can be under way.
            rate: of arrivals, a second; 0 for a closed loop.
            during: called while locust runs.
        """
        self.runs += 1
        out = self.folder / f"run-{self.runs}.jsonl"
        options = {"-f": SCENARIO, "--host": address, "--users": connections, "--spawn-rate": connections}
        options |= {"--rate": rate, "--requests": requests, "--seed": self.runs, "--out": out}
        options |= {"--candidates": self.candidates, "--words": self.words}
        options |= {"--profile-words": self.profile_words}
        words = [str(word) for pair in options.items() for word in pair]
        command = [sys.executable, "-m", "locust", *FLAGS, *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603  (ours)
            if during is not None:
                during()
            _, errors = process.communicate()
        if process.returncode or not out.exists():
            raise SystemExit(f"locust ended with {process.returncode}: {errors}")
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
