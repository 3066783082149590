"""Where the texts of users and items come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exp3rt_trt.inputs import Id, Item, UserProfile


class ProfileSource(Protocol):
    """Knows users and items by id; a `ProfileStore` is one."""

    def user_profile(self, user_id: Id) -> UserProfile | None:
        """Return a user's profile, or None for a user without one."""

    def item(self, item_id: Id) -> Item | None:
        """Return an item with its texts, or None for one without any."""


class ProfileTable:
    """Profiles that are in memory already.

    Args:
        users: profiles by user id.
        items: items by item id.
    """

    def __init__(self, users: Mapping[Id, UserProfile], items: Mapping[Id, Item]) -> None:
        self._users = users
        self._items = items

    def user_profile(self, user_id: Id) -> UserProfile | None:
        """Return a user's profile, or None for a user without one."""
        return self._users.get(user_id)

    def item(self, item_id: Id) -> Item | None:
        """Return an item with its texts, or None for one without any."""
        return self._items.get(item_id)
