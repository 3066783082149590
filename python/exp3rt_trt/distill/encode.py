"""Rows and texts as the token ids that the engine will see."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from exp3rt_trt.engines import families
from exp3rt_trt.engines.chat import end_of_turn
from exp3rt_trt.engines.sources import open_checkpoint
from exp3rt_trt.engines.tokenizers import write_tokenizer
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.groups import GroupBuilder
from exp3rt_trt.jobs import Limits, Request
from exp3rt_trt.prompts import DEFAULT, PLAIN, Chat, Mode, Piece, PromptTemplate
from exp3rt_trt.segments import CAUSAL, SegmentLayout, SegmentName
from exp3rt_trt.tokenization import PromptTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt._core import RerankGroup
    from exp3rt_trt.evaluate.rows import RatingRow
    from exp3rt_trt.rating import RatingScale
    from exp3rt_trt.tokenization import TokenIds


Prompt: TypeAlias = "dict[SegmentName, TokenIds]"  # in the order of `SEGMENTS`


@dataclass(frozen=True)
class EncodedGroup:
    """A user's rows: token ids of their segments, up to the label.

    Args:
        instructions: the same for all users.
        user: the same for all rows.
        items: of each row.
        answer: the same for all rows, the last token before the label at its end.
        ratings: of each row, on the scale's values.
        label_tokens: of each label of the scale.
    """

    instructions: TokenIds
    user: TokenIds
    items: list[TokenIds]
    answer: TokenIds
    ratings: list[float]
    label_tokens: tuple[int, ...]

    def prompts(self) -> list[Prompt]:
        """Return each row's prompt by segments."""
        return [
            {"instructions": self.instructions, "user": self.user, "item": item, "answer": self.answer}
            for item in self.items
        ]


@dataclass(frozen=True)
class EncodedText:
    """A prompt with the answer that the student should give.

    Args:
        segments: token ids, in the order of `SEGMENTS`.
        num_trained: how many of the last tokens are the answer.
    """

    segments: Prompt
    num_trained: int


class Encoder:
    """Encodes with the engine's own code, from a checkpoint's tokenizer.

    Args:
        checkpoint: of the student: a directory or a .gguf file.
        scale: what the student answers with.
        template: where the texts go.
        layout: how the student reads a prompt; bounds the lengths of its segments.

    Raises:
        BuildError: if the checkpoint is damaged, or a digit is not one token.
    """

    def __init__(
        self,
        checkpoint: Path,
        scale: RatingScale,
        template: PromptTemplate = DEFAULT,
        layout: SegmentLayout = CAUSAL,
    ) -> None:
        source = open_checkpoint(checkpoint)
        where = str(source.config_path)
        dims = families.dimensions(source.config, where)
        with tempfile.TemporaryDirectory() as folder:
            facts = write_tokenizer(source, Path(folder), dims.vocab_size, where)
            self._tokenizer = PromptTokenizer(Path(folder) / "tokenizer.json")
        self._chat = Chat(*facts.chat) if facts.chat is not None else PLAIN
        end = end_of_turn(source.tokenizer())
        self._end = list(facts.end_tokens[:1]) if end is None else [end]
        self._scale = scale
        self._groups = GroupBuilder(
            self._tokenizer,
            template=template,
            scale=scale,
            chat=self._chat,
            limits=Limits(dims.max_context, sys.maxsize, 1, layout),
            end_tokens=facts.end_tokens,
            max_reasoning_tokens=0,
        )

    @property
    def scale_ends(self) -> tuple[float, float]:
        """The lowest and the highest rating."""
        return self._scale.values[0], self._scale.values[-1]

    def encode(self, rows: Sequence[RatingRow]) -> EncodedGroup:
        """Encode rows of one user with one profile, for score mode.

        Raises:
            InvalidInputError: naming the item that cannot be rated.
        """
        group = self._group(rows, "score")
        instructions, user = group.prefix
        return EncodedGroup(
            instructions,
            user,
            group.items or group.suffixes,
            group.suffixes[0] if group.items else group.answer_tokens,
            [row.rating for row in rows],
            tuple(group.label_tokens),
        )

    def encode_rationale(self, row: RatingRow, rationale: str) -> EncodedText:
        """Encode a row for reason mode, with what the student should go on with: reasoning, answer and label.

        Args:
            row: its rating, rounded, is the label.
            rationale: that leads to it.

        Raises:
            InvalidInputError: naming the item that is too long.
        """
        group = self._group([row], "reason")
        instructions, user = group.prefix
        item, opening = (*group.items, *group.suffixes) if group.items else (*group.suffixes, [])
        nearest = min(range(len(self._scale.values)), key=lambda i: abs(self._scale.values[i] - row.rating))
        (reasoning,) = self._tokenizer.encode_texts([f" {rationale}"], after=opening or item)
        answer = [*reasoning, *group.answer_tokens, group.label_tokens[nearest], *self._end]
        segments: Prompt = {
            "instructions": instructions,
            "user": user,
            "item": item,
            "answer": [*opening, *answer],
        }
        return EncodedText(segments, len(answer))

    def encode_task(self, instruction: str, text: str, output: str) -> EncodedText:
        """Encode a task with its instructions as the system's text, and the answer with its end of turn.

        It has no item that would be read apart: all of it is one segment.
        """
        segment = (
            Piece(self._chat.before_system, control=True),
            Piece(instruction),
            Piece(self._chat.between_system_and_user, control=True),
            Piece(text),
            Piece(self._chat.after_user, control=True),
        )
        prompt = self._tokenizer.encode_segment(segment)
        (output_tokens,) = self._tokenizer.encode_texts([output], after=prompt)
        answer = [*output_tokens, *self._end]
        segments: Prompt = {"instructions": [*prompt, *answer], "user": [], "item": [], "answer": []}
        return EncodedText(segments, len(answer))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return self._tokenizer.decode(tokens)

    def _group(self, rows: Sequence[RatingRow], mode: Mode) -> RerankGroup:
        job = self._groups.build(rows[0].user, [row.item for row in rows], Request(), mode)
        faults = [slot.error for slot in job.slots if slot.error is not None]
        if faults or job.group is None:
            raise InvalidInputError(f"user {rows[0].user.user_id!r}: {'; '.join(faults) or 'no rows'}")
        return job.group
