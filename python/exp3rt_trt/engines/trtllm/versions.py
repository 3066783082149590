"""Which TensorRT-LLM is installed, and what must be done if another one is needed."""

from __future__ import annotations

import re
from importlib import metadata

INSTALL_ENGINES = 'pip install "tensorrt-llm==1.2.1"'  # CPython 3.12; the last release that builds engines
INSTALL_LLM_API = 'pip install "tensorrt-llm>=1.3"'
TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
ENGINES_SERIES = (1, 2)
LLM_API_SERIES = (1, 3)


def tensorrt_llm_version() -> str | None:
    """Gives the installed TensorRT-LLM's version without importing it; None if there is none."""
    return _version("tensorrt_llm")


def tensorrt_version() -> str | None:
    """Gives the installed TensorRT's version without importing it; None if there is none."""
    return next((found for name in TENSORRT_PACKAGES if (found := _version(name)) is not None), None)


def series(version: str) -> tuple[int, int]:
    """Takes the first two numbers of a version: (1, 3) of "1.3.0rc2"; (0, 0) if it has none."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def builds_engines(version: str | None) -> bool:
    """Tells whether a version of TensorRT-LLM builds TensorRT engines as this package needs them."""
    return version is not None and series(version) == ENGINES_SERIES and not _has_stale_keys(version)


def has_llm_api(version: str | None) -> bool:
    """Tells whether a version of TensorRT-LLM is run through its LLM API."""
    return version is not None and series(version) >= LLM_API_SERIES


def cuda_version() -> str:
    """Gives the CUDA version that the driver supports, such as "13.0"; empty where there is no driver."""
    import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415  (most machines never need it)

    try:
        pynvml.nvmlInit()
        number = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return ""
    return f"{number // 1000}.{number % 1000 // 10}"


def _has_stale_keys(version: str) -> bool:
    """1.2.0 (and its candidates) mixes up cached keys under reuse; repaired by TensorRT-LLM's PR 12825."""
    return re.match(r"1\.2\.0(?!\d)", version) is not None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
