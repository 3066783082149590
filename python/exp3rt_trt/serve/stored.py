"""Users and items that are known by id: a profile store, read beside the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from exp3rt_trt.profiles.store import ProfileStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exp3rt_trt.inputs import Item, UserProfile


class StoredProfiles:
    """Reads a store from a thread of its own, since a store is used from one; others may write meanwhile.

    Args:
        path: a file that `exp3rt-trt profile build` made.

    Raises:
        InvalidInputError: if the file is no store.
    """

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="profiles")
        self._store = self._thread.submit(ProfileStore, path).result()

    async def user(self, user_id: str) -> UserProfile | None:
        """Return a user's profile; None for one without reviews."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._store.user_profile, user_id)

    async def items(self, item_ids: Sequence[str], user_id: str | None) -> list[Item | None]:
        """Return items with their profiles, as this user is shown them; None for unknown ones."""
        loop = asyncio.get_running_loop()

        def read() -> list[Item | None]:
            return [self._store.item(item_id, user_id) for item_id in item_ids]

        return await loop.run_in_executor(self._thread, read)

    def close(self) -> None:
        """Close the file."""
        self._thread.submit(self._store.close).result()
        self._thread.shutdown()
