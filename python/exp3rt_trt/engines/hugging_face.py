"""The import of `transformers`: late, because it takes seconds, and quiet."""

from __future__ import annotations

import os
from typing import Any

ADVICE_OFF = "TRANSFORMERS_NO_ADVISORY_WARNINGS"


def load_transformers() -> Any:  # noqa: ANN401  (a module, untyped)
    """Imports `transformers` without its advice to install PyTorch, which tokenizers do not need."""
    before = os.environ.get(ADVICE_OFF)
    os.environ[ADVICE_OFF] = "1"
    try:
        import transformers  # noqa: PLC0415
    finally:
        if before is None:
            del os.environ[ADVICE_OFF]
        else:
            os.environ[ADVICE_OFF] = before
    return transformers
