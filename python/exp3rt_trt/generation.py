"""Text from an engine: many inputs under the same instructions, answered and computed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from exp3rt_trt._core import RerankGroup
from exp3rt_trt.errors import EngineError, InvalidInputError
from exp3rt_trt.executors.choice import CpuOptions
from exp3rt_trt.jobs import Limits
from exp3rt_trt.pending import Pending, Settled, in_order
from exp3rt_trt.prompts import PLAIN, Chat, Piece
from exp3rt_trt.rating import RatingScale, label_probabilities
from exp3rt_trt.runtime import Runtime
from exp3rt_trt.tokenization import PromptTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from exp3rt_trt.engines.engine import Engine
    from exp3rt_trt.executors import GroupResult
    from exp3rt_trt.tokenization import TokenIds

_LOOK_AHEAD = 64  # texts at work before another is taken in


@dataclass(frozen=True)
class Task:
    """What is to be done with every text.

    Args:
        instructions: the same for all; computed once.
        opening: the beginning of every answer, which the student goes on from.
        max_tokens: where an answer is cut off.
        examples: texts, and what follows the opening in their answers; turns before the text, computed once.
    """

    instructions: str
    opening: str = ""
    max_tokens: int = 256
    examples: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InvalidInputError(f"task.max_tokens must be at least 1, not {self.max_tokens}")


@dataclass(frozen=True)
class GeneratedText:
    """What the student wrote.

    Args:
        text: the answer, its opening included.
        status: "ended" by the student itself; "cut" at the most tokens; "too_long" for a prompt that does not
            fit; "failed" if the model gave no finite number.
        error: in words, for the last two, whose text is empty.
    """

    text: str
    status: Literal["ended", "cut", "too_long", "failed"]
    error: str | None = None


class Generator:
    """Writes texts with a student LLM, greedily.

    Thread-safe. `Reranker.generator` makes one that shares the Reranker's executor, hence its weights.

    Args:
        engine: an opened engine.
        threads: cores to compute on; 0 for all of the process's affinity.
        kv_cache_mib: memory for keys and values, in MiB.
        max_batch_tokens: most tokens that go through the model at once; 0 for 512 for each thread, at most
            2,048.
        runtime: an executor to share; the three options above are then unused.

    Raises:
        InvalidInputError: naming the option that is out of range.
        EngineError: if the engine cannot run here.

    Example:
        >>> task = Task("Name the colour in the text.", opening="The colour is", max_tokens=8)
        >>> with Generator(Engine.open("engines/smollm2-135m")) as generator:  # doctest: +SKIP
        ...     [written] = generator.generate(task, ["A red door."])
    """

    def __init__(
        self,
        engine: Engine,
        *,
        threads: int = 0,
        kv_cache_mib: int = 1024,
        max_batch_tokens: int = 0,
        runtime: Runtime | None = None,
    ) -> None:
        manifest = engine.manifest
        self.engine = engine
        self._tokenizer = PromptTokenizer(engine.tokenizer_path)
        self._chat = Chat(*manifest.chat) if manifest.chat is not None else PLAIN
        self._end_tokens = manifest.end_tokens
        self._runtime = runtime or Runtime(engine, CpuOptions(threads, kv_cache_mib, max_batch_tokens))
        stats = self._runtime.stats()
        self._limits = Limits(manifest.model.max_context, stats.blocks_total, stats.block_size)

    def generate(self, task: Task, texts: Iterable[str]) -> Iterator[GeneratedText]:
        """Write an answer to every text.

        Args:
            task: the instructions and the form of the answers.
            texts: user turns, taken as they are needed; control tokens in them are plain text.

        Yields:
            Answers in the order of the texts; one that could not be written has an error.

        Raises:
            EngineError: if the executor failed or was closed.
        """
        prefix = self._prefix(task)

        def begin(text: str) -> Pending[GeneratedText] | Settled[GeneratedText]:
            suffix = self._suffix(task, text, prefix)
            excess = self._limits.excess([prefix], len(suffix), task.max_tokens, 0)
            if excess is not None:
                return Settled(GeneratedText("", "too_long", excess))
            group = RerankGroup(
                prefix=[prefix],
                suffixes=[suffix],
                label_tokens=[],
                answer_tokens=[],
                max_reasoning_tokens=task.max_tokens,
                end_tokens=self._end_tokens,
            )
            return self._runtime.start([group], lambda results: self._written(task, results[0]))

        return in_order(texts, begin, _LOOK_AHEAD)

    def choose(self, task: Task, texts: Sequence[str], labels: tuple[str, ...]) -> NDArray[np.float64]:
        """Read how likely each label is to follow the opening.

        Args:
            task: the instructions and the form of the answers; nothing is written.
            texts: user turns.
            labels: of one token each.

        Returns:
            Probabilities among the labels, float64 [num_texts, num_labels]; NaN for a text that does not fit.

        Raises:
            EngineError: if a label is not one token, or the executor failed or was closed.
        """
        scale = RatingScale(labels, tuple(float(number) for number in range(len(labels))))
        prefix = self._prefix(task)
        suffixes = [self._suffix(task, text, prefix) for text in texts]
        logits = np.full((len(texts), len(labels)), np.nan)
        fits = [self._limits.excess([prefix], len(suffix), 0, 0) is None for suffix in suffixes]
        fitting = np.flatnonzero(fits).tolist()
        if not fitting:
            return logits
        after = self._tokenizer.encode_segment((Piece(self._chat.after_user, True),))
        group = RerankGroup(
            prefix=[prefix],
            suffixes=[suffixes[number] for number in fitting],
            label_tokens=self._tokenizer.label_tokens(scale, task.opening, after),
            answer_tokens=[],
            max_reasoning_tokens=0,
        )
        result = self._runtime.start([group], lambda results: results[0]).result()
        for number, candidate in zip(fitting, result.candidates, strict=True):
            if candidate.status == "ok":
                logits[number] = candidate.label_logits
        return label_probabilities(logits)

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a plain text."""
        return len(self._tokenizer.encode_segment((Piece(text),)))

    def close(self) -> None:
        """Stop computing, for those too with whom the executor is shared. May be called twice."""
        self._runtime.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _prefix(self, task: Task) -> TokenIds:
        chat, encode = self._chat, self._tokenizer.encode_segment
        start = [] if chat.before_system else self._tokenizer.start_tokens()
        pieces = [Piece(chat.before_system, True), Piece(task.instructions.strip())]
        next_turn = Piece(chat.between_system_and_user, True)  # ends a turn, and begins the user's
        for text, answer in task.examples:
            pieces += [next_turn, Piece(text), Piece(chat.after_user, True), Piece(task.opening + answer)]
        return start + encode((*pieces, next_turn), after=start)

    def _suffix(self, task: Task, text: str, prefix: TokenIds) -> TokenIds:
        user_turn = (Piece(text.strip()), Piece(self._chat.after_user, True), Piece(task.opening))
        return self._tokenizer.encode_segment(user_turn, after=prefix)

    def _written(self, task: Task, result: GroupResult) -> GeneratedText:
        (candidate,) = result.candidates
        if candidate.status == "failed":
            return GeneratedText("", "failed", "the model gave no finite number")
        if candidate.status != "ok":
            raise EngineError(f"the text was {candidate.status} before it was finished")
        tokens = candidate.reasoning_tokens
        status: Literal["ended", "cut"] = "cut" if len(tokens) == task.max_tokens else "ended"
        return GeneratedText(task.opening + self._tokenizer.decode(tokens), status)
