"""What a part of the prompt is worth: the same method, with that part taken away."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.rows import with_average, without_average

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from exp3rt_trt.evaluate.predictors import Predictions, Predictor
    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.inputs import Item, UserProfile

TEXTS = ("user_profile", "item_profile", "description")
PARTS = (*TEXTS, "averages")
NO_PROFILE = "[Like]\n- None\n\n[Dislike]\n- None"  # the form that a student may have been taught


def without(predictor: Predictor, parts: Collection[str]) -> Predictor:
    """Return the method on rows that lack parts of their text.

    Args:
        predictor: any.
        parts: of PARTS. The averages stay in the prompt unless they are named, too.

    Raises:
        InvalidInputError: naming a part that is not known.

    Example:
        >>> without(student, ["user_profile", "averages"])  # doctest: +SKIP
    """
    if not parts or set(parts) - set(PARTS):
        raise InvalidInputError(
            f"parts to leave out must be of {', '.join(PARTS)}, not {', '.join(parts) or 'nothing'}"
        )

    def predict(rows: Sequence[RatingRow], /) -> Predictions:
        return predictor([_lacking(row, parts) for row in rows])

    return predict


def _lacking(row: RatingRow, parts: Collection[str]) -> RatingRow:
    average = None if "averages" in parts else row.item_average
    return replace(row, user=_user(row.user, parts), item=_item(row.item, parts), item_average=average)


def _user(user: UserProfile, parts: Collection[str]) -> UserProfile:
    return replace(
        user,
        profile=NO_PROFILE if "user_profile" in parts else user.profile,
        average_rating=None if "averages" in parts else user.average_rating,
    )


def _item(item: Item, parts: Collection[str]) -> Item:
    text, average = without_average(item.profile or "")
    left = with_average(
        NO_PROFILE if "item_profile" in parts and text else text, None if "averages" in parts else average
    )
    description = None if "description" in parts else item.description
    return replace(item, description=description, profile=left or None)
