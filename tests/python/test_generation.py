from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from exp3rt_trt import EngineError, Generator, InvalidInputError, RatingScale, RawPrompts, Reranker, Task
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.prompts import Chat
from rank_cases import ITEMS, USER, ratings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TASK = Task("Say what the text says.", opening="It says", max_tokens=9)
TEXTS = [f"Film {n} is slow." + " Boats." * n for n in range(7)]


@pytest.fixture(scope="module")
def generator(engine: Path) -> Iterator[Generator]:
    with Generator(Engine.open(engine), threads=1, kv_cache_mib=64) as made:
        yield made


def test_a_text_is_what_the_raw_prompt_goes_on_with(base_student_engine: Callable[[str], Path]) -> None:
    with Reranker.from_pretrained(base_student_engine("fp32"), threads=1, kv_cache_mib=64) as reranker:
        [written] = reranker.generator().generate(Task("Be brief.", "The sky is", 6), ["What colour?"])
        chat = Chat(*(reranker.engine.manifest.chat or ("", "", "")))
        raw = RawPrompts(
            f"{chat.before_system}Be brief.{chat.between_system_and_user}",
            [f"What colour?{chat.after_user}The sky is"],
            max_reasoning_tokens=6,
            answer="\nPredicted User Rating: ",
        )
        [scores] = reranker.run_prompts([raw])
        reasoning = scores.reasoning_tokens[0]
        assert written.text.startswith("The sky is")
        assert reranker.decode(reasoning).startswith(written.text.removeprefix("The sky is"))


def test_many_are_each_alone_in_order(generator: Generator) -> None:
    many = list(generator.generate(TASK, iter(TEXTS)))
    assert many == [next(generator.generate(TASK, [text])) for text in TEXTS]
    assert all(written.text.startswith("It says") for written in many)
    assert {written.status for written in many} <= {"ended", "cut"}


def test_instructions_are_computed_once(engine: Path) -> None:
    with Generator(Engine.open(engine), threads=1, kv_cache_mib=64) as generator:
        task = Task("Say it. " * 40, max_tokens=2)
        list(generator.generate(task, TEXTS[:1]))
        first = generator._runtime.stats().prompt_tokens_computed
        list(generator.generate(task, TEXTS[:1]))
        again = generator._runtime.stats().prompt_tokens_computed - first
        assert again < first / 4


def test_a_text_that_does_not_fit_is_told_and_the_others_are_written(generator: Generator) -> None:
    long, short = generator.generate(TASK, ["boats " * 3000, "boats"])
    assert long.status == "too_long"
    assert long.text == ""
    assert "over the context limit" in (long.error or "")
    assert short.status in ("ended", "cut")


def test_a_reranker_and_its_generator_share_an_executor(reranker: Reranker, generator: Generator) -> None:
    before = ratings(reranker.rank(USER, ITEMS))
    assert list(reranker.generator().generate(TASK, TEXTS)) == list(generator.generate(TASK, TEXTS))
    assert ratings(reranker.rank(USER, ITEMS)) == before


def test_a_choice_reads_the_labels_behind_the_opening(base_student_engine: Callable[[str], Path]) -> None:
    task = Task("Name the size.", opening="It is", examples=(("A whale swims.", " big"),))
    with Reranker.from_pretrained(
        base_student_engine("fp32"), scale=RatingScale((" big", " small"), (0, 1)), threads=1, kv_cache_mib=64
    ) as reranker:
        chat = Chat(*(reranker.engine.manifest.chat or ("", "", "")))
        opening = f"{chat.after_user}It is"
        turns = f"{chat.between_system_and_user}A whale swims.{opening} big{chat.between_system_and_user}"
        raw = reranker.score_prompts(
            f"{chat.before_system}Name the size.{turns}", ["A mouse runs." + opening, "A hill." + opening]
        )
        chosen = reranker.generator().choose(task, ["A mouse runs.", "A hill."], (" big", " small"))
        assert chosen == pytest.approx(raw, abs=1e-5)
        assert chosen[0, 1] > chosen[1, 1]


def test_a_text_too_long_to_choose_for_is_nan_and_the_others_are_not(generator: Generator) -> None:
    chosen = generator.choose(TASK, ["boats " * 3000, "boats"], ("1", "2"))
    assert np.isnan(chosen[0]).all()
    assert chosen[1].sum() == pytest.approx(1)
    assert generator.choose(TASK, [], ("1", "2")).shape == (0, 2)


def test_faults_are_named(engine: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"task\.max_tokens must be at least 1, not 0"):
        Task("x", max_tokens=0)
    generator = Generator(Engine.open(engine), threads=1, kv_cache_mib=64)
    generator.close()
    with pytest.raises(EngineError, match="closed"):
        list(generator.generate(TASK, ["a"]))
