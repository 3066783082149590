"""`exp3rt-trt profile build` and `exp3rt-trt profile show`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Literal

import typer

from exp3rt_trt.cli.display import progress_bar
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.generation import Generator
from exp3rt_trt.profiles import (
    ClauseJudge,
    ListWriter,
    ProfileBuilder,
    ProfileStore,
    read_items,
    read_reviews,
)

if TYPE_CHECKING:
    from pathlib import Path

    from exp3rt_trt.profiles.store import Choice


def profile_command(
    reviews: Path,
    items: Path | None,
    store: Path,
    engine: str,
    way: Literal["clauses", "lists"],
    *,
    highest_rating: float,
    threads: int,
    kv_cache_mib: int,
) -> None:
    """Extract preferences; rows that cannot be used are named on standard error, and the others go on.

    Raises:
        InvalidInputError: if a file cannot be read, or has no usable review; then no store is made.
    """
    given = read_reviews(reviews, highest_rating)
    if not given.reviews:
        why = f"; {given.faults[0]}" if given.faults else ""
        raise InvalidInputError(f"{reviews}: no usable review in {_count(len(given.faults), 'row')}{why}")
    known, faults = read_items(items) if items is not None else ((), ())
    for words in (*given.faults, *faults):
        typer.echo(words, err=True)
    opened = Engine.from_pretrained(engine)
    with (
        closing(ProfileStore(store)) as kept,
        Generator(opened, threads=threads, kv_cache_mib=kv_cache_mib) as generator,
        progress_bar("reviews") as bar,
    ):
        kept.add_items(known)
        task = bar.add_task("Extracting", total=None)
        extractor = ClauseJudge(generator) if way == "clauses" else ListWriter(generator)
        counts = ProfileBuilder(extractor, kept, highest_rating).add(
            given.reviews, lambda done, total: bar.update(task, completed=done, total=total)
        )
    unnamed = {review.item_id for review in given.reviews} - {str(item.item_id) for item in known}
    typer.echo(
        f"{counts.extracted} extracted ({counts.empty} without a point, {counts.retried} retried, "
        f"{_count(counts.ungrounded, 'point')} not in their review dropped), {counts.unparsed} unparsed, "
        f"{counts.known} known already; {_count(len(given.faults) + len(faults), 'unusable row')}, "
        f"{_count(len(unnamed), 'item')} without metadata"
    )


def show_command(store: Path, user: str | None, item: str | None, choice: Choice, max_words: int) -> None:
    """Print the profile of an item, for a user or for everyone, or that of a user.

    Raises:
        InvalidInputError: if the store does not know the user or the item.
    """
    if user is None and item is None:
        raise InvalidInputError("give --user, --item or both")
    if choice == "similar" and (user is None or item is None):
        raise InvalidInputError('choice "similar" is of an item for a user: give --user and --item')
    if not store.is_file():
        raise InvalidInputError(f"{store}: no such file")
    with closing(ProfileStore(store, choice, max_words)) as kept:
        typer.echo(_user(kept, store, user) if item is None else _item(kept, store, item, user))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _user(kept: ProfileStore, store: Path, user: str | None) -> str:
    found = None if user is None else kept.user_profile(user)
    if found is None:
        raise InvalidInputError(f"{store}: no review by user {user!r}")
    if found.average_rating is None:
        return found.profile
    return f"{found.profile}\n\n[Average Rating]\n{found.average_rating:.1f}"


def _item(kept: ProfileStore, store: Path, item: str, user: str | None) -> str:
    if user is not None:
        _user(kept, store, user)
    known = kept.item(item, user)
    if known is None:
        raise InvalidInputError(f"{store}: nothing is known of item {item!r}")
    return "\n".join(part for part in (known.title, known.description, known.profile) if part is not None)
