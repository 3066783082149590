"""`exp3rt-trt serve` as a process of its own, and what is seen of it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_Found = TypeVar("_Found")
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
COMMAND = (sys.executable, "-c", "from exp3rt_trt.cli.app import main; main()", "serve", "--port", "0")


class Server:
    """A server that runs while the context is open.

    Args:
        engine: directory.
        log: file that its lines go to.
        options: of `exp3rt-trt serve`.

    Raises:
        RuntimeError: if it ends before it answers.
    """

    def __init__(self, engine: Path, log: Path, options: Sequence[str]) -> None:
        self._log = log
        with log.open("wb") as file:
            command = [*COMMAND, "--engine", str(engine), *options]
            self._process = subprocess.Popen(command, stderr=file)  # noqa: S603  (our own command)
        self.address = f"http://127.0.0.1:{self._until(self._port)}"
        self._until(self.answers)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Return the lines of the log with that message."""
        lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("}\n")]
        return [line for line in found if line["message"] == message]

    def pids(self) -> list[int]:
        """Return the processes with an engine."""
        workers = [line["pid"] for line in self.lines("worker started")]
        return [pid for pid in workers if Path(f"/proc/{pid}").exists()] or [self._process.pid]

    def answers(self) -> bool:
        """Ask for its health."""
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False

    def _port(self) -> int | None:
        return next((line["port"] for line in self.lines("listening")), None)

    def _until(self, condition: Callable[[], _Found]) -> _Found:
        while not (found := condition()):
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}; see {self._log}")
            time.sleep(0.02)
        return found


class Memory:
    """Watches the memory of processes while the context is open.

    Args:
        pids: of the processes.
        every_s: seconds from sample to sample.
    """

    def __init__(self, pids: Sequence[int], every_s: float = 0.25) -> None:
        self.samples: list[float] = []
        self._pids = pids
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        self._sample()
        while not self._over.wait(self._every_s):
            self._sample()

    def _sample(self) -> None:
        self.samples.append(sum(_rss_mib(pid) for pid in self._pids))


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_MIB
