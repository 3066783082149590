"""Steps whose outputs are kept, each in a folder that is named after what went into it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from exp3rt_trt.engines.weights_file import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DONE = "done.json"


def run_step(
    work: Path, name: str, inputs: dict[str, Any], make: Callable[[Path], dict[str, Any]]
) -> tuple[Path, dict[str, Any]]:
    """Run a step unless it was done before with the same inputs.

    A step that was interrupted is run again in the same folder and may go on with what it left there.

    Args:
        work: folder of all steps.
        name: of the step.
        inputs: all that its output depends on; files by their sha256.
        make: fills the folder and returns what is worth knowing.

    Returns:
        The step's folder, and what `make` returned then or now.
    """
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
    folder = work / f"{name}-{key}"
    done = folder / DONE
    if done.exists():
        result: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))["result"]
        return folder, result
    folder.mkdir(parents=True, exist_ok=True)
    result = make(folder)
    fresh = folder / f"{DONE}.new"
    fresh.write_text(json.dumps({"inputs": inputs, "result": result}, indent=2) + "\n", encoding="utf-8")
    fresh.replace(done)
    return folder, result


def hashes(files: list[Path]) -> dict[str, str]:
    """Return the sha256 of files by their names."""
    return {file.name: sha256_of(file) for file in files}
