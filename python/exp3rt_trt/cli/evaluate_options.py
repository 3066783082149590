"""What `exp3rt-trt evaluate` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exp3rt_trt.cli.options import Scale
    from exp3rt_trt.prompts import RankingMode


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of the command; see its help."""

    ratings: str
    fit: str
    engine: str
    modes: Sequence[RankingMode]
    calibrated: bool
    interactions: str | None
    texts: Sequence[str]
    without: Sequence[str]
    against: str | None
    cold_below: int
    limit: int | None
    users: int | None
    candidates: int
    blend_users: int
    right_from: float
    scale: Scale | None
    max_reasoning_tokens: int
    seed: int
    threads: int

    def check(self) -> None:
        """Refuse what only rankings heed if there are none.

        Raises:
            InvalidInputError: naming the option, and the missing one.
        """
        of_rankings = {
            "--mode adaptive": "adaptive" in self.modes,
            "--blend-users": self.blend_users > 0,
            "--users": self.users is not None,
            "--right-from": self.right_from > 0,
        }
        for option, given in of_rankings.items():
            if given and self.interactions is None:
                raise InvalidInputError(f"{option} is for rankings only: --interactions is missing")

    def inputs(self) -> list[tuple[str, str | Path]]:
        """Return the options that name files to read, with the files."""
        names = ("train.txt", "test.txt", "user_list.txt", "item_list.txt") if self.interactions else ()
        return [
            ("--ratings", self.ratings),
            ("--fit", self.fit),
            *(("--interactions", Path(self.interactions or "") / name) for name in names),
            *(("--texts", path) for path in self.texts),
            ("--engine", self.engine),
        ]
