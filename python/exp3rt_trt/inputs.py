"""What a caller hands over: a user's profile and candidate items, as objects, dicts or plain strings."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, SupportsIndex, TypeAlias, TypeVar

from exp3rt_trt.errors import InvalidInputError

Id: TypeAlias = "str | int"


@dataclass(frozen=True)
class UserProfile:
    """A user's taste in words.

    Args:
        profile: what the user likes and dislikes.
        user_id: handed back with the ranking.
        average_rating: mean of the user's ratings so far, on the rating scale's values.
        metadata: anything of the caller's; never read.
    """

    profile: str
    user_id: Id | None = None
    average_rating: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Item:
    """A candidate. At least one of title, description and profile must say something.

    Args:
        item_id: distinguishes it from the other candidates; handed back.
        title: its name.
        description: what it is.
        profile: what other people liked and disliked about it.
        metadata: anything of the caller's; never read.
    """

    item_id: Id
    title: str | None = None
    description: str | None = None
    profile: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


UserLike: TypeAlias = "UserProfile | Mapping[str, Any] | str"
ItemLike: TypeAlias = "Item | Mapping[str, Any] | str"
_Record = TypeVar("_Record", UserProfile, Item)


def as_user(source: object) -> UserProfile:
    """Return a user's profile as a checked `UserProfile`.

    Args:
        source: a UserProfile; a mapping with its fields, of which unknown keys become metadata; the profile's
            text; or any object with an attribute `profile`.

    Returns:
        A new UserProfile; the texts are stripped of white space at both ends.

    Raises:
        InvalidInputError: naming the field.
    """
    where = "user"
    given = (
        {"profile": source} if isinstance(source, str) else _fields_of(source, UserProfile, where, "profile")
    )
    profile = _text(given.get("profile"), f"{where}.profile")
    if profile is None:
        kind = "missing" if given.get("profile") is None else "empty"
        raise InvalidInputError(f"{where}.profile is {kind}")
    user_id = given.get("user_id")
    return UserProfile(
        profile=profile,
        user_id=None if user_id is None else _identity(user_id, f"{where}.user_id"),
        average_rating=_number(given.get("average_rating"), f"{where}.average_rating"),
        metadata=_metadata(given, UserProfile, where),
    )


def as_item(source: object, position: int, where: str | None = None) -> Item:
    """Return a candidate as a checked `Item`.

    Args:
        source: an Item; a mapping with its fields, of which unknown keys become metadata; the description's
            text, whose id is then its position; or any object with an attribute `item_id`.
        position: of the candidate among the candidates, for messages.
        where: what messages call it instead.

    Returns:
        A new Item; the texts are stripped of white space at both ends, and empty ones are None.

    Raises:
        InvalidInputError: naming the candidate and the field.
    """
    where = where or f"candidates[{position}]"
    if isinstance(source, str):
        given: Mapping[str, Any] = {"item_id": str(position), "description": source}
    else:
        given = _fields_of(source, Item, where, "item_id")
    item = Item(
        item_id=_identity(given.get("item_id"), f"{where}.item_id"),
        title=_text(given.get("title"), f"{where}.title"),
        description=_text(given.get("description"), f"{where}.description"),
        profile=_text(given.get("profile"), f"{where}.profile"),
        metadata=_metadata(given, Item, where),
    )
    if item.title is None and item.description is None and item.profile is None:
        raise InvalidInputError(f"{where}: title, description and profile are all empty")
    return item


def as_candidates(source: object) -> Sequence[object]:
    """Return the candidates as a sequence, unchecked one by one.

    Raises:
        InvalidInputError: if `source` is a single item, or no iterable.
    """
    if isinstance(source, (str, bytes, Mapping, Item)):
        raise InvalidInputError(f"candidates must be a list of items, not a single {type(source).__name__}")
    if not isinstance(source, Iterable):
        raise InvalidInputError(f"candidates must be a list of items, not {type(source).__name__}")
    return list(source)


def user_id_or_none(source: object) -> Id | None:
    """Return the id of a user that may be faulty otherwise, or None if it has no usable one."""
    user_id = source.get("user_id") if isinstance(source, Mapping) else getattr(source, "user_id", None)
    try:
        return _identity(user_id, "")
    except InvalidInputError:
        return None


def item_id_or_none(source: object, position: int) -> Id | None:
    """Return the id of a candidate that may be faulty otherwise, or None if it has no usable one."""
    try:
        if isinstance(source, str):
            return str(position)
        return _identity(_fields_of(source, Item, "", "item_id").get("item_id"), "")
    except InvalidInputError:
        return None


def _fields_of(source: object, kind: type[_Record], where: str, needed: str) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    if hasattr(source, needed):
        return {f.name: getattr(source, f.name) for f in fields(kind) if hasattr(source, f.name)}
    raise InvalidInputError(
        f"{where} must be {kind.__name__}, a mapping, a string or an object with .{needed}, "
        f"not {type(source).__name__}"
    )


def _metadata(given: Mapping[str, Any], kind: type[_Record], where: str) -> Mapping[str, Any]:
    metadata = given.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(f"{where}.metadata must be a mapping, not {type(metadata).__name__}")
    known = {f.name for f in fields(kind)}
    return {**metadata, **{key: value for key, value in given.items() if key not in known}}


def _text(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInputError(f"{where} must be a string, not {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{where} is not valid Unicode: {error.reason} at position {error.start}"
        ) from None
    return value.strip() or None


def _identity(value: object, where: str) -> Id:
    if isinstance(value, str):
        if not value:
            raise InvalidInputError(f"{where} is empty")
        return value
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        return operator.index(value)
    kind = "missing" if value is None else f"of type {type(value).__name__}"
    raise InvalidInputError(f"{where} is {kind}; it must be a string or an integer")


def _number(value: object, where: str) -> float | None:
    if value is None:
        return None
    try:
        number = float("no" if isinstance(value, bool) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidInputError(f"{where} must be a number, not {value!r}") from None
    if not math.isfinite(number):
        raise InvalidInputError(f"{where} must be finite, not {value!r}")
    return number
