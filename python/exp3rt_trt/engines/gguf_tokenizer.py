"""Tokenizers from the metadata of GGUF files: byte-level BPE as the supported families use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exp3rt_trt.engines.hugging_face import load_transformers
from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerBase

    Metadata = Callable[[str], Any]

# Of tokenizer.ggml.token_type.
CONTROL = 3
USER_DEFINED = 4

# Llama 3's and Qwen2's differ in how many digits stay together.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = ("smollm", "llama-bpe", "qwen2", "gpt-2", "default")


def make_tokenizer(metadata: Metadata, where: str) -> PreTrainedTokenizerBase:
    """Makes a tokenizer with its chat template from a GGUF file's metadata.

    Args:
        metadata: Gives the value of a key, None if there is none.
        where: The file, for messages.

    Returns:
        The tokenizer.

    Raises:
        BuildError: A kind of tokenizer that is not supported.
    """
    tokenizer = make_backend(metadata, where)
    named = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token = metadata(f"tokenizer.ggml.{key}_token_id")
        if token is not None:
            named[f"{name}_token"] = tokenizer.id_to_token(token)
    wrapped: PreTrainedTokenizerBase = load_transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=metadata("tokenizer.chat_template"), **named
    )
    return wrapped


def make_backend(metadata: Metadata, where: str) -> Tokenizer:
    """Makes the tokenizer proper; see `make_tokenizer`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers  # noqa: PLC0415

    model, pre = metadata("tokenizer.ggml.model"), metadata("tokenizer.ggml.pre") or "default"
    if model != "gpt2" or pre not in PRE_TOKENIZERS:
        raise BuildError(
            f"{where}: tokenizer {model!r} with pre-tokenizer {pre!r} is not supported; supported: 'gpt2' "
            f"(byte-level BPE) with {', '.join(PRE_TOKENIZERS)}; "
            "a Hugging Face checkpoint brings its own tokenizer"
        )
    tokens, merges = metadata("tokenizer.ggml.tokens"), metadata("tokenizer.ggml.merges")
    types = metadata("tokenizer.ggml.token_type") or [1] * len(tokens or [])
    if not tokens or not merges or len(types) != len(tokens):
        raise BuildError(
            f"{where}: tokenizer.ggml: tokens, merges or token types are missing or do not match"
        )
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[_pair(merge) for merge in merges],
            ignore_merges=pre == "llama-bpe",
        )
    )
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, special=kind == CONTROL, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (CONTROL, USER_DEFINED)
    ]
    tokenizer.add_special_tokens([token for token in added if token.special])
    tokenizer.add_tokens([token for token in added if not token.special])
    return tokenizer


def _pair(merge: str) -> tuple[str, str]:
    first, _, second = merge.partition(" ")
    return first, second


def _pre_tokenizer(pre: str) -> PreTokenizer:
    from tokenizers import Regex, pre_tokenizers  # noqa: PLC0415

    if pre in ("gpt-2", "default"):
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence(
            [digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        )
    split = Regex(SPLIT % ("{1,3}" if pre == "llama-bpe" else ""))
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
