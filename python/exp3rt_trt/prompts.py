"""Prompts as segments: instructions, user, item, the answer's opening.

Instructions and user form the prefix that all candidates of a user share; the item and the opening are a
candidate's suffix. A segment consists of pieces. A control piece comes from the engine's chat format and may
contain special tokens; a text piece is tokenized as plain text, whatever it says.
"""

from __future__ import annotations

import functools
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from exp3rt_trt.inputs import Item, UserProfile
    from exp3rt_trt.rating import RatingScale

Mode: TypeAlias = Literal["score", "reason"]  # how a rating is made
RankingMode: TypeAlias = Literal["score", "reason", "adaptive"]  # how a ranking is made of ratings

SCORE_OPENING = "Predicted User Rating: "
REASON_OPENING = "Reasoning:"
REASON_ANSWER = "\nPredicted User Rating: "

_SCALE_FIELDS = {"labels", "first_label", "last_label", "lowest", "highest"}
_USER_FIELDS = _SCALE_FIELDS | {"profile", "average_rating"}
_OWN_ITEM_FIELDS = {"title", "description", "profile"}
_ITEM_FIELDS = _SCALE_FIELDS | _OWN_ITEM_FIELDS


class Piece(NamedTuple):
    """Text, and whether special tokens are recognised in it."""

    text: str
    control: bool = False


Segment: TypeAlias = "tuple[Piece, ...]"


class Chat(NamedTuple):
    """The literals of a chat format around a system text and one user turn."""

    before_system: str
    between_system_and_user: str
    after_user: str


PLAIN = Chat("", "\n\n", "\n\n")  # for students without a chat format: texts with blank lines between them


@dataclass(frozen=True)
class PromptTemplate:
    r"""Texts with placeholders in braces, from which the segments of a prompt are made.

    All may speak of the scale: {labels}, {first_label}, {last_label}, {lowest}, {highest}. A part whose own
    placeholder has no value (e.g. a candidate without a title) is left out.

    Args:
        system: constant instructions.
        user: parts with {profile} and {average_rating}; each ends with a newline.
        item: parts with {title}, {description} and {profile}; each ends with a newline.
        closing: constant text after the item, repeated in every suffix; better left to `system`.

    Raises:
        InvalidInputError: naming the field with an unknown placeholder or without a newline at its end.

    Example:
        >>> import dataclasses
        >>> films = dataclasses.replace(DEFAULT, item=("Film: {title}\n", "Plot: {description}\n"))
    """

    system: str
    user: tuple[str, ...]
    item: tuple[str, ...]
    closing: str = ""

    def __post_init__(self) -> None:
        _check(self.system, "system", _SCALE_FIELDS)
        _check(self.closing, "closing", _SCALE_FIELDS)
        for field, allowed in (("user", _USER_FIELDS), ("item", _ITEM_FIELDS)):
            parts = getattr(self, field)
            if isinstance(parts, str):
                raise InvalidInputError(f"template.{field} must be a tuple of parts, not one string")
            for number, part in enumerate(parts):
                _check(part, f"{field}[{number}]", allowed)
                if not part.endswith("\n") or part[:1].isspace():
                    raise InvalidInputError(
                        f"template.{field}[{number}] must end with a newline and not begin with white space"
                    )

    def instructions_segment(self, scale: RatingScale, chat: Chat) -> Segment:
        """Return the segment that is the same for all users."""
        text = self.system.format_map(scale.wording()).strip()
        return Piece(chat.before_system, True), Piece(text), Piece(chat.between_system_and_user, True)

    def user_segment(self, user: UserProfile, scale: RatingScale) -> Segment:
        """Return the segment that is the same for all candidates of a user."""
        rating = None if user.average_rating is None else f"{user.average_rating:.1f}"
        return (Piece(_fill(self.user, {"profile": user.profile, "average_rating": rating}, scale)),)

    def item_segment(self, item: Item, scale: RatingScale) -> Segment:
        """Return the segment of one candidate."""
        given = {name: getattr(item, name) for name in _OWN_ITEM_FIELDS}
        closing = self.closing.format_map(scale.wording()).strip()
        return (Piece((_fill(self.item, given, scale) + closing).rstrip()),)

    def tells_of(self, item: Item) -> bool:
        """Return whether any text of an item finds a place in its segment."""
        given = {name for name in _OWN_ITEM_FIELDS if getattr(item, name) is not None}
        own = [_names(part) & _OWN_ITEM_FIELDS for part in self.item]
        return any(names and names <= given for names in own)

    def opening_segment(self, chat: Chat, mode: Mode) -> Segment:
        """Return the segment between the item and what the student writes, without the forced answer."""
        closing = Piece(chat.after_user, True)
        return (closing, Piece(REASON_OPENING)) if mode == "reason" else (closing,)

    def answer(self, mode: Mode) -> str:
        """Return the forced text after which the label is read."""
        return REASON_ANSWER if mode == "reason" else SCORE_OPENING


def _check(text: str, where: str, allowed: set[str]) -> None:
    try:
        found = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError as error:
        raise InvalidInputError(f"template.{where}: {error}") from None
    if any(form or conversion for _, _, form, conversion in found):
        raise InvalidInputError(f"template.{where}: a placeholder is a name alone, without ':' or '!'")
    names = {str(name) for _, name, _, _ in found}
    if names - allowed:
        unknown = ", ".join(sorted(f"{{{name}}}" for name in names - allowed))
        raise InvalidInputError(f"template.{where}: unknown {unknown}; known: {', '.join(sorted(allowed))}")


@functools.lru_cache(maxsize=256)
def _names(text: str) -> frozenset[str]:
    return frozenset(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def _fill(parts: tuple[str, ...], given: dict[str, str | None], scale: RatingScale) -> str:
    values = {**scale.wording(), **given}
    told = [part for part in parts if all(values[name] is not None for name in _names(part))]
    return "".join(part.format_map(values) for part in told)


# Everything constant stands before the item, so that it is computed once.
DEFAULT = PromptTemplate(
    system=(
        "You judge how well an item suits a person. First you read about the person's taste, then about "
        "the item and, where it is known, what other people thought of it. Compare the two: find what "
        "in the item speaks to this taste and what speaks against it, and weigh which counts for more. "
        "Explain this in a few sentences if you are asked for your reasoning. Then state the rating "
        'that you expect from this person as one of {labels}, where {first_label} means "could not '
        'stand it" and {last_label} means "an instant favourite". The rating stands on a line of its '
        'own, after the words "Predicted User Rating:".'
    ),
    user=(
        "About the person:\n{profile}\n",
        "Mean of the person's ratings so far, on a scale from {lowest} to {highest}: {average_rating}\n",
        "About the item:\n",
    ),
    item=("Title: {title}\n", "Description: {description}\n", "What others thought of it:\n{profile}\n"),
)

# The order of the EXP3RT authors' prompts, in words of our own: a constant request follows the item. Students
# that were trained on other words need those: `dataclasses.replace(AUTHORS, system=..., ...)`.
AUTHORS = PromptTemplate(
    system="You foresee how people will rate items, from their personas and from what is known of the items.",
    user=(
        "Persona of the user:\n{profile}\n",
        "Average rating by the user, from {lowest} to {highest}: {average_rating}\n",
    ),
    item=(
        "Title: {title}\n",
        "Description of the item:\n{description}\n",
        "Synopsis of its reviews:\n{profile}\n",
    ),
    closing=(
        "Reason step by step about what this user will like and dislike in the item. Close with the "
        'words "Predicted User Rating:" and one of {labels}; {first_label} is the worst and '
        "{last_label} the best."
    ),
)
