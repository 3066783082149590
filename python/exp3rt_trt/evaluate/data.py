"""The files of an evaluation: what is fitted on, what is measured, and what is known beside."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt.engines.weights_file import sha256_of
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.evaluate.interactions import Interactions, read_interactions
from exp3rt_trt.evaluate.rows import RatingFile, RatingRow, read_ratings
from exp3rt_trt.evaluate.split import in_user_order, split_by_user
from exp3rt_trt.evaluate.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exp3rt_trt.inputs import Id
    from exp3rt_trt.rating import RatingScale


@dataclass(frozen=True)
class Source:
    """A file that was read: its sha256, and in words the lines that could not be used."""

    path: str
    sha256: str
    faults: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """What an evaluation works on.

    Args:
        fit: rows that baselines are fitted on.
        rows: rows that are measured.
        texts: of all users and items.
        train: interactions that the first stage is fitted on; None without interactions.
        held_out: interactions that rankings are measured by.
        sources: the files.
    """

    fit: Sequence[RatingRow]
    rows: Sequence[RatingRow]
    texts: Texts
    train: Interactions | None = None
    held_out: Interactions = field(default_factory=dict)
    sources: Sequence[Source] = ()

    def known(self) -> dict[Id, set[Id]]:
        """Return the items of which each user's rating or interaction is known before."""
        known: dict[Id, set[Id]] = {user: set(items) for user, items in (self.train or {}).items()}
        for row in self.fit:
            known.setdefault(row.user_id, set()).add(row.item.item_id)
        return known

    def coverage(self) -> dict[str, int]:
        """Return how many measured users, and items that may be proposed to them, have texts."""
        users = dict.fromkeys(row.user_id for row in self.rows)
        proposed = [item for items in (self.train or {}).values() for item in items]
        items = dict.fromkeys(proposed or [row.item.item_id for row in self.rows])
        known = [item for item in map(self.texts.item, items) if item is not None]
        return {
            "fitting_rows": len(self.fit),
            "users": len(users),
            "users_with_profile": len(self.users_to_rank(None)),
            "users_with_held_out_items": sum(user in self.held_out for user in users),
            "items": len(items),
            "items_with_profile": sum(item.profile is not None for item in known),
            "items_with_description": sum(item.description is not None for item in known),
        }

    def users_to_rank(self, limit: int | None) -> list[Id]:
        """Return the first of the measured users who have a profile, in the order of the rows."""
        return self._with_profile(self.rows)[:limit]

    def users_to_fit(self, limit: int | None) -> list[Id]:
        """Return the first of the users of the fitting rows, in their order, who have a profile."""
        measured = {row.user_id for row in self.rows}
        return self._with_profile([row for row in self.fit if row.user_id not in measured])[:limit]

    def right_items(self, least: float) -> Interactions:
        """Return the held-out items that their user rated, and not lower than `least`."""
        rated = {(row.user_id, row.item.item_id) for row in (*self.fit, *self.rows) if row.rating >= least}
        found = {
            user: [item for item in items if (user, item) in rated] for user, items in self.held_out.items()
        }
        return {user: items for user, items in found.items() if items}

    def _with_profile(self, rows: Sequence[RatingRow]) -> list[Id]:
        users = dict.fromkeys(row.user_id for row in rows)
        return [user for user in users if (found := self.texts.user_profile(user)) and found.profile]


def read_data(
    ratings: str,
    fit: str,
    scale: RatingScale,
    *,
    interactions: str | None = None,
    texts: Iterable[str] = (),
    limit: int | None = None,
    seed: int = 0,
) -> EvaluationData:
    """Read the files of an evaluation.

    Args:
        ratings: JSONL of rating rows; see `read_ratings`.
        fit: what to fit on: another such file; or a share of the users of `ratings` (0.5); or that many of
            its first rows (1400).
        scale: of the ratings.
        interactions: folder; see `read_interactions`.
        texts: more files with texts; see `Texts.add_file`.
        limit: most rows to measure: those of the first users in a random order.
        seed: of the split and that order.

    Raises:
        InvalidInputError: naming the file that cannot be read, the option, or a rating that is on both sides.
    """
    file = read_ratings(ratings, scale)
    sources = [_source(file.path, file.faults)]
    fitting, rows = _parts(file, fit, scale, sources, seed)
    if not fitting or not rows:
        raise InvalidInputError(f"{ratings}: {len(fitting)} rows to fit on and {len(rows)} to measure")
    gathered = Texts()
    gathered.add_rows([*rows, *fitting])
    sources += [_source(path, gathered.add_file(path)) for path in texts]
    train = read_interactions(Path(interactions), "train.txt") if interactions else None
    held_out = read_interactions(Path(interactions), "test.txt") if interactions else {}
    if interactions:
        sources += [_source(str(Path(interactions) / name)) for name in ("train.txt", "test.txt")]
    measured = in_user_order(rows, seed)[:limit]
    return EvaluationData(fitting, measured, gathered, train, held_out, sources)


def _parts(
    file: RatingFile, fit: str, scale: RatingScale, sources: list[Source], seed: int
) -> tuple[Sequence[RatingRow], Sequence[RatingRow]]:
    """Give the rows to fit on, and those to measure."""
    try:
        amount = float(fit)
    except ValueError:
        other = read_ratings(fit, scale)
        sources.append(_source(other.path, other.faults))
        _check_apart(other, file)
        return other.rows, file.rows
    if 0 < amount < 1:
        fitting, rows = split_by_user(file.rows, (amount, 1 - amount), seed)
        return fitting, rows
    if not (amount >= 1 and amount.is_integer()):
        raise InvalidInputError(f"fit must be a file, a share between 0 and 1 or a number of rows, not {fit}")
    return file.rows[: int(amount)], file.rows[int(amount) :]


def _check_apart(fit: RatingFile, measured: RatingFile) -> None:
    pairs = {(row.user_id, row.item.item_id) for row in fit.rows}
    shared = [row for row in measured.rows if (row.user_id, row.item.item_id) in pairs]
    if shared:
        raise InvalidInputError(
            f"{len(shared)} of the rows to measure are to be fitted on as well, the first at "
            f"{shared[0].where}: {fit.path} rates the same user and item"
        )


def _source(path: str, faults: Sequence[str] = ()) -> Source:
    return Source(path, sha256_of(Path(path)), tuple(faults))
