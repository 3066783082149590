"""What computes the keys and values of items for a catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from exp3rt_trt.catalog.header import CatalogHeader
from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exp3rt_trt._core import ItemKv
    from exp3rt_trt.engines.engine import Engine
    from exp3rt_trt.groups import GroupBuilder
    from exp3rt_trt.inputs import Item
    from exp3rt_trt.pending import Pending
    from exp3rt_trt.runtime import Runtime
    from exp3rt_trt.tokenization import TokenIds

_Output = TypeVar("_Output")


class ItemEncoder:
    """Reads items without any user; `Reranker.item_encoder` makes one.

    Args:
        engine: of a segmented student.
        groups: how items are laid out.
        runtime: runs the engine.

    Raises:
        InvalidInputError: if the engine reads items behind their user.
    """

    def __init__(self, engine: Engine, groups: GroupBuilder, runtime: Runtime) -> None:
        layout = engine.manifest.layout
        if not layout.segmented:
            raise InvalidInputError(
                f"{engine.path}: a catalogue is for students that read items without their user; this one's "
                f"attention is {layout.attention}"
            )
        self._groups = groups
        self._runtime = runtime
        self.header = CatalogHeader.of(
            engine.manifest, groups.instructions, runtime.item_format, runtime.item_kv_dtype
        )

    def tokens(self, items: Sequence[Item]) -> list[TokenIds]:
        """Return the token ids of items' segments."""
        return self._groups.item_tokens(items)

    def excess(self, tokens: TokenIds) -> str | None:
        """Return in which way an item is too long, or None if it fits."""
        return self._groups.item_excess(tokens)

    def start(
        self, items: Sequence[TokenIds], finish: Callable[[list[ItemKv | None]], _Output]
    ) -> Pending[_Output]:
        """Compute items together.

        Args:
            items: token ids of each, none too long; at least one.
            finish: makes the output of their keys and values, in order; None stands for an item that the
                model gave no finite numbers for.

        Raises:
            EngineError: if the executor is closed.
        """
        group = self._groups.build_items(items)
        return self._runtime.start(
            [group], lambda results: finish([c.item_kv for c in results[0].candidates])
        )
