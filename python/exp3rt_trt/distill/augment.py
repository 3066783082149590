"""What a student is trained on beside the rows as they stand, from the same rows.

Few rows teach little, and a prompt of 600 tokens takes long: prompts with fewer points are quicker to
compute, and no point is always there. Prompts with hardly a word but the averages teach first what the
averages say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from exp3rt_trt.evaluate.predictors import user_item_bias
from exp3rt_trt.evaluate.rows import RatingRow
from exp3rt_trt.inputs import Item, UserProfile

if TYPE_CHECKING:
    from collections.abc import Sequence


class AverageFit:
    """Least squares of the ratings on the user's and the item's average: the bias baseline.

    Args:
        rows: of the training users.
        lowest: predictions are not below it.
        highest: nor above it.
    """

    def __init__(self, rows: Sequence[RatingRow], lowest: float, highest: float) -> None:
        self._predict = user_item_bias(rows)
        self.range = lowest, highest

    def predict(self, row: RatingRow) -> float:
        """Return the rating that the averages alone foretell."""
        return float(np.clip(self._predict([row]).ratings[0], *self.range))

    def shrink(self, row: RatingRow, share: float) -> RatingRow:
        """Return the row with its rating drawn towards the fit, by a share of the distance."""
        return replace(row, rating=(1 - share) * row.rating + share * self.predict(row))


def only_averages(fit: AverageFit, random: np.random.Generator, num_items: int) -> list[RatingRow]:
    """Return rows of an invented user: averages drawn from the scale, no text, and the fit's rating."""
    lowest, highest = fit.range
    ninth = (highest - lowest) / 9  # on the scale from 1 to 10: users from 2 to 10, items from 2.5 to 9.5
    of_user = round(random.uniform(lowest + ninth, highest), 1)
    user = UserProfile("[Like]\n- None\n\n[Dislike]\n- None", "averages", of_user)
    rows = []
    for number in range(num_items):
        average = round(random.uniform(lowest + 1.5 * ninth, highest - 0.5 * ninth), 1)
        item = Item(
            str(number), profile=f"[Like]\n- None\n\n[Dislike]\n- None\n\n[Average Rating]\n{average}"
        )
        row = RatingRow(user, item, 0.0, average)
        rows.append(fit.shrink(row, 1.0))
    return rows


def thin_out(rows: Sequence[RatingRow], random: np.random.Generator, keep: float) -> list[RatingRow]:
    """Return a user's rows with some points left out and the others in another order.

    Args:
        rows: of one user.
        random: decides.
        keep: share of the points, and of the descriptions' lines, that stay.
    """
    profile = _thin_points(rows[0].user.profile, random, keep)
    user = replace(rows[0].user, profile=profile)
    return [
        replace(
            row,
            user=user,
            item=replace(
                row.item,
                description=_thin_lines(row.item.description or "", random, keep),
                profile=_thin_points(row.item.profile or "", random, keep),
            ),
        )
        for row in rows
    ]


def _thin_points(text: str, random: np.random.Generator, keep: float) -> str:
    """Shuffle and thin the points of each section; headings and all else stay in place."""
    sections: list[tuple[list[str], list[str]]] = [([], [])]  # other lines, then points
    for line in text.splitlines():
        if line.startswith("- "):
            sections[-1][1].append(line)
        elif sections[-1][1]:
            sections.append(([line], []))
        else:
            sections[-1][0].append(line)
    lines = []
    for others, points in sections:
        kept = [point for point in points if random.random() < keep] or points[:1]
        lines += others + [kept[i] for i in random.permutation(len(kept))]
    return "\n".join(lines)


def _thin_lines(text: str, random: np.random.Generator, keep: float) -> str:
    first, *others = text.splitlines() or [""]
    return "\n".join([first, *(line for line in others if random.random() < keep)])
