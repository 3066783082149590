"""Checks of options, with errors that name them."""

from __future__ import annotations

import numbers

from exp3rt_trt.errors import InvalidInputError


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number from `least` to `most`; a numpy integer is one, True is not.

    Raises:
        InvalidInputError: naming the option and the value.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidInputError(f"{name} must be a whole number, not {value!r}")
    if int(value) < least:
        raise InvalidInputError(f"{name} must be at least {least}, not {value}")
    if most is not None and int(value) > most:
        raise InvalidInputError(f"{name} must be at most {most}, not {value}")


def check_number(name: str, value: object, *, positive: bool = False) -> None:
    """Refuse what is no number of at least 0, or above it.

    Raises:
        InvalidInputError: naming the option and the value.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidInputError(f"{name} must be a number, not {value!r}")
    if not (float(value) > 0 if positive else float(value) >= 0):
        raise InvalidInputError(f"{name} must be {'positive' if positive else 'at least 0'}, not {value}")


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse what is not of a class, but for None.

    Raises:
        InvalidInputError: naming the option, the class and what was given.
    """
    if value is not None and not isinstance(value, kind):
        raise InvalidInputError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
