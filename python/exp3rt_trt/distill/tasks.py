"""What the teacher is asked: preferences from a review, a profile from preferences, a rationale for a rating.

EXP3RT (arXiv 2408.06276, section 3) distils these three tasks; the words here are our own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exp3rt_trt.distill.ratings import parse_row
from exp3rt_trt.errors import Exp3rtError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SIDES = re.compile(r"\[Like\]\s*\n(?P<like>.*?)\[Dislike\]\s*\n(?P<dislike>.*)", re.DOTALL)
_RATING = re.compile(r"\n\s*Predicted User Rating:\s*(\d+(?:\.\d+)?)\s*$")
_FORM = (
    'Write "[Like]" on a line, then one point a line, each after "- "; then "[Dislike]" and its points in '
    'the same way. A side without points has the one point "- None". Write nothing else.'
)


class UnusableAnswerError(Exp3rtError):
    """A teacher's answer that does not have the form that was asked for."""


@dataclass(frozen=True)
class Task:
    """A task of the teacher.

    Args:
        name: of the task.
        instruction: the system's text.
        question: makes the user's text of an input row; names a missing field with an InvalidInputError.
        read: makes the output row's fields of an input row, the question and the answer; refuses an answer
            with an UnusableAnswerError.
    """

    name: str
    instruction: str
    question: Callable[[Mapping[str, Any]], str]
    read: Callable[[Mapping[str, Any], str, str], dict[str, Any]]


def extraction() -> Task:
    """Return the task that takes the likes and dislikes out of a review; rows need `review`."""
    words = "List what the writer of this review liked and disliked, each point in a few words of your own. "
    return _listing("extraction", words + _FORM, "review")


def profiles() -> Task:
    """Return the task that sums up preferences as a profile; rows need `preferences`."""
    words = "Sum up these preferences, taken from several reviews, as about five points a side. "
    return _listing("profiles", words + _FORM, "preferences")


def rationale(*, show_rating: bool) -> Task:
    """Return the task that reasons about a user and an item.

    Args:
        show_rating: the teacher sees the true rating and explains it, as the EXP3RT authors do; such a
            rationale always fits its rating, but is written in hindsight. Without it the teacher predicts a
            rating itself, which is kept beside the true one as `teacher_rating`.

    Returns:
        The task; its rows are rating rows (see `ratings`).
    """
    words = (
        "You read a person's taste, an item and what others thought of it. Tell in three or four sentences "
        "which of the item's traits speak to this taste, which speak against it, and what counts for more. "
    )
    ending = (
        "The rating that the person gave is shown; lead up to it without naming it."
        if show_rating
        else 'Then, on a line of its own, write "Predicted User Rating: " and a number of the scale.'
    )

    def question(row: Mapping[str, Any]) -> str:
        parse_row(dict(row), "row")
        text = (
            f"The person:\n{row['user_persona']}\n\nThe item:\n{row['item_description']}\n\n"
            f"What others thought of it:\n{row['item_synopsis']}"
        )
        return f"{text}\n\nThe person's rating: {row['score']}" if show_rating else text

    def read(row: Mapping[str, Any], _: str, answer: str) -> dict[str, Any]:
        found = _RATING.search(answer)
        text = answer[: found.start()].strip() if found else answer.strip()
        if not text:
            raise UnusableAnswerError("no rationale")
        if show_rating:
            return {**row, "rationale": text}
        if found is None:
            raise UnusableAnswerError('no "Predicted User Rating:" at the end')
        return {**row, "rationale": text, "teacher_rating": float(found[1])}

    name = "rationale" if show_rating else "rationale-honest"
    return Task(name, words + ending, question, read)


def _listing(name: str, instruction: str, field: str) -> Task:
    def question(row: Mapping[str, Any]) -> str:
        value = row.get(field)
        if not isinstance(value, str) or not value.strip():
            raise InvalidInputError(f"field {field!r} must be a text that is not empty")
        return value.strip()

    def read(_: Mapping[str, Any], asked: str, answer: str) -> dict[str, Any]:
        found = _SIDES.search(answer)
        if found is None or not all(
            re.search(r"^- \S", found[side], re.MULTILINE) for side in found.groupdict()
        ):
            raise UnusableAnswerError("not a [Like] list and a [Dislike] list of points")
        return {"instruction": instruction, "input": asked, "output": found[0].strip()}

    return Task(name, instruction, question, read)


def task_of(name: str, *, show_rating: bool) -> Task:
    """Return a task by name: extraction, profiles or rationale."""
    tasks = {"extraction": extraction, "profiles": profiles}
    return rationale(show_rating=show_rating) if name == "rationale" else tasks[name]()
