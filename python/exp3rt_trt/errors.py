"""The errors that this package raises."""

from __future__ import annotations


class Exp3rtError(Exception):
    """Base of all errors of this package."""


class InvalidInputError(Exp3rtError, ValueError):
    """What the caller gave cannot be used; the message names the field or item and the limit."""


class EngineError(Exp3rtError, RuntimeError):
    """An engine directory cannot be used; the message names the file and what is wrong with it."""


class BuildError(Exp3rtError, RuntimeError):
    """An engine cannot be built; the message names the checkpoint's file, field or tensor."""


class CatalogError(Exp3rtError, RuntimeError):
    """A catalogue cannot be used; the message names the folder or file and what is wrong with it."""
