"""Packages that not everyone needs: they come with an extra and are imported when they are first used."""

from __future__ import annotations

import importlib
from typing import Any

from exp3rt_trt.errors import Exp3rtError


def require(module: str, extra: str) -> Any:  # noqa: ANN401  (a module of someone else's)
    """Import a package of an extra.

    Args:
        module: dotted name of the module.
        extra: which of this package's extras installs it.

    Returns:
        The module.

    Raises:
        Exp3rtError: naming the package that is missing and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Exp3rtError(
            f'{module.split(".", maxsplit=1)[0]} is needed here: pip install "exp3rt_trt[{extra}]" ({error})'
        ) from error
