"""What the student is asked of a review; `VERSION` changes with the words, so that a store notices."""

from __future__ import annotations

from exp3rt_trt.generation import Task

VERSION = "2"

# The examples are part of the shared instructions, so that they cost once for all reviews.
INSTRUCTIONS = """\
You read a review and list what the writer liked and what the writer disliked. Each point is a few words \
that stand in the review. A side without points is "- None".

Review: The torch is very bright and fits in a pocket, but the battery was empty after a week. The clip broke.
[Like]
- very bright
- fits in a pocket
[Dislike]
- battery empty after a week
- clip broke

Review: I bought this kettle for my mother. It boils fast and she loves the handle. Five stars!
[Like]
- boils fast
- she loves the handle
[Dislike]
- None

Review: Came late, smells of glue, and nobody answered my letters. Avoid.
[Like]
- None
[Dislike]
- came late
- smells of glue
- nobody answered my letters"""

EXTRACT = Task(INSTRUCTIONS, opening="[Like]\n-", max_tokens=64)
RETRY = Task(INSTRUCTIONS, opening="[Dislike]\n-", max_tokens=48)  # for an answer that never came to it


def question(text: str) -> str:
    """Return the user turn for a review; the rating is left out, for a weak student lists the number."""
    return f"Review: {' '.join(text.split())}"


VERDICTS = (" bad", " good")
JUDGE = Task(
    "Say of each sentence from a review whether it is bad or good.",
    opening="That is",
    examples=(
        ("The sound is warm and full", " good"),
        ("The strap broke after two days", " bad"),
        ("It never stays in tune", " bad"),
        ("Easy to set up", " good"),
        ("Cheap plastic that cracks", " bad"),
        ("I use it every day and love it", " good"),
    ),
)
CONTENT_FREE = ("N/A", "It", "The item")  # texts that are neither
