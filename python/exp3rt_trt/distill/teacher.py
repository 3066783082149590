"""The teacher: any endpoint that speaks OpenAI's protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from exp3rt_trt.distill.tasks import UnusableAnswerError
from exp3rt_trt.errors import Exp3rtError, InvalidInputError


class TeacherError(Exp3rtError, RuntimeError):
    """The teacher cannot be asked; what was written so far stays, and the same call goes on from there."""


class Answer(NamedTuple):
    """What the teacher wrote, and what it cost."""

    text: str
    cost: float


@dataclass(frozen=True)
class Prices:
    """Of a million tokens, in any currency."""

    input: float = 0.0
    output: float = 0.0

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Return the price of a call."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


class Teacher:
    """Asks a chat model.

    Refusals that pass (429, 5xx, a lost connection) are retried by the client, with back-off.

    Args:
        model: name, as the endpoint knows it.
        base_url: of the endpoint; None for OpenAI's own. The key is taken from OPENAI_API_KEY.
        prices: for the cost cap.
        max_tokens: of an answer.
        retries: of one call.
        timeout_s: of one try.

    Raises:
        InvalidInputError: without the extra [distill], or without a key.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        prices: Prices = Prices(),
        max_tokens: int = 512,
        retries: int = 6,
        timeout_s: float = 120.0,
    ) -> None:
        try:
            import openai  # noqa: PLC0415
        except ImportError as error:
            raise InvalidInputError(f"a teacher needs the extra [distill]: {error}") from error
        try:
            self._client = openai.OpenAI(base_url=base_url, max_retries=retries, timeout=timeout_s)
        except openai.OpenAIError as error:
            raise InvalidInputError(f"teacher {model!r}: {error}") from None
        self._errors = openai.OpenAIError
        self.model = model
        self.prices = prices
        self.max_tokens = max_tokens

    def ask(self, instruction: str, question: str) -> Answer:
        """Ask once.

        Raises:
            TeacherError: if the endpoint refuses for good.
            UnusableAnswerError: if what it sent is not an answer.
        """
        messages: list[Any] = [
            {"role": "system", "content": instruction},
            {"role": "user", "content": question},
        ]
        try:
            reply: Any = self._client.chat.completions.create(
                model=self.model, messages=messages, max_tokens=self.max_tokens
            )
            text = reply.choices[0].message.content
        except self._errors as error:
            raise TeacherError(f"teacher {self.model!r}: {error}") from error
        except (
            ValueError,
            AttributeError,
            IndexError,
            TypeError,
        ) as error:  # a body that is not a completion
            raise UnusableAnswerError(f"the endpoint's reply is no completion: {error}") from None
        usage = reply.usage
        tokens = (
            (usage.prompt_tokens, usage.completion_tokens) if usage else self._most(instruction, question)
        )
        return Answer(text or "", self.prices.of(*tokens))

    def most_cost(self, instruction: str, question: str) -> float:
        """Return what a call can cost at most."""
        return self.prices.of(*self._most(instruction, question))

    def _most(self, instruction: str, question: str) -> tuple[int, int]:
        template = 64  # tokens that an endpoint's chat template may add
        return len((instruction + question).encode()) + template, self.max_tokens  # a token is a byte or more
