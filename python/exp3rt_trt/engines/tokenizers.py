"""The tokenizer of an engine: its file, the labels' tokens, the chat texts and the tokens that end a turn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exp3rt_trt.engines.chat import cut_chat_template, end_of_turn
from exp3rt_trt.engines.manifest import DIGITS, TOKENIZER, TOKENIZER_CONFIG
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from exp3rt_trt.engines.checkpoints import Checkpoint

ANSWER = "Predicted User Rating: "  # what stands before a label


@dataclass(frozen=True)
class TokenizerFacts:
    """What the manifest says about the tokenizer."""

    label_tokens: dict[str, int]
    end_tokens: tuple[int, ...]
    chat: tuple[str, str, str] | None


def write_tokenizer(checkpoint: Checkpoint, directory: Path, vocab_size: int, where: str) -> TokenizerFacts:
    """Writes tokenizer.json (and tokenizer_config.json, for people) and reads off what the manifest needs.

    Args:
        checkpoint: Whose tokenizer.
        directory: Of the engine.
        vocab_size: Of the model: rows of its embedding.
        where: The checkpoint, for messages.

    Returns:
        The labels' tokens, the end tokens and the chat texts.

    Raises:
        BuildError: The tokenizer has more tokens than the model, or a label is not one token.
    """
    from tokenizers import Tokenizer as Backend  # noqa: PLC0415

    source = checkpoint.tokenizer()
    text = runtime_json(checkpoint.tokenizer_json or _backend_json(source, where), where)
    tokenizer = Backend.from_str(text)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= vocab_size:
        raise BuildError(
            f"{where}: the tokenizer has token {largest}, the model's vocab_size is {vocab_size}"
        )
    facts = TokenizerFacts(
        label_tokens=label_tokens(tokenizer, where),
        end_tokens=_end_tokens(checkpoint, source, vocab_size),
        chat=cut_chat_template(source, where),
    )
    (directory / TOKENIZER).write_text(text, encoding="utf-8")
    shown = {
        "chat_template": source.chat_template,
        "bos_token": source.bos_token,
        "eos_token": source.eos_token,
        "pad_token": source.pad_token,
        "unk_token": source.unk_token,
    }
    config = json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
    (directory / TOKENIZER_CONFIG).write_text(config, encoding="utf-8")
    return facts


def runtime_json(text: str, where: str) -> str:
    """Takes truncation and padding out of a tokenizer.json: a prompt is never cut silently.

    Args:
        text: The file's content.
        where: The checkpoint, for messages.

    Returns:
        The adjusted content; the very same text if nothing had to change.

    Raises:
        BuildError: The text is not a tokenizer.json.
    """
    try:
        raw: dict[str, Any] = json.loads(text)
        changed = raw.get("truncation") is not None or raw.get("padding") is not None
    except (ValueError, AttributeError) as error:
        raise BuildError(f"{where}: {TOKENIZER} is damaged: {error}") from error
    return json.dumps({**raw, "truncation": None, "padding": None}, ensure_ascii=False) if changed else text


def label_tokens(tokenizer: Tokenizer, where: str) -> dict[str, int]:
    """Finds the token of each digit where the answer asks for it.

    Args:
        tokenizer: Of the engine.
        where: The checkpoint, for messages.

    Returns:
        Token by label, "0" to "9".

    Raises:
        BuildError: A digit after the answer's text is not exactly one token of its own.
    """
    answer = tokenizer.encode(ANSWER, add_special_tokens=False).ids
    tokens = {}
    for label in DIGITS:
        ids = tokenizer.encode(ANSWER + label, add_special_tokens=False).ids
        if len(ids) != len(answer) + 1 or ids[:-1] != answer:
            raise BuildError(f"{where}: label {label!r} is not one token of its own after {ANSWER!r}")
        tokens[label] = ids[-1]
    return tokens


def _backend_json(source: PreTrainedTokenizerBase, where: str) -> str:
    backend = getattr(source, "backend_tokenizer", None)
    if backend is None:
        raise BuildError(f"{where}: the tokenizer {type(source).__name__} has no fast form (tokenizer.json)")
    return str(backend.to_str())


def _end_tokens(checkpoint: Checkpoint, source: PreTrainedTokenizerBase, vocab_size: int) -> tuple[int, ...]:
    """The checkpoint's and the tokenizer's end-of-text tokens, and the template's end of turn."""
    tokens = [*checkpoint.eos_tokens, source.eos_token_id, end_of_turn(source)]
    known = {token for token in tokens if isinstance(token, int) and 0 <= token < vocab_size}
    return tuple(sorted(known))
