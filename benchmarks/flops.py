"""How many operations rating takes, from a model's sizes: the expected slopes of scaling.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exp3rt_trt.engines.manifest import ModelDims


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @classmethod
    def of(cls, dims: ModelDims) -> Shape:
        """Return an engine's shape."""
        return cls(
            dims.num_layers,
            dims.hidden_size,
            dims.intermediate_size,
            dims.num_heads,
            dims.num_kv_heads,
            dims.head_dim,
            dims.vocab_size,
        )

    def weights_per_token(self) -> int:
        """Return how many weights of the layers a token meets (no embedding, no output matrix)."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    def tokens(self, new: float, context: float) -> float:
        """Return the operations of `new` tokens behind `context` others, without the output matrix.

        A multiplication and an addition count as two. A token meets the keys and the values of all before it.
        """
        seen = new * context + new * (new + 1) / 2
        return 2 * new * self.weights_per_token() + 4 * seen * self.layers * self.heads * self.head_dim

    def score(self, users: int, candidates: int, prefix: float, suffix: float) -> float:
        """Return the operations of a job in score mode: each prefix once, every suffix behind it."""
        return users * (self.tokens(prefix, 0) + candidates * self.tokens(suffix, prefix))

    def reason(
        self, users: int, candidates: int, prefix: float, suffix: float, *, written: int, answer: int
    ) -> float:
        """Return those of a job in reason mode: a written token also meets the whole output matrix.

        The answer's tokens are read behind the written ones.
        """
        behind = self.tokens(written + answer, prefix + suffix) + 2 * written * self.hidden * self.vocab
        return self.score(users, candidates, prefix, suffix) + users * candidates * behind
