"""Texts of users and items by id, gathered from files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.rows import RatingRow, item_of, user_of
from exp3rt_trt.jsonl import Line, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exp3rt_trt.inputs import Id, Item, UserProfile


@dataclass
class Texts:
    """Users and items; what comes first stays, and what comes later fills the gaps.

    Example:
        >>> texts = Texts()
        >>> texts.add_rows(read_ratings("ratings.jsonl", scale).rows)  # doctest: +SKIP
        >>> texts.add_file("item_profiles.jsonl")  # doctest: +SKIP
    """

    _users: dict[Id, UserProfile] = field(default_factory=dict)
    _items: dict[Id, Item] = field(default_factory=dict)

    def user_profile(self, user_id: Id) -> UserProfile | None:
        """Return a user, or None if nothing is known."""
        return self._users.get(user_id)

    def item(self, item_id: Id) -> Item | None:
        """Return an item, or None if nothing is known."""
        return self._items.get(item_id)

    def catalogue(self) -> set[Id]:
        """Return the items that have every kind of text that any item has.

        Candidates are drawn from these. An item about which less is known than about others would tell by it
        that nobody rated it, and the student would read that instead of its profile.
        """
        kinds = [
            kind
            for kind in ("title", "description", "profile")
            if any(getattr(item, kind) for item in self._items.values())
        ]
        return {key for key, item in self._items.items() if all(getattr(item, kind) for kind in kinds)}

    def add_rows(self, rows: Iterable[RatingRow]) -> None:
        """Add the texts of rating rows; of items with several texts, the first."""
        for row in rows:
            self._add_user(row.user)
            self._add_item(row.item)

    def add_file(self, path: str) -> Sequence[str]:
        """Add a file of lines with a user's or an item's id and texts, in the names of `read_ratings`.

        Returns:
            In words, what is wrong with the lines that could not be used.

        Raises:
            InvalidInputError: if the file cannot be read.
        """
        faults = []
        for line in read_lines(path):
            try:
                self._add_line(line)
            except InvalidInputError as error:  # noqa: PERF203  (a fault stays that of its line)
                faults.append(f"{line.where}: {error}")
        return faults

    def _add_line(self, line: Line) -> None:
        if line.error is not None:
            raise line.error
        if "user_id" not in line.value and "item_id" not in line.value:
            raise InvalidInputError("neither 'user_id' nor 'item_id'")
        if "user_id" in line.value:
            self._add_user(user_of(line.value))
        if "item_id" in line.value:
            self._add_item(item_of(line.value))

    def _add_user(self, new: UserProfile) -> None:
        assert new.user_id is not None  # noqa: S101  (identity_of saw to it)
        old = self._users.setdefault(new.user_id, new)
        average = new.average_rating if old.average_rating is None else old.average_rating
        self._users[new.user_id] = replace(old, profile=old.profile or new.profile, average_rating=average)

    def _add_item(self, new: Item) -> None:
        old = self._items.setdefault(new.item_id, new)
        self._items[new.item_id] = replace(
            old,
            title=old.title or new.title,
            description=old.description or new.description,
            profile=old.profile or new.profile,
        )
