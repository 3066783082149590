"""Who interacted with what, read from the files that data sets for collaborative filtering have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exp3rt_trt.inputs import Id

Interactions = dict["Id", list["Id"]]


def read_interactions(folder: Path, name: str) -> Interactions:
    """Read who interacted with what, in the layout that LightGCN's data sets have.

    Args:
        folder: with train.txt and test.txt, lines of `user item item ...` in numbers; user_list.txt and
            item_list.txt, if they are there, have lines of `id number` under a heading.
        name: "train.txt" or "test.txt".

    Returns:
        The items of each user, without repetitions, by the ids of the lists.

    Raises:
        InvalidInputError: naming file and line.
    """
    users, items = _ids(folder / "user_list.txt"), _ids(folder / "item_list.txt")
    found: dict[Id, dict[Id, None]] = {}
    for where, (user, *rest) in _lines(folder / name):
        of_user = found.setdefault(_id(users, user, f"{where}: user"), {})
        of_user.update((_id(items, item, f"{where}: item"), None) for item in rest)
    return {user: list(of_user) for user, of_user in found.items()}


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from error
    lines = enumerate(text.splitlines(), start=1)
    return [(f"{path}:{number}", line.split()) for number, line in lines if line.strip()]


def _ids(path: Path) -> dict[str, str] | None:
    """Read a list of ids by number; None if there is no such file."""
    if not path.exists():
        return None
    found = {}
    for where, fields in _lines(path)[1:]:  # below the heading
        if len(fields) != 2:
            raise InvalidInputError(f"{where}: must be an id and a number, not {' '.join(fields)!r}")
        found[fields[1]] = fields[0]
    return found


def _id(ids: Mapping[str, str] | None, number: str, where: str) -> str:
    if ids is not None and number not in ids:
        raise InvalidInputError(f"{where} {number} is not in the list of ids")
    return number if ids is None else ids[number]
