"""manifest.json: what an engine directory says about itself."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exp3rt_trt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
TOKENIZER = "tokenizer.json"
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
class Target:
    """The kind of device an engine is for, and the least instruction set that it needs."""

    kind: str
    isa: str


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
    target: Target
    label_tokens: Mapping[str, int]
    end_tokens: tuple[int, ...]
    chat: tuple[str, str, str] | None
    source: Source
    files: Mapping[str, FileRecord]
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
        return _manifest(_Fields(path, "", raw))

    @staticmethod
    def load(path: Path) -> Manifest:
        """Reads a manifest file; see `from_json`."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"{path}: cannot be read: {error}") from error
        return Manifest.from_json(text, path)


@dataclass(frozen=True)
class _Fields:
    """A JSON object whose fields are taken one by one, with messages that name the file and the field."""

    path: Path
    prefix: str
    raw: Mapping[str, Any]

    def fail(self, name: str, wanted: str) -> EngineError:
        found = repr(self.raw[name]) if name in self.raw else "nothing"
        return EngineError(f"{self.path}: {self.prefix}{name}: expected {wanted}, found {found[:80]}")

    def integer(self, name: str, least: int = 1) -> int:
        value = self.raw.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.fail(name, f"an integer of at least {least}")
        return value

    def number(self, name: str) -> float:
        value = self.raw.get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self.fail(name, "a positive number")
        return float(value)

    def boolean(self, name: str) -> bool:
        value = self.raw.get(name)
        if not isinstance(value, bool):
            raise self.fail(name, "true or false")
        return value

    def text(self, name: str, choices: tuple[str, ...] = ()) -> str:
        value = self.raw.get(name)
        if not isinstance(value, str) or (choices and value not in choices):
            raise self.fail(name, f"one of {', '.join(choices)}" if choices else "text")
        return value

    def object(self, name: str) -> _Fields:
        value = self.raw.get(name)
        if not isinstance(value, dict):
            raise self.fail(name, "an object")
        return _Fields(self.path, f"{self.prefix}{name}.", value)


def _manifest(raw: _Fields) -> Manifest:
    model = _dims(raw.object("model"))
    target = raw.object("target")
    source = raw.object("source")
    hashes = source.object("sha256")
    return Manifest(
        builder=raw.text("builder"),
        architecture=raw.text("architecture"),
        model=model,
        dtype=raw.text("dtype", DTYPES),
        target=Target(target.text("kind"), target.text("isa")),
        label_tokens=_label_tokens(raw.object("label_tokens"), model.vocab_size),
        end_tokens=_end_tokens(raw, model.vocab_size),
        chat=_chat(raw),
        source=Source(source.text("model"), {name: hashes.text(name) for name in hashes.raw}),
        files=_files(raw.object("files")),
    )


def _dims(raw: _Fields) -> ModelDims:
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


def _label_tokens(raw: _Fields, vocab_size: int) -> dict[str, int]:
    tokens = {label: raw.integer(label, least=0) for label in raw.raw}
    for label, token in tokens.items():
        if token >= vocab_size:
            raise raw.fail(label, f"a token below vocab_size ({vocab_size})")
    missing = [digit for digit in DIGITS if digit not in tokens]
    if missing:
        raise raw.fail(missing[0], "a token")
    return tokens


def _end_tokens(raw: _Fields, vocab_size: int) -> tuple[int, ...]:
    tokens = raw.raw.get("end_tokens")
    if not isinstance(tokens, list) or not all(type(t) is int and 0 <= t < vocab_size for t in tokens):
        raise raw.fail("end_tokens", f"a list of tokens below vocab_size ({vocab_size})")
    return tuple(tokens)


def _chat(raw: _Fields) -> tuple[str, str, str] | None:
    chat = raw.raw.get("chat")
    if chat is None:
        return None
    if not isinstance(chat, list) or len(chat) != 3 or not all(isinstance(text, str) for text in chat):
        raise raw.fail("chat", "null or three texts")
    return (chat[0], chat[1], chat[2])


def _files(raw: _Fields) -> dict[str, FileRecord]:
    records = {}
    for name in raw.raw:
        if name != name.rsplit("/", maxsplit=1)[-1] or name in ("", ".", ".."):
            raise EngineError(
                f"{raw.path}: files: {name!r} is not the name of a file in the engine's directory"
            )
        record = raw.object(name)
        records[name] = FileRecord(record.integer("size", least=0), record.text("sha256"))
    for name in (WEIGHTS, TOKENIZER):
        if name not in records:
            raise raw.fail(name, "its size and sha256")
    return records
