"""Fixtures: tiny checkpoints and engines, made once a session, and the base student."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import tiny_models
from rank_cases import open_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exp3rt_trt import Reranker
    from transformers import PreTrainedTokenizerBase

USERS_CACHE = os.environ.get("EXP3RT_TRT_CACHE")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps the user's cache out of the tests; only the base student is taken from it."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXP3RT_TRT_CACHE", str(cache))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield cache


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives a random checkpoint directory by the name of its family (tiny_models.FAMILIES)."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = tiny_models.make_checkpoint(family, tmp_path_factory.mktemp(family))
        return made[family]

    return make


@pytest.fixture(scope="session")
def tiny_engine(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[[str], Path]
) -> Callable[[str, str], Path]:
    """Gives an engine directory by family and dtype. It is shared: copy it before you damage it."""
    made: dict[tuple[str, str], Path] = {}

    def make(family: str, dtype: str = "fp32") -> Path:
        from exp3rt_trt.engines.build import build_engine

        if (family, dtype) not in made:
            out = tmp_path_factory.mktemp("engines") / f"{family}-{dtype}"
            build_engine(tiny_checkpoint(family), out, dtype)
            made[family, dtype] = out
        return made[family, dtype]

    return make


@pytest.fixture(scope="session")
def segmented_engine(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[[str], Path]
) -> Callable[[str, str], Path]:
    """Gives an engine directory of a segmented student by family and dtype."""
    made: dict[tuple[str, str], Path] = {}
    folder = tmp_path_factory.mktemp("segmented")

    def make(family: str = "llama", dtype: str = "fp32") -> Path:
        from segmented import make_segmented_engine

        if (family, dtype) not in made:
            out = folder / f"{family}-{dtype}"
            made[family, dtype] = make_segmented_engine(tiny_checkpoint(family), out, dtype)
        return made[family, dtype]

    return make


@pytest.fixture(scope="session")
def base_student_gguf(own_cache: Path) -> Path:
    """The base student's file, downloaded into the user's cache if it is not there."""
    from exp3rt_trt.engines.students import fetch_student

    assert own_cache.exists()
    with pytest.MonkeyPatch.context() as patch:
        if USERS_CACHE is None:
            patch.delenv("EXP3RT_TRT_CACHE")
        else:
            patch.setenv("EXP3RT_TRT_CACHE", USERS_CACHE)
        return fetch_student("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def base_student_engine(
    tmp_path_factory: pytest.TempPathFactory, base_student_gguf: Path
) -> Callable[[str], Path]:
    """Gives the base student's engine directory by dtype."""
    made: dict[str, Path] = {}

    def make(dtype: str = "fp32") -> Path:
        from exp3rt_trt.engines.build import build_engine

        if dtype not in made:
            made[dtype] = tmp_path_factory.mktemp("student") / dtype
            build_engine(base_student_gguf, made[dtype], dtype)
        return made[dtype]

    return make


@pytest.fixture(scope="session")
def base_student_reference_tokenizer(base_student_gguf: Path) -> PreTrainedTokenizerBase:
    """The base student's tokenizer as transformers makes it from the file."""
    from transformers import AutoTokenizer

    names = (base_student_gguf.parent, base_student_gguf.name)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(names[0], gguf_file=names[1])
    return tokenizer


@pytest.fixture(scope="module")
def engine(tiny_engine: Callable[[str, str], Path]) -> Path:
    """Gives the engine that most tests of ranking use."""
    return tiny_engine("llama", "fp32")


@pytest.fixture(scope="module")
def reranker(engine: Path) -> Iterator[Reranker]:
    """Gives a Reranker of `engine`, shared by the tests of a file."""
    with open_(engine) as made:
        yield made
