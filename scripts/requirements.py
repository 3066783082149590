"""Prints requirements that pyproject.toml declares, one a line: `requirements.py build|run|<extra> ...`.

pip cannot install a project's requirements without the project. The Makefile does, so that lint needs no
compiler and builds are incremental (pip's own environment for a build lies in a new folder every time).
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib


def requirements(sections: list[str]) -> list[str]:
    pyproject = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    declared = {
        "build": pyproject["build-system"]["requires"],
        "run": pyproject["project"]["dependencies"],
        **pyproject["project"]["optional-dependencies"],
    }
    return [requirement for section in sections for requirement in declared[section]]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
