"""Ratings: the scale that a student answers on, and what its label logits mean on that scale."""

from __future__ import annotations

import json
import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.jsonl import read_json_if_any

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

SCALE_FILE = "scale.json"  # beside the weights of an adapter or a checkpoint; without it: not known


@dataclass(frozen=True)
class RatingScale:
    """The labels that a student may answer with, and the rating that each stands for.

    Args:
        labels: texts of one token each, e.g. ("0", ..., "9").
        values: the rating of each label, strictly increasing, e.g. (1, ..., 10).

    Raises:
        InvalidInputError: if the two do not fit together.

    Example:
        >>> RatingScale(labels=("1", "2", "3"), values=(-1, 0, 1)).values
        (-1, 0, 1)
    """

    labels: tuple[str, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "values", tuple(self.values))
        if len(self.labels) != len(self.values):
            raise InvalidInputError(f"scale: {len(self.labels)} labels, but {len(self.values)} values")
        if len(self.labels) < 2:
            raise InvalidInputError("scale.labels: a scale needs at least 2 labels")
        if not all(isinstance(label, str) for label in self.labels):
            raise InvalidInputError(f"scale.labels must be strings, but are {self.labels}")
        if len(set(self.labels)) != len(self.labels) or not all(self.labels):
            raise InvalidInputError(f"scale.labels must be distinct and not empty, but are {self.labels}")
        if not all(isinstance(value, numbers.Real) for value in self.values):
            raise InvalidInputError(f"scale.values must be numbers, but are {self.values}")
        pairs = zip(self.values, self.values[1:], strict=False)
        if not all(map(math.isfinite, self.values)) or any(low >= high for low, high in pairs):
            raise InvalidInputError(f"scale.values must be finite and increase, but are {self.values}")

    @classmethod
    def one_to_five(cls) -> RatingScale:
        """Return the scale of stars: labels 1 to 5 stand for 1 to 5."""
        return cls(tuple("12345"), tuple(range(1, 6)))

    @classmethod
    def one_to_ten(cls) -> RatingScale:
        """Return the scale of ten points: labels 0 to 9 stand for 1 to 10, so that each is one token."""
        return cls(tuple("0123456789"), tuple(range(1, 11)))

    def to_json(self) -> str:
        """Write the scale as JSON text, ending in a newline."""
        return json.dumps({"labels": self.labels, "values": self.values}) + "\n"

    def wording(self) -> dict[str, str]:
        """Return what a prompt says about the scale, by the placeholder's name."""
        return {
            "labels": f"{', '.join(self.labels[:-1])} or {self.labels[-1]}",
            "first_label": self.labels[0],
            "last_label": self.labels[-1],
            "lowest": f"{self.values[0]:g}",
            "highest": f"{self.values[-1]:g}",
        }


def read_scale(folder: Path) -> RatingScale | None:
    """Read the scale that a checkpoint's or adapter's student answers on; None if the folder says nothing.

    Raises:
        InvalidInputError: naming the file and the fault.
    """
    given = read_json_if_any(folder / SCALE_FILE)
    return None if given is None else scale_of(given, str(folder / SCALE_FILE))


def scale_of(given: Any, where: str) -> RatingScale:  # noqa: ANN401  (what JSON gave)
    """Return the scale that a JSON object says.

    Raises:
        InvalidInputError: naming `where` and the fault.
    """
    if not isinstance(given, dict) or set(given) != {"labels", "values"}:
        raise InvalidInputError(f"{where}: must be an object of labels and values, not {given!r}")
    for name, value in given.items():
        if not isinstance(value, list):
            raise InvalidInputError(f"{where}: {name} must be a list, not {value!r}")
    try:
        return RatingScale(**given)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from None


def label_probabilities(label_logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the distribution over the labels: a softmax over exactly their logits, in float64.

    Args:
        label_logits: [..., num_labels].

    Returns:
        Probabilities, [..., num_labels], that sum to 1 along the last axis.
    """
    logits = np.asarray(label_logits, dtype=np.float64)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


def expected_rating(probabilities: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """Return the probability-weighted mean of the ratings.

    EXP3RT (arXiv 2408.06276) predicts a rating in this way from the probabilities of the rating's tokens;
    here the labels' probabilities are complete, none is cut off by a top-k.

    Args:
        probabilities: [..., num_labels].
        values: the rating of each label, [num_labels].

    Returns:
        Expected ratings, [...], between the lowest and the highest value. Each has the same bits whatever
        stands beside it: a matrix product would not promise that.
    """
    weighted = np.asarray(probabilities, dtype=np.float64) * np.asarray(values, dtype=np.float64)
    ratings: NDArray[np.float64] = weighted.sum(axis=-1)
    return ratings
