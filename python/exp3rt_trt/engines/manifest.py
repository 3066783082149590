"""manifest.json: what an engine directory says about itself."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exp3rt_trt.engines.fields import Fields
from exp3rt_trt.engines.targets import TOKENIZER, WEIGHTS, LlmApiTarget, Target, TensorRtTarget, read_target
from exp3rt_trt.errors import EngineError, InvalidInputError
from exp3rt_trt.rating import RatingScale, scale_of
from exp3rt_trt.segments import CAUSAL, SegmentLayout, layout_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exp3rt_trt.engines.targets import AnyTarget

__all__ = [
    "DIGITS",
    "DTYPES",
    "MANIFEST",
    "TOKENIZER",
    "TOKENIZER_CONFIG",
    "WEIGHTS",
    "FileRecord",
    "LlmApiTarget",
    "Manifest",
    "ModelDims",
    "Source",
    "Target",
    "TensorRtTarget",
]

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
DTYPES = ("fp32", "bf16", "int8")
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class ModelDims:
    """Dimensions of a decoder of the Llama family; max_context is in tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_context: int
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None
    tie_word_embeddings: bool


@dataclass(frozen=True)
class Source:
    """What the engine was built from: the model as it was named, and the sha256 of each file read."""

    model: str
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and sha256 of one file of the engine."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All that is known about an engine without reading its weights."""

    builder: str
    architecture: str
    model: ModelDims
    dtype: str
    target: AnyTarget
    label_tokens: Mapping[str, int]
    end_tokens: tuple[int, ...]
    chat: tuple[str, str, str] | None
    source: Source
    files: Mapping[str, FileRecord]
    layout: SegmentLayout = CAUSAL
    scale: RatingScale | None = None  # that the student was taught to answer on, if it is known
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Writes the manifest as JSON text, ending in a newline."""
        fields = dataclasses.asdict(self)
        order = ["format_version", *(name for name in fields if name != "format_version")]
        return json.dumps({name: fields[name] for name in order}, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str, path: Path) -> Manifest:
        """Reads a manifest and checks every field.

        Args:
            text: The file's content.
            path: The file, for messages.

        Returns:
            The manifest.

        Raises:
            EngineError: Not JSON, another format version, or a field that is missing or out of range.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise EngineError(f"{path}: not valid JSON: {error}; rebuild the engine") from error
        if not isinstance(raw, dict):
            raise EngineError(
                f"{path}: expected a JSON object, found {type(raw).__name__}; rebuild the engine"
            )
        version = raw.get("format_version")
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise EngineError(
                f"{path}: format_version: expected {FORMAT_VERSION}, found {version!r}; "
                "rebuild the engine with this version of exp3rt_trt"
            )
        return _manifest(Fields(path, "", raw))

    @staticmethod
    def load(path: Path) -> Manifest:
        """Reads a manifest file; see `from_json`."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"{path}: cannot be read: {error}") from error
        return Manifest.from_json(text, path)


def _manifest(raw: Fields) -> Manifest:
    model = _dims(raw.object("model"))
    target = read_target(raw.object("target"))
    source = raw.object("source")
    hashes = source.object("sha256")
    return Manifest(
        builder=raw.text("builder"),
        architecture=raw.text("architecture"),
        model=model,
        dtype=raw.text("dtype", DTYPES),
        target=target,
        label_tokens=_label_tokens(raw.object("label_tokens"), model.vocab_size),
        end_tokens=_end_tokens(raw, model.vocab_size),
        chat=_chat(raw),
        source=Source(source.text("model"), {name: hashes.text(name) for name in hashes.raw}),
        files=_files(raw.object("files"), target.needed_files),
        layout=_layout(raw),
        scale=_scale(raw),
    )


def _dims(raw: Fields) -> ModelDims:
    names = [field.name for field in dataclasses.fields(ModelDims)]
    counts = {name: raw.integer(name) for name in names[:7]}
    if counts["num_heads"] % counts["num_kv_heads"]:
        raise raw.fail("num_kv_heads", f"a divisor of num_heads ({counts['num_heads']})")
    if counts["head_dim"] % 2:
        raise raw.fail("head_dim", "an even number")
    if raw.raw.get("rope_scaling") is not None:
        raw.object("rope_scaling")
    return ModelDims(
        **counts,
        rms_norm_eps=raw.number("rms_norm_eps"),
        max_context=raw.integer("max_context"),
        rope_theta=raw.number("rope_theta"),
        rope_scaling=raw.raw.get("rope_scaling"),
        tie_word_embeddings=raw.boolean("tie_word_embeddings"),
    )


def _label_tokens(raw: Fields, vocab_size: int) -> dict[str, int]:
    tokens = {label: raw.integer(label, least=0) for label in raw.raw}
    for label, token in tokens.items():
        if token >= vocab_size:
            raise raw.fail(label, f"a token below vocab_size ({vocab_size})")
    missing = [digit for digit in DIGITS if digit not in tokens]
    if missing:
        raise raw.fail(missing[0], "a token")
    return tokens


def _end_tokens(raw: Fields, vocab_size: int) -> tuple[int, ...]:
    tokens = raw.raw.get("end_tokens")
    if not isinstance(tokens, list) or not all(type(t) is int and 0 <= t < vocab_size for t in tokens):
        raise raw.fail("end_tokens", f"a list of tokens below vocab_size ({vocab_size})")
    return tuple(tokens)


def _chat(raw: Fields) -> tuple[str, str, str] | None:
    chat = raw.raw.get("chat")
    if chat is None:
        return None
    if not isinstance(chat, list) or len(chat) != 3 or not all(isinstance(text, str) for text in chat):
        raise raw.fail("chat", "null or three texts")
    return (chat[0], chat[1], chat[2])


def _layout(raw: Fields) -> SegmentLayout:
    if "layout" not in raw.raw:  # engines of causal students, before there were others
        return CAUSAL
    try:
        return layout_of(raw.raw["layout"], f"{raw.path}: layout")
    except InvalidInputError as error:
        raise EngineError(str(error)) from None


def _scale(raw: Fields) -> RatingScale | None:
    if raw.raw.get("scale") is None:
        return None
    try:
        return scale_of(raw.raw["scale"], f"{raw.path}: scale")
    except InvalidInputError as error:
        raise EngineError(str(error)) from None


def _files(raw: Fields, needed: tuple[str, ...]) -> dict[str, FileRecord]:
    records = {}
    for name in raw.raw:
        if name != name.rsplit("/", maxsplit=1)[-1] or name in ("", ".", ".."):
            raise EngineError(
                f"{raw.path}: files: {name!r} is not the name of a file in the engine's directory"
            )
        record = raw.object(name)
        records[name] = FileRecord(record.integer("size", least=0), record.text("sha256"))
    for name in needed:
        if name not in records:
            raise raw.fail(name, "its size and sha256")
    return records
