"""The one reference, in torch, of what a student's tokens see and where they stand.

Whatever computes segments apart (training, engines) must give the numbers of a flat prompt under this mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exp3rt_trt.segments import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from exp3rt_trt.distill.encode import EncodedGroup
    from exp3rt_trt.segments import SegmentLayout, SegmentName


def attention_mask(lengths: Mapping[SegmentName, int], layout: SegmentLayout) -> torch.Tensor:
    """Return which tokens of a flat prompt see which.

    Args:
        lengths: of the prompt's segments, in tokens; they follow each other as in `SEGMENTS`.
        layout: how the student reads it.

    Returns:
        bool [num_tokens, num_tokens]: whether the row's token sees the column's.

    Example:
        >>> lengths = {"instructions": 1, "user": 1, "item": 1, "answer": 1}
        >>> attention_mask(lengths, SegmentLayout("segmented", 8, 16)).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]]
    """
    import torch  # noqa: PLC0415

    sees = torch.tensor([[of == by or of in layout.sees(by) for of in SEGMENTS] for by in SEGMENTS])
    segment = torch.arange(len(SEGMENTS)).repeat_interleave(_counts(lengths))  # [num_tokens]
    return sees[segment[:, None], segment].tril()


def token_positions(lengths: Mapping[SegmentName, int], layout: SegmentLayout) -> torch.Tensor:
    """Return the rotary positions of a flat prompt's tokens, [num_tokens]; arguments as `attention_mask`."""
    import torch  # noqa: PLC0415

    starts = layout.starts(lengths)
    return torch.cat([starts[name] + torch.arange(lengths[name]) for name in SEGMENTS])


def padded_texts(
    lengths: Sequence[Mapping[SegmentName, int]], layout: SegmentLayout
) -> dict[str, torch.Tensor]:
    """Return what a model of transformers takes beside the tokens of whole texts, padded on the right.

    Args:
        lengths: of each text's segments, in tokens.
        layout: how the student reads them.

    Returns:
        `attention_mask`, bool [num_texts, 1, longest, longest], where what pads a text sees itself alone;
        `position_ids`, [num_texts, longest].
    """
    import torch  # noqa: PLC0415

    longest = max(sum(of.values()) for of in lengths)
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(lengths), 1, 1, 1)
    positions = torch.zeros(len(lengths), longest, dtype=torch.long)
    for text, of in enumerate(lengths):
        length = sum(of.values())
        mask[text, 0, :length, :length] = attention_mask(of, layout)
        positions[text, :length] = token_positions(of, layout)
    return {"attention_mask": mask, "position_ids": positions}


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask in the form that transformers adds to attention's scores: 0 or the dtype's lowest."""
    import torch  # noqa: PLC0415

    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def reference_logits(model: Any, group: EncodedGroup, layout: SegmentLayout) -> torch.Tensor:  # noqa: ANN401
    """Return the labels' logits behind each prompt of a group, each prompt computed whole and alone.

    Args:
        model: a causal LM of transformers.
        group: a user's rows.
        layout: how the student reads them.

    Returns:
        float32 [num_rows, num_labels].
    """
    import torch  # noqa: PLC0415

    logits = []
    for prompt in group.prompts():
        lengths = {name: len(tokens) for name, tokens in prompt.items()}
        out = model(
            torch.tensor([[token for tokens in prompt.values() for token in tokens]]),
            attention_mask=additive(attention_mask(lengths, layout), model.dtype)[None, None],
            position_ids=token_positions(lengths, layout)[None],
            logits_to_keep=1,
        )
        logits.append(out.logits[0, -1, list(group.label_tokens)].float())
    return torch.stack(logits)


def _counts(lengths: Mapping[SegmentName, int]) -> torch.Tensor:
    import torch  # noqa: PLC0415

    return torch.tensor([lengths[name] for name in SEGMENTS])
