"""Executors: what runs groups. The seam, and the choice of one for an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from exp3rt_trt._core import ItemKv, RerankGroup


class CandidateResult(Protocol):
    """What became of one candidate; see `_core.CandidateResult`."""

    @property
    def status(self) -> str:
        """Say ok, failed, cancelled or expired."""

    @property
    def label_logits(self) -> NDArray[np.float32]:
        """Give float32 [num_labels], up to a constant; empty unless ok, and for a group without labels."""

    @property
    def reasoning_tokens(self) -> list[int]:
        """Give what was written before the answer."""

    @property
    def item_kv(self) -> ItemKv | None:
        """Give an item's keys and values, of a group that only computes items."""


class GroupResult(Protocol):
    """Results in the order of the group's suffixes; see `_core.GroupResult`."""

    @property
    def candidates(self) -> Sequence[CandidateResult]:
        """Give one for each suffix."""

    @property
    def queue_s(self) -> float:
        """Give the seconds from submission until the first token was computed."""

    @property
    def compute_s(self) -> float:
        """Give the seconds from there to the last result."""


class Counters(Protocol):
    """What an executor counts; `stats.RerankerStats` says what each number is."""

    @property
    def prompt_tokens_computed(self) -> int: ...  # noqa: D102
    @property
    def prompt_tokens_reused(self) -> int: ...  # noqa: D102
    @property
    def generated_tokens(self) -> int: ...  # noqa: D102
    @property
    def draft_tokens(self) -> int: ...  # noqa: D102
    @property
    def draft_tokens_accepted(self) -> int: ...  # noqa: D102
    @property
    def items_computed(self) -> int: ...  # noqa: D102
    @property
    def items_in_memory(self) -> int: ...  # noqa: D102
    @property
    def items_stored(self) -> int: ...  # noqa: D102
    @property
    def candidates_done(self) -> int: ...  # noqa: D102
    @property
    def groups_done(self) -> int: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def blocks_total(self) -> int: ...  # noqa: D102
    @property
    def blocks_free(self) -> int: ...  # noqa: D102
    @property
    def blocks_cached(self) -> int: ...  # noqa: D102
    @property
    def blocks_in_use(self) -> int: ...  # noqa: D102
    @property
    def block_size(self) -> int: ...  # noqa: D102
    @property
    def queue_s(self) -> float: ...  # noqa: D102
    @property
    def compute_s(self) -> float: ...  # noqa: D102
    @property
    def attention_s(self) -> float: ...  # noqa: D102


class Executor(Protocol):
    """Whatever runs groups; everything above it is the same for all.

    The contract is that of csrc/executor/executor.h: thread-safe; `on_done` is called exactly once for every
    submitted group, from a thread of the executor's, whatever happens to it.
    """

    def submit(self, group: RerankGroup, on_done: Callable[[GroupResult | None, str | None], None], /) -> int:
        """Start a group.

        Args:
            group: what to compute.
            on_done: gets a result, or None and the words of an error.

        Returns:
            An id, at once.

        Raises:
            ValueError: if the group can never run.
            RuntimeError: if the executor is closed.
        """

    def cancel(self, group_id: int, /) -> None:
        """Call off what is not finished of a group; an unknown or finished one is no error."""

    def stats(self) -> Counters:
        """Count what was done so far."""

    def close(self) -> None:
        """Compute nothing more; groups without a result get an error."""
