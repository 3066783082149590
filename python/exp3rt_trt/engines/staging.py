"""Puts a new directory in place of an older one at once, so that a killed build leaves nothing half-made."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt.engines.manifest import MANIFEST, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE_FILES = frozenset((MANIFEST, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG))
AT_FDCWD = -100
RENAME_EXCHANGE = 2  # of renameat2(2)


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Gives a temporary directory beside `out`, which takes its place when the block ends well.

    What builds of the same `out` left behind when they were killed is removed first; what running ones
    write is not, because each holds a lock on its directory.

    Args:
        out: The directory to make or replace.

    Yields:
        The temporary directory.

    Raises:
        BuildError: `out` is something else than an engine, or cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _restore(out)
        check_replaceable(out)
        for left in out.parent.glob(f".{out.name}.building-*"):
            _remove_abandoned(left)
        directory, lock = _make_locked(out)
    except OSError as error:
        raise BuildError(f"{out}: cannot be written: {error}") from error
    try:
        yield directory
        sync(directory)
        _put_in_place(directory, out)
        sync(out.parent)
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # after an exchange: the older engine
        os.close(lock)


def check_replaceable(out: Path) -> None:
    """Refuses to replace anything but an engine or an empty directory.

    Raises:
        BuildError: `out` is a file, or holds files that no build writes.
    """
    if not os.path.lexists(out):
        return
    if not out.is_dir() or out.is_symlink():
        raise BuildError(f"{out}: exists and is not a directory")
    known = ENGINE_FILES | _named_by_manifest(out)
    others = sorted(path.name for path in out.iterdir() if path.name not in known)
    if others:
        raise BuildError(
            f"{out}: holds files that are not of an engine, such as {others[0]}; give another --out"
        )


def _named_by_manifest(out: Path) -> set[str]:
    """The files that an engine there says it has; none if it says nothing that can be read."""
    try:
        return set(json.loads((out / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def sync(directory: Path) -> None:
    """Flushes a directory's entries to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_locked(out: Path) -> tuple[Path, int]:
    """Makes a temporary directory and locks it; again if another build's cleaning came in between."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=f".{out.name}.building-", dir=out.parent))
        directory.chmod(0o755)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # a file system without locks: then nobody cleans, either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if directory.exists():
                return directory, lock
            os.close(lock)


def _remove_abandoned(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        except OSError:
            pass  # its build is running
        finally:
            os.close(lock)


def _put_in_place(directory: Path, out: Path) -> None:
    """Renames the new directory to `out`; an older one goes to the new one's name in the same instant."""
    if not out.exists():
        directory.rename(out)
        return
    if _exchange(directory, out):
        return
    aside = _aside(out)  # a file system without the exchange: between the two lines, there is no `out`
    out.rename(aside)
    directory.rename(out)
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _restore(out: Path) -> None:
    """Brings back the older engine of a build that was killed between the two renames."""
    aside = _aside(out)
    if aside.exists() and not out.exists():
        aside.rename(out)
    shutil.rmtree(aside, ignore_errors=True)
