"""Which engine the benchmarks use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--engine`."""
    parser.addoption(
        "--engine", default="engines/smollm2-135m", help="engine directory, or what one is built from"
    )
