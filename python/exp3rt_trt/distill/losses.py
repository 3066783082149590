"""The rating's loss: the number that is used is the number that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import ArrayLike, NDArray


def soft_labels(ratings: ArrayLike, values: Sequence[float], width: float) -> NDArray[np.float32]:
    """Return for each rating a distribution over the labels that has the rating as its mean.

    A Gaussian over the values; where the scale's end cuts it off, it is moved until its mean is right again.

    Args:
        ratings: [num_rows], between the lowest and the highest value.
        values: the rating of each label, [num_labels].
        width: standard deviation of the Gaussian, in ratings.

    Returns:
        Probabilities, [num_rows, num_labels].

    Example:
        >>> soft_labels([3.0], (1, 2, 3, 4, 5), 0.5).round(2)
        array([[0.  , 0.11, 0.79, 0.11, 0.  ]], dtype=float32)
    """
    places = np.asarray(values, dtype=np.float64)
    centres = np.linspace(places[0] - 8 * width, places[-1] + 8 * width, 501)
    means = _gaussians(centres, places, width) @ places
    nearest = np.interp(np.asarray(ratings, dtype=np.float64), means, centres)
    return _gaussians(nearest, places, width).astype(np.float32)


def _gaussians(centres: NDArray[Any], places: NDArray[Any], width: float) -> NDArray[np.float64]:
    """[num_centres, num_places], each row summing to 1."""
    curves = -((places - centres[:, None]) ** 2) / (2 * width**2)
    curves = np.exp(curves - curves.max(axis=1, keepdims=True))
    scaled: NDArray[np.float64] = curves / curves.sum(axis=1, keepdims=True)
    return scaled


def rating_loss(
    logits: torch.Tensor, ratings: torch.Tensor, values: Sequence[float], width: float, squared_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of predicted label logits, and the expected ratings.

    Args:
        logits: of the labels, [num_rows, num_labels].
        ratings: the true ones, [num_rows].
        values: the rating of each label, [num_labels].
        width: of the soft labels, see `soft_labels`.
        squared_weight: of the expected rating's squared error beside the cross-entropy with the soft labels.

    Returns:
        The mean loss, a scalar; the expected ratings, [num_rows].
    """
    import torch  # noqa: PLC0415

    log_probabilities = torch.log_softmax(logits.float(), dim=-1)
    expected = log_probabilities.exp() @ torch.tensor(values, dtype=torch.float32, device=logits.device)
    target = torch.from_numpy(soft_labels(ratings.cpu().numpy(), values, width)).to(logits.device)
    cross_entropy = -(target * log_probabilities).sum(dim=-1)
    loss = (cross_entropy + squared_weight * (expected - ratings) ** 2).mean()
    return loss, expected
