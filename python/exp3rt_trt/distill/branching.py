"""Label logits of many prompts in torch, with what they share computed once.

The engine computes the instructions once for all users and the profile once for all candidates of a user;
training does the same, and gradients flow through what is shared.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from exp3rt_trt.distill.encode import EncodedGroup


class RatingBatch(NamedTuple):
    """Groups of several users, padded on the right.

    Args:
        instructions: [1, instruction_tokens].
        users: [num_users, longest_user]; `user_lengths` [num_users].
        items: [num_rows, longest_item]; `item_lengths` [num_rows].
        parents: the user of each row, [num_rows].
        ratings: float32 [num_rows].
        label_tokens: [num_labels].
    """

    instructions: torch.Tensor
    users: torch.Tensor
    user_lengths: torch.Tensor
    items: torch.Tensor
    item_lengths: torch.Tensor
    parents: torch.Tensor
    ratings: torch.Tensor
    label_tokens: torch.Tensor


def make_batch(groups: Sequence[EncodedGroup]) -> RatingBatch:
    """Pad groups, which must have the same instructions, to one batch."""
    import torch  # noqa: PLC0415

    items = [item for group in groups for item in group.items]
    parents = [number for number, group in enumerate(groups) for _ in group.items]
    users, user_lengths = _padded([group.user for group in groups])
    suffixes, item_lengths = _padded(items)
    return RatingBatch(
        torch.tensor([groups[0].instructions]),
        users,
        user_lengths,
        suffixes,
        item_lengths,
        torch.tensor(parents),
        torch.tensor([rating for group in groups for rating in group.ratings], dtype=torch.float32),
        torch.tensor(groups[0].label_tokens),
    )


def label_logits(model: Any, batch: RatingBatch) -> torch.Tensor:  # noqa: ANN401  (transformers' models are untyped)
    """Return the labels' logits behind each prompt.

    Args:
        model: a causal LM of transformers, adapters included; its output matrix meets the labels' rows only.
        batch: see `make_batch`.

    Returns:
        float32 [num_rows, num_labels].
    """
    import torch  # noqa: PLC0415
    from transformers import DynamicCache  # noqa: PLC0415

    body, head = model.get_decoder(), model.get_output_embeddings()
    shared = batch.instructions.shape[1]
    cache = DynamicCache(config=model.config)
    past = {cache_argument(body): cache}
    body(batch.instructions, **past, use_cache=True)

    cache.batch_select_indices(torch.zeros(len(batch.users), dtype=torch.long))
    seen = torch.ones(len(batch.users), shared, dtype=torch.long)
    seen = torch.cat([seen, _mask(batch.users, batch.user_lengths)], dim=1)
    places = (shared + torch.arange(batch.users.shape[1])).expand(batch.users.shape)
    body(batch.users, **past, use_cache=True, attention_mask=seen, position_ids=places)

    cache.batch_select_indices(batch.parents)
    seen = torch.cat([seen[batch.parents], _mask(batch.items, batch.item_lengths)], dim=1)
    start = shared + batch.user_lengths[batch.parents]
    places = start[:, None] + torch.arange(batch.items.shape[1])
    out = body(batch.items, **past, use_cache=True, attention_mask=seen, position_ids=places)

    last = out.last_hidden_state[torch.arange(len(batch.items)), batch.item_lengths - 1]
    rows = head.weight[batch.label_tokens]  # [num_labels, hidden_size]
    logits: torch.Tensor = (last @ rows.T).float()
    return logits


def cache_argument(model: Any) -> str:  # noqa: ANN401
    """Return what the model calls its cache: transformers 5.24 has another name for it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _padded(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch  # noqa: PLC0415

    lengths = torch.tensor([len(sequence) for sequence in sequences])
    padded = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.long)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return padded, lengths


def _mask(padded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    import torch  # noqa: PLC0415

    return (torch.arange(padded.shape[1]) < lengths[:, None]).long()
