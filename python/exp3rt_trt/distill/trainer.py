"""TRL's SFTTrainer for rows of two kinds: texts to write, and ratings to predict.

Texts go the trainer's own way: cross-entropy on the answer's tokens, of a segmented student under the mask of
`attention`. Of a rating only the label's position counts: its prompts are computed as the engine computes
them (see `branching`) and meet the labels' rows of the output matrix alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from trl import SFTTrainer

from exp3rt_trt.distill.attention import padded_texts
from exp3rt_trt.distill.branching import label_logits, make_batch
from exp3rt_trt.distill.encode import EncodedGroup
from exp3rt_trt.distill.losses import rating_loss
from exp3rt_trt.segments import SegmentLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import EvalPrediction


@dataclass(frozen=True)
class RatingObjective:
    """How ratings are trained.

    Args:
        values: the rating of each label, [num_labels].
        width: standard deviation of the soft labels, in ratings.
        squared_weight: of the expected rating's squared error beside the labels' cross-entropy.
    """

    values: tuple[float, ...]
    width: float = 1.0
    squared_weight: float = 1.0


class MixedCollator:
    """Puts rating groups into one batch and leaves texts to TRL's collator.

    Args:
        texts: collates rows with `input_ids` and `labels`.
    """

    def __init__(self, texts: Callable[[list[Mapping[str, Any]]], dict[str, Any]]) -> None:
        self._texts = texts

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the inputs of `StudentTrainer`: `groups`, `texts`, or both."""
        groups = [EncodedGroup(**example["group"]) for example in examples if example.get("group")]
        texts = [example["text"] for example in examples if example.get("text")]
        layout = SegmentLayout(**examples[0]["layout"])
        inputs: dict[str, Any] = {}
        if groups:
            inputs["groups"] = make_batch(groups, layout)
        if texts:
            inputs["texts"] = self._texts(texts)
            if layout.segmented:
                inputs["texts"] |= padded_texts([text["lengths"] for text in texts], layout)
        return inputs


class StudentTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is untyped
    """Trains a student on texts and ratings in one run; arguments as for SFTTrainer.

    Args:
        objective: how ratings are trained.
    """

    def __init__(self, *args: Any, objective: RatingObjective, **kwargs: Any) -> None:  # noqa: ANN401
        self._objective = objective
        super().__init__(*args, compute_metrics=rating_errors, **kwargs)

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,  # noqa: ARG002  (of all kinds together)
    ) -> Any:  # noqa: ANN401
        """Return the sum of the ratings' and the texts' mean losses; the outputs are the expected ratings."""
        loss, expected = torch.zeros(()), torch.zeros(0)
        if "groups" in inputs:
            logits = label_logits(self.accelerator.unwrap_model(model), inputs["groups"])
            target, ratings = self._objective, inputs["groups"]["ratings"]
            loss, expected = rating_loss(logits, ratings, target.values, target.width, target.squared_weight)
        if "texts" in inputs:
            loss = loss + super().compute_loss(model, inputs["texts"])
        return (loss, expected) if return_outputs else loss

    def prediction_step(
        self,
        model: Any,  # noqa: ANN401
        inputs: dict[str, Any],
        prediction_loss_only: bool,  # noqa: ARG002  (Trainer's signature)
        ignore_keys: list[str] | None = None,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss, the expected ratings and the true ones."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, expected = self.compute_loss(model, inputs, return_outputs=True)
        return loss.detach(), expected, inputs["groups"]["ratings"]


def rating_errors(predicted: EvalPrediction) -> dict[str, float]:
    """Return RMSE and MAE of expected ratings."""
    difference = np.asarray(predicted.predictions) - np.asarray(predicted.label_ids)
    return {"rmse": float(np.sqrt((difference**2).mean())), "mae": float(np.abs(difference).mean())}
