"""From a bound port to one process that serves, or to several and a parent that replaces those that die."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from exp3rt_trt.errors import EngineError, InvalidInputError
from exp3rt_trt.serve import logs
from exp3rt_trt.serve.worker import METRICS_FOLDER, Worker

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from types import FrameType

LOGGER = logging.getLogger("exp3rt_trt.serve")
SHORT_LIFE_S = 5.0  # a worker that lived shorter is not replaced at once, lest this becomes a busy loop


def serve(worker: Worker, host: str, port: int, workers: int) -> None:
    """Serve until a signal.

    Args:
        worker: what serves.
        host: to listen on.
        port: to listen on; 0 for any that is free.
        workers: processes that share the port, each with an engine of its own.

    Raises:
        InvalidInputError: if nothing can listen there.
        EngineError: if a worker cannot start.
    """
    logs.configure()
    with _listen(host, port) as listening:
        address = listening.getsockname()
        LOGGER.info("listening", extra={"fields": {"host": address[0], "port": address[1]}})
        if workers == 1:
            worker.run(listening)
            return
        with tempfile.TemporaryDirectory(prefix="exp3rt-trt-metrics-") as folder:
            os.environ[METRICS_FOLDER] = folder
            Supervisor(worker, listening, workers).run()


class Supervisor:
    """Starts workers, replaces those that a signal ended, and ends them all when it is told to end.

    A worker that ends by itself could not start; then all end.
    """

    def __init__(self, worker: Worker, listening: socket.socket, workers: int) -> None:
        self._worker = worker
        self._listening = listening
        self._workers = workers
        self._started: dict[SpawnProcess, float] = {}
        self._ending = threading.Event()

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT.

        Raises:
            EngineError: if a worker could not start.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        for _ in range(self._workers):
            self._start()
        while self._started:
            wait([process.sentinel for process in self._started], timeout=1.0)
            for process in [process for process in self._started if process.exitcode is not None]:
                self._replace(process)

    def _start(self) -> None:
        if self._ending.is_set():
            return
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=run_worker, args=(self._worker, self._listening))
        process.start()
        self._started[process] = time.monotonic()
        LOGGER.info("worker started", extra={"fields": {"pid": process.pid}})
        if self._ending.is_set():  # told to while it was started, before it was known
            process.terminate()

    def _replace(self, process: SpawnProcess) -> None:
        lived_s = time.monotonic() - self._started.pop(process)
        fields = {"pid": process.pid, "exit": process.exitcode}
        if self._ending.is_set():
            return
        LOGGER.error("worker ended", extra={"fields": fields})
        if (process.exitcode or 0) >= 0:
            self._end()
            raise EngineError(f"worker {process.pid} ended with {process.exitcode}; its log says why")
        if lived_s < SHORT_LIFE_S:
            time.sleep(1.0)
        self._start()

    def _end(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._ending.set()
        for process in self._started:
            process.terminate()


def run_worker(worker: Worker, listening: socket.socket) -> None:
    """Serve in a child of the supervisor, and end with it."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
    worker.run(listening)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise InvalidInputError(f"host {host!r}, port {port}: {error.strerror or error}") from error
    listening.set_inheritable(True)
    return listening
