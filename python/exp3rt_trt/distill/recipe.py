"""A recipe: what a student is made of, read from TOML."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from exp3rt_trt.errors import InvalidInputError
from exp3rt_trt.segments import CAUSAL, SegmentLayout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_Table = TypeVar("_Table")
_TOML_TYPES: dict[str, tuple[type, ...]] = {
    "tuple[str, ...]": (list,),
    "Path": (str,),
    "str": (str,),
    "float": (float, int),
    "int": (int,),
    "bool": (bool,),
}


@dataclass(frozen=True)
class DataRecipe:
    """The table [data].

    Args:
        ratings: JSONL files with the same users and items; for each user of a pass, one file is drawn.
        texts: JSONL files of the teacher's answers (see `texts`), mixed in.
        text_passes: how often each text is seen.
        highest: of the scale of the ratings: 5 or 10.
        text_highest: of the scale of the rationales; the ratings' scale if 0.
        validation_share: of the users.
        test_share: of the users; they are looked at by the last step alone.
        split_seed: of the split; the recipe's seed if 0.
    """

    ratings: tuple[str, ...]
    texts: tuple[str, ...] = ()
    text_passes: int = 1
    highest: int = 10
    text_highest: int = 0
    validation_share: float = 0.1
    test_share: float = 0.2
    split_seed: int = 0


@dataclass(frozen=True)
class TrainRecipe:
    """The table [train].

    Args:
        start: folder of an adapter to go on from; a fresh one of `rank` and `first_layer` if empty.
        attention: "causal" or "segmented": what an item's tokens see; see `segments.SegmentLayout`.
        item_position: of an item's first token, if segmented.
        answer_position: of the answer's first token, if segmented.
        random_positions: draw both anew for each step, at most those above, which serve after training.
        average_steps: steps on averages alone, which come first.
        steps: steps on rows (and texts) after them.
        users_per_step: whole users in a batch.
        learning_rate: highest; warmed up over 5 % of the steps, then along a cosine to 0.
        rank: of the LoRA matrices; their alpha is twice as much.
        first_layer: the layers below it have no adapter.
        least_kept: share of points that the first rows keep; it grows to 1, which is all.
        first_shrink: share of the way that the first rows' ratings are drawn to the least squares of the
            averages; all the way leaves them without noise.
        last_shrink: the same of the last rows.
        label_width: standard deviation of the soft labels, in ratings.
        squared_weight: of the expected rating's squared error beside the labels' cross-entropy.
        validation_users: looked at during training.
        evaluations: how often; once more at the end.
        patience: evaluations without a better RMSE after which training ends; 0 for never.
        longest_text: in tokens; longer texts are left out and counted.
        save_steps: a killed training goes on from the last of these.
        quantized: QLoRA: the base in 4 bits, by bitsandbytes on a GPU.
    """

    start: str = ""
    attention: str = "causal"
    item_position: int = 1024
    answer_position: int = 2048
    random_positions: bool = False
    average_steps: int = 40
    steps: int = 200
    users_per_step: int = 4
    learning_rate: float = 1e-3
    rank: int = 16
    first_layer: int = 0
    least_kept: float = 0.5
    first_shrink: float = 1.0
    last_shrink: float = 0.5
    label_width: float = 1.0
    squared_weight: float = 1.0
    validation_users: int = 1000
    evaluations: int = 4
    patience: int = 0
    longest_text: int = 1024
    save_steps: int = 10
    quantized: bool = False

    @property
    def layout(self) -> SegmentLayout:
        """How the student reads a prompt; raises InvalidInputError, naming the key that is faulty."""
        if self.attention == "causal":
            return CAUSAL
        return SegmentLayout(self.attention, self.item_position, self.answer_position)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Recipe:
    """What a student is made of.

    Args:
        base: name of a base student, a checkpoint directory or a .gguf file.
        work: folder of the steps' outputs.
        data: rows and their split.
        train: how long and how.
        dtype: of the engine.
        seed: of the split, the order and what is left out, and of the adapter.
        threads: that torch computes on; 0 for all.
    """

    base: str
    work: Path
    data: DataRecipe
    train: TrainRecipe = field(default_factory=TrainRecipe)
    dtype: str = "bf16"
    seed: int = 17
    threads: int = 0


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; relative paths in it start at its own folder.

    Raises:
        InvalidInputError: naming the file and the key that is unknown, missing or of another type.
    """
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415

    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from None
    data = _table(DataRecipe, given.pop("data", {}), f"{path}: [data]")
    train = _table(TrainRecipe, given.pop("train", {}), f"{path}: [train]")
    try:
        train.layout  # noqa: B018  (raises if it is faulty)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: [train]: {error}") from None
    recipe = _table(Recipe, {**given, "data": data, "train": train}, str(path))
    folder = path.resolve().parent
    data = dataclasses.replace(
        data,
        ratings=tuple(str(folder / name) for name in data.ratings),
        texts=tuple(str(folder / name) for name in data.texts),
    )
    start = str(folder / train.start) if train.start else ""
    train = dataclasses.replace(train, start=start)
    base = folder / recipe.base
    return dataclasses.replace(
        recipe,
        data=data,
        train=train,
        work=folder / recipe.work,
        base=str(base) if base.exists() else recipe.base,
    )


def _table(kind: type[_Table], given: Mapping[str, Any], where: str) -> _Table:
    known = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for name, value in given.items():
        if name not in known:
            raise InvalidInputError(f"{where}: unknown key {name!r}; known: {', '.join(known)}")
        values[name] = _value(value, str(known[name].type), f"{where}: {name}")
    try:
        return kind(**values)
    except TypeError:
        missing = [
            name
            for name, f in known.items()
            if name not in values and f.default is f.default_factory is dataclasses.MISSING
        ]
        raise InvalidInputError(f"{where}: missing: {', '.join(missing)}") from None


def _value(value: Any, kind: str, where: str) -> Any:  # noqa: ANN401  (what TOML gave)
    if type(value) not in _TOML_TYPES.get(kind, (type(value),)):
        raise InvalidInputError(f"{where} must be of type {kind}, not {value!r}")
    if kind == "tuple[str, ...]" and not all(isinstance(part, str) for part in value):
        raise InvalidInputError(f"{where} must be a list of strings")
    return tuple(value) if kind == "tuple[str, ...]" else value
