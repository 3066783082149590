"""From raw reviews to profiles: what each liked and disliked, kept in a store, summed up by user and item.

EXP3RT (arXiv 2408.06276), section 3: preference extraction and profile construction.
"""

from __future__ import annotations

from exp3rt_trt.profiles.builder import Counts, ProfileBuilder
from exp3rt_trt.profiles.clauses import ClauseJudge
from exp3rt_trt.profiles.extraction import Extraction, Extractor
from exp3rt_trt.profiles.lists import ListWriter
from exp3rt_trt.profiles.points import Preferences, merge, parse
from exp3rt_trt.profiles.reviews import Review, ReviewFile, read_items, read_reviews
from exp3rt_trt.profiles.store import ProfileStore

__all__ = [
    "ClauseJudge",
    "Counts",
    "Extraction",
    "Extractor",
    "ListWriter",
    "Preferences",
    "ProfileBuilder",
    "ProfileStore",
    "Review",
    "ReviewFile",
    "merge",
    "parse",
    "read_items",
    "read_reviews",
]
