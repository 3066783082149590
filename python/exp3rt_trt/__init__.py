"""Rerank a user's candidate items with a distilled student LLM.

Names are loaded when they are first used, so that `import exp3rt_trt` stays quick.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exp3rt_trt.errors import BuildError, CatalogError, EngineError, Exp3rtError, InvalidInputError
    from exp3rt_trt.generation import GeneratedText, Generator, Task
    from exp3rt_trt.groups import RawPrompts
    from exp3rt_trt.inputs import Item, UserProfile
    from exp3rt_trt.prompts import AUTHORS, DEFAULT, PromptTemplate
    from exp3rt_trt.rating import RatingScale
    from exp3rt_trt.reranker import Reranker
    from exp3rt_trt.results import RankedItem, RankedResults
    from exp3rt_trt.scores import PromptScores
    from exp3rt_trt.stats import RerankerStats

__version__ = importlib.metadata.version("exp3rt_trt")

__all__ = [
    "AUTHORS",
    "DEFAULT",
    "BuildError",
    "CatalogError",
    "EngineError",
    "Exp3rtError",
    "GeneratedText",
    "Generator",
    "InvalidInputError",
    "Item",
    "PromptScores",
    "PromptTemplate",
    "RankedItem",
    "RankedResults",
    "RatingScale",
    "RawPrompts",
    "Reranker",
    "RerankerStats",
    "Task",
    "UserProfile",
    "__version__",
]

_MODULES = {
    "errors": ("BuildError", "CatalogError", "EngineError", "Exp3rtError", "InvalidInputError"),
    "generation": ("GeneratedText", "Generator", "Task"),
    "groups": ("RawPrompts",),
    "inputs": ("Item", "UserProfile"),
    "prompts": ("AUTHORS", "DEFAULT", "PromptTemplate"),
    "rating": ("RatingScale",),
    "reranker": ("Reranker",),
    "results": ("RankedItem", "RankedResults"),
    "scores": ("PromptScores",),
    "stats": ("RerankerStats",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
