"""Runs the commands of a build, with everything they say in one log."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections import deque
from typing import TYPE_CHECKING

from exp3rt_trt.engines.trtllm.versions import INSTALL_ENGINES
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.engines.devices import GpuDevice
    from exp3rt_trt.engines.trtllm.commands import Command

LAST_LINES = 15


def run_command(command: Command, folder: Path, log: Path, device: GpuDevice) -> None:
    """Runs a command in a folder, on one GPU, and waits for its end.

    Nothing is fetched and nothing is sent home. The GPU is the chosen one unless CUDA_VISIBLE_DEVICES says
    otherwise.

    Args:
        command: To be run.
        folder: Where it runs.
        log: Gets its command line and what it says, behind what is there.
        device: The GPU.

    Raises:
        BuildError: It cannot be started, or fails; the message has the log's last lines and its path.
    """
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRTLLM_NO_USAGE_STATS": "1"}
    gpu = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(device.index)}
    if device.mig:
        gpu = {}  # an instance has no number of its own; CUDA takes the first one
    with log.open("ab") as file:
        file.write(f"$ {shlex.join(command.arguments)}\n".encode())
        file.flush()
        try:
            code = subprocess.run(  # noqa: S603  (made of a recipe's values)
                command.arguments,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**gpu, **os.environ, **quiet},
                check=False,
            ).returncode
        except OSError as error:
            raise BuildError(
                f"{command.arguments[0]}: cannot be run: {error.strerror}; it comes with `{INSTALL_ENGINES}`"
            ) from error
    if code != 0:
        raise BuildError(
            f"{command.arguments[0]}: failed with exit status {code}; the log is {log}; its last lines:\n"
            f"{last_lines(log)}"
        )


def last_lines(log: Path) -> str:
    """Gives the last lines of a log, with damaged text replaced."""
    with log.open(encoding="utf-8", errors="replace") as file:
        return "".join(deque(file, maxlen=LAST_LINES)).rstrip()
