"""English words as the measures of explanations see them: stems, stances, names."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

from exp3rt_trt.evaluate.explanations.english import BEFORE_VERBS, NEGATIONS, OTHERWISE_NOUNS, STANCE, STOP
from exp3rt_trt.extras import require

WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\bMr\.)(?<!\bDr\.)(?<!\bMs\.)(?<!\bMrs\.)[\"”')]*\s+|\n+")
_STATEMENT = re.compile(r"[,:()]|\b(?=(?:who|which|that|because|since|as|they|given)\b)", re.IGNORECASE)
_MARK = re.compile(r"^\s*(?:[-*•]+|\d+[.)])\s+", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\d.,])(?:\d{3,}|\d+\.\d+)(?![\d,])")
_CAPITALS = re.compile(r"\b[A-ZÀ-Þ][\w'\u2019-]*(?: [A-ZÀ-Þ][\w'\u2019-]*)*")
_CONTRAST = re.compile(
    r";|,?\s+\b(?:but|however|although|though|while|whereas|yet|despite|even if)\b,?\s*", re.IGNORECASE
)

_REACH = 6  # words before a stance word in which a negation turns it round


def sentences(text: str) -> list[str]:
    """Split text into sentences; a line ends one, too, and marks of lists are left out."""
    return [each.strip() for each in _SENTENCE_END.split(_MARK.sub("", text)) if WORD.search(each)]


def clauses(text: str) -> list[str]:
    """Split text into sentences, and these at words of contrast: each speaks for or against, not both."""
    parts = (part.strip(" ,") for sentence in sentences(text) for part in _CONTRAST.split(sentence))
    return [part for part in parts if WORD.search(part)]


def words(text: str) -> list[str]:
    """Return words in lower case, without 's."""
    return [re.sub(r"['\u2019]s$", "", word.lower()) for word in WORD.findall(text)]


def stems(text: str) -> frozenset[str]:
    """Return the stems of the words that have content, by the Snowball stemmer for English; no numbers."""
    parts = (part for word in words(text) for part in word.split("-"))
    kept = (word for word in parts if word not in STOP and word not in STANCE and not word[0].isdigit())
    return frozenset(_stem(word) for word in kept)


def segments(text: str) -> list[str]:
    """Split text wherever a new statement may begin, so that a verb and its negation stay together."""
    parts = (part for clause in clauses(text) for part in _STATEMENT.split(clause))
    return [part.strip() for part in parts if WORD.search(part)]


def stance(segment: str) -> int:
    """Return 1 if a segment speaks of liking, -1 of disliking, 0 of neither or both.

    A negation shortly before turns a word round: "would not really enjoy" is disliking.
    """
    return sign(sum(each.sign for each in stances(segment)))


class Stance(NamedTuple):
    """A word of liking (1) or disliking (-1, after negation), and the words up to the next such word."""

    sign: int
    word: str
    object: str


def stances(segment: str) -> list[Stance]:
    """Return what a segment says of liking and disliking, in its order."""
    given = words(segment)
    places = [place for place in range(len(given)) if _is_stance(given, place)]
    found = []
    for place, last, following in zip(places, [-1, *places], [*places[1:], len(given)], strict=False):
        before = given[max(last + 1, place - _REACH) : place]
        turned = any(each in NEGATIONS or each.endswith(("n't", "n\u2019t")) for each in before)
        turned ^= given[place + 1 : place + 2] == ["not"]  # "prefers not to see"
        word = given[place]
        found.append(
            Stance(-STANCE[word] if turned else STANCE[word], word, " ".join(given[place + 1 : following]))
        )
    return found


def sign(number: float) -> int:
    """Return 1, 0 or -1."""
    return (number > 0) - (number < 0)


def names(text: str) -> list[str]:
    """Return names, years and decimal numbers, without repetitions.

    A name is a run of words with capitals ("Cary Grant"). The first word of a sentence has one anyway and is
    left out, names included.
    """
    found: list[str] = []
    for sentence in sentences(text):
        found += _NUMBER.findall(sentence)
        _, *rest = sentence.split(maxsplit=1)
        found += [name for run in _CAPITALS.findall(" ".join(rest)) if (name := _without_stop_words(run))]
    return list(dict.fromkeys(found))


def _without_stop_words(run: str) -> str:
    """Cut words like "The" off the ends of a name; those inside belong to it."""
    kept = [place for place, word in enumerate(run.split()) if not STOP.issuperset(words(word))]
    return " ".join(run.split()[kept[0] : kept[-1] + 1]) if kept else ""


def _is_stance(given: list[str], place: int) -> bool:
    if given[place] not in STANCE or given[place] not in OTHERWISE_NOUNS:
        return given[place] in STANCE
    before = given[place - 1] if place else ""
    return before in BEFORE_VERBS or before.endswith("ly")


@functools.lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return str(_stemmer().stemWord(word))


@functools.cache
def _stemmer() -> Any:  # noqa: ANN401  (untyped)
    return require("snowballstemmer", "evaluate").stemmer("english")
