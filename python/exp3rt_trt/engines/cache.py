"""The cache folder: fetched students, engines built on the way, and which files were verified."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_dir() -> Path:
    """Names the cache folder: $EXP3RT_TRT_CACHE, or ~/.cache/exp3rt_trt. It may not exist yet."""
    named = os.environ.get("EXP3RT_TRT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "exp3rt_trt"


@contextlib.contextmanager
def exclusive(path: Path, advice: str = "; $EXP3RT_TRT_CACHE names the cache") -> Iterator[None]:
    """Holds a lock that other processes wait for; it ends with the process at the latest.

    Args:
        path: The lock's file; made, and left there.
        advice: End of the message if it cannot be made.

    Raises:
        BuildError: The file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise BuildError(f"{path.parent}: cannot be written: {error}{advice}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_verified(path: Path, sha256: str) -> bool:
    """Tells whether this very state of the file was once found to have this sha256."""
    try:
        return _marker(path, sha256).exists()
    except OSError:
        return False


def remember_verified(path: Path, sha256: str) -> None:
    """Notes that the file, as it is now, has this sha256; a cache that cannot be written is no error."""
    with contextlib.suppress(OSError):
        marker = _marker(path, sha256)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


def _marker(path: Path, sha256: str) -> Path:
    """An empty file whose name stands for one state of one file. Any write to the file changes its ctime."""
    stat = path.stat()
    state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, sha256)
    return cache_dir() / "verified" / hashlib.sha256(repr(state).encode()).hexdigest()
