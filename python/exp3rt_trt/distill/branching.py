"""Label logits of many prompts in torch, with what they share computed once.

A segment is run once over the segments that it sees, as in the engine: the instructions once for the batch, a
profile once for its user's rows, a segmented student's item once for all users. Gradients flow through what
is shared. `attention` says the same of a whole prompt.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from exp3rt_trt.segments import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import torch

    from exp3rt_trt.distill.encode import EncodedGroup
    from exp3rt_trt.segments import SegmentLayout, SegmentName


class SegmentRuns(TypedDict):
    """A segment's runs: each text of it that a batch has, over each that it sees; padded on the right.

    Args:
        tokens: [num_runs, longest].
        lengths: [num_runs].
        starts: position of the first token, [num_runs].
        over: of each segment that this one sees: the run that each run sees, [num_runs].
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    starts: torch.Tensor
    over: dict[SegmentName, torch.Tensor]


class RatingBatch(TypedDict):
    """Rows of several users. A dict of dicts, so that Trainer moves it to the device.

    Args:
        segments: in the order of `SEGMENTS`.
        answers: each row's run of the answer, [num_rows].
        ratings: float32 [num_rows].
        label_tokens: [num_labels].
    """

    segments: dict[SegmentName, SegmentRuns]
    answers: torch.Tensor
    ratings: torch.Tensor
    label_tokens: torch.Tensor


class _Computed(NamedTuple):
    """What a segment's runs leave for those that see them."""

    layers: list[
        tuple[torch.Tensor, torch.Tensor]
    ]  # keys and values, [num_runs, num_heads, longest, head_size]
    mask: torch.Tensor  # of what is no padding, [num_runs, longest]


def make_batch(groups: Sequence[EncodedGroup], layout: SegmentLayout) -> RatingBatch:
    """Lay groups of one scale out as runs of segments.

    Args:
        groups: of any users.
        layout: how the student reads them.
    """
    import torch  # noqa: PLC0415

    prompts = [prompt for group in groups for prompt in group.prompts()]
    starts = [layout.starts({name: len(tokens) for name, tokens in prompt.items()}) for prompt in prompts]
    segments: dict[SegmentName, SegmentRuns] = {}
    run_of: dict[SegmentName, list[int]] = {}  # by row
    for name in SEGMENTS:
        seen = layout.sees(name)
        keys = [
            (start[name], *(tuple(prompt[part]) for part in (*seen, name)))
            for prompt, start in zip(prompts, starts, strict=True)
        ]
        rows, run_of[name] = _distinct(keys)
        tokens, lengths = _padded([prompts[row][name] for row in rows])
        segments[name] = {
            "tokens": tokens,
            "lengths": lengths,
            "starts": torch.tensor([starts[row][name] for row in rows]),
            "over": {part: torch.tensor([run_of[part][row] for row in rows]) for part in seen},
        }
    ratings = [rating for group in groups for rating in group.ratings]
    return {
        "segments": segments,
        "answers": torch.tensor(run_of["answer"]),
        "ratings": torch.tensor(ratings, dtype=torch.float32),
        "label_tokens": torch.tensor(groups[0].label_tokens),
    }


def label_logits(model: Any, batch: RatingBatch) -> torch.Tensor:  # noqa: ANN401  (transformers' models are untyped)
    """Return the labels' logits behind each prompt.

    Args:
        model: a causal LM of transformers, adapters included; its output matrix meets the labels' rows only.
        batch: see `make_batch`.

    Returns:
        float32 [num_rows, num_labels].
    """
    import torch  # noqa: PLC0415

    body, head = model.get_decoder(), model.get_output_embeddings()
    computed: dict[SegmentName, _Computed] = {}
    for name, runs in batch["segments"].items():
        hidden, computed[name] = _run(body, runs, computed)
    ends = batch["segments"]["answer"]["lengths"] - 1
    last = hidden[torch.arange(len(ends), device=ends.device), ends]  # [num_runs, hidden_size]
    rows = head.weight[batch["label_tokens"]]  # [num_labels, hidden_size]
    return (last @ rows.T).float()[batch["answers"]]


def _run(
    body: Any,  # noqa: ANN401
    runs: SegmentRuns,
    computed: dict[SegmentName, _Computed],
) -> tuple[torch.Tensor, _Computed]:
    """Compute a segment over those that it sees: hidden states [num_runs, longest, hidden_size], and keys."""
    import torch  # noqa: PLC0415
    from transformers import DynamicCache  # noqa: PLC0415

    tokens, own = runs["tokens"], _mask(runs["tokens"], runs["lengths"])
    seen = [(computed[name], chosen) for name, chosen in runs["over"].items()]
    cache: Any = DynamicCache()
    for layer in range(body.config.num_hidden_layers if seen else 0):
        pairs = [
            (keys[chosen], values[chosen]) for part, chosen in seen for keys, values in [part.layers[layer]]
        ]
        cache.update(*(torch.cat(parts, dim=2) for parts in zip(*pairs, strict=True)), layer)
    out = body(
        tokens,
        **{cache_argument(body): cache},
        use_cache=True,
        attention_mask=torch.cat([*(part.mask[chosen] for part, chosen in seen), own], dim=1),
        position_ids=runs["starts"][:, None] + torch.arange(tokens.shape[1], device=tokens.device),
    )
    first = -tokens.shape[1]
    layers = [(layer.keys[:, :, first:], layer.values[:, :, first:]) for layer in cache.layers]
    return out.last_hidden_state, _Computed(layers, own)


def cache_argument(model: Any) -> str:  # noqa: ANN401
    """Return what the model calls its cache: transformers 5.24 has another name for it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _distinct(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Return the first place of each distinct key, and for each place the number of its key."""
    numbers: dict[Hashable, int] = {}
    of = [numbers.setdefault(key, len(numbers)) for key in keys]
    return [of.index(number) for number in range(len(numbers))], of


def _padded(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch  # noqa: PLC0415

    lengths = torch.tensor([len(sequence) for sequence in sequences])
    padded = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.long)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return padded, lengths


def _mask(padded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    import torch  # noqa: PLC0415

    return (torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]).long()
