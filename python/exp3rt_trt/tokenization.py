"""Text to token ids and back, with an engine's tokenizer."""

from __future__ import annotations

from array import array
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from cachetools import LRUCache
from tokenizers import Tokenizer

from exp3rt_trt.errors import EngineError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from exp3rt_trt.prompts import Segment
    from exp3rt_trt.rating import RatingScale

TokenIds = list[int]

# Tokenizers in the style of SentencePiece put a space before whatever they are given. A text that goes on
# after other text is therefore encoded behind this anchor, whose tokens are then cut off.
_ANCHOR = "\n"

# Token ids that are kept, a text counted as so many more for what it costs besides: 30 MiB in all.
MAX_CACHED_TOKENS = 4_000_000
_TOKENS_OF_A_TEXT = 50


class CutPrompt(NamedTuple):
    """A prompt's tokens, cut where the shared text ends."""

    prefix: TokenIds
    suffix: TokenIds


class _Text(NamedTuple):
    """What its token ids depend on."""

    text: str
    control: bool
    goes_on: bool  # behind the anchor


def _cached_size(tokens: array[int]) -> int:
    return len(tokens) + _TOKENS_OF_A_TEXT


class _EncodedTexts:
    """Token ids of the texts encoded last: items and users come back. Threads may share it."""

    def __init__(self) -> None:
        self._cache: LRUCache[_Text, array[int]] = LRUCache(MAX_CACHED_TOKENS, getsizeof=_cached_size)
        self._lock = Lock()

    def get(self, texts: Sequence[_Text], encode: Callable[[list[str]], list[TokenIds]]) -> list[TokenIds]:
        with self._lock:
            found = {text: tokens for text in texts if (tokens := self._cache.get(text)) is not None}
        missing = list(dict.fromkeys(text for text in texts if text not in found))
        if missing:
            encoded = encode([text.text for text in missing])
            fresh = {text: array("i", tokens) for text, tokens in zip(missing, encoded, strict=True)}
            found |= fresh
            with self._lock:
                for text, tokens in fresh.items():
                    if _cached_size(tokens) <= MAX_CACHED_TOKENS:
                        self._cache[text] = tokens
        return [found[text].tolist() for text in texts]


class PromptTokenizer:
    """Encodes control pieces with special tokens, and text pieces without any.

    Args:
        path: tokenizer.json. All of its added tokens (`<|im_end|>` and the like) are unknown to text pieces,
            which therefore cannot close a turn or open one.

    Raises:
        EngineError: if the file cannot be read as a tokenizer.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._control = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise EngineError(f"{path}: not a usable tokenizer: {error}") from error
        self._control.no_truncation()
        self._control.no_padding()
        self._special_ids = set(self._control.get_added_tokens_decoder())
        self._text = _without_added_tokens(self._control)
        self._encoded = _EncodedTexts()
        plain, anchored = encode_plain(self._text, ["x"]), encode_plain(self._text, [_ANCHOR + "x"])
        self._anchors = anchored[0][-len(plain[0]) :] != plain[0] or len(anchored[0]) > len(plain[0]) + 1

    def start_tokens(self) -> TokenIds:
        """Return the tokens that this tokenizer puts before any text, e.g. one that begins a sequence."""
        plain, full = encode_plain(self._control, ["x"])[0], self._control.encode("x").ids
        return full[: full.index(plain[0])] if plain and plain[0] in full else []

    def encode_segment(self, segment: Segment, after: Sequence[int] = ()) -> TokenIds:
        """Encode a segment piece by piece.

        Args:
            segment: its pieces.
            after: tokens before the segment; empty at the beginning of a prompt.

        Returns:
            The segment's own tokens.
        """
        tokens: TokenIds = []
        spaces = ""
        for number, (text, control) in enumerate(segment, start=1):
            written = spaces + text
            kept = written.rstrip(" ") if control and number < len(segment) else written
            spaces = written[len(kept) :]  # a space belongs to the token of the word behind it
            goes_on = self._goes_on(tokens or after)
            tokens += self._encode([kept], control=control, goes_on=goes_on)[0]
        return tokens

    def encode_texts(self, texts: Sequence[str], after: Sequence[int]) -> list[TokenIds]:
        """Encode many plain texts, each as what follows the tokens `after`."""
        return self._encode(texts, control=False, goes_on=self._goes_on(after))

    def encode_joint(self, prefix: str, rests: Sequence[str]) -> list[CutPrompt]:
        """Encode each `prefix + rest` as one raw text with special tokens, and cut it where the prefix ends.

        Args:
            prefix: the beginning of every text.
            rests: what follows it in each.

        Returns:
            For each text its tokens up to the last one that ends within the prefix, and the others, at least
            one. A prompt's tokens do not depend on the other prompts.

        Raises:
            InvalidInputError: for a text that has no tokens or is not Unicode, naming it.
        """
        for where, text in (("prefix", prefix), *((f"suffixes[{i}]", rest) for i, rest in enumerate(rests))):
            _check_unicode(text, where)
        encodings = self._control.encode_batch([prefix + rest for rest in rests], add_special_tokens=False)
        cut: list[CutPrompt] = []
        for number, encoding in enumerate(encodings):
            ids: TokenIds = encoding.ids
            if not ids:
                raise InvalidInputError(f"suffixes[{number}]: prefix and suffix are empty")
            ends = (end for _, end in encoding.offsets)
            shared = next((i for i, end in enumerate(ends) if end > len(prefix)), len(ids))
            shared = min(shared, len(ids) - 1)
            cut.append(CutPrompt(ids[:shared], ids[shared:]))
        return cut

    def label_tokens(self, scale: RatingScale, answer: str, after: Sequence[int]) -> tuple[int, ...]:
        """Return the token of each label behind the forced answer.

        Args:
            scale: its labels are looked up.
            answer: the text right before the label.
            after: tokens before the answer.

        Returns:
            Token ids, [num_labels].

        Raises:
            EngineError: naming a label that is not exactly one token there.
        """
        texts = [answer, *(answer + label for label in scale.labels)]
        return self._single_tokens(scale, answer, self.encode_texts(texts, after))

    def raw_label_tokens(self, scale: RatingScale, prompt: str) -> tuple[int, ...]:
        """Return the token of each label behind a raw prompt; as `label_tokens` otherwise."""
        texts = [prompt, *(prompt + label for label in scale.labels)]
        return self._single_tokens(scale, prompt, encode_plain(self._control, texts))

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text of tokens that a student wrote."""
        text: str = self._control.decode(tokens, skip_special_tokens=not keep_special)
        return text

    def _goes_on(self, last: Sequence[int]) -> bool:
        return bool(last) and last[-1] not in self._special_ids

    def _encode(self, texts: Sequence[str], *, control: bool, goes_on: bool) -> list[TokenIds]:
        anchored = goes_on and self._anchors
        encode = encode_anchored if anchored else encode_plain
        tokenizer = self._control if control else self._text
        return self._encoded.get(
            [_Text(text, control, anchored) for text in texts], lambda missing: encode(tokenizer, missing)
        )

    @staticmethod
    def _single_tokens(scale: RatingScale, answer: str, encoded: list[TokenIds]) -> tuple[int, ...]:
        base, *with_labels = encoded
        for label, tokens in zip(scale.labels, with_labels, strict=True):
            if tokens[:-1] != base:
                raise EngineError(
                    f"label {label!r} is not one token after {answer[-40:]!r}: this tokenizer makes "
                    f"{tokens[-4:]} of it where the text alone ends in {base[-3:]}"
                )
        return tuple(tokens[-1] for tokens in with_labels)


def encode_plain(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    """Return the token ids of each text."""
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def encode_anchored(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    """Return the token ids of each text, as it goes on after other text."""
    encodings = tokenizer.encode_batch([_ANCHOR + text for text in texts], add_special_tokens=False)
    return [
        [i for i, (_, end) in zip(e.ids, e.offsets, strict=True) if end > len(_ANCHOR)] for e in encodings
    ]


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    plain = Tokenizer(tokenizer.model)  # the model itself, which takes long to read, is shared
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(tokenizer, part) is not None:
            setattr(plain, part, getattr(tokenizer, part))
    return plain


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{where} is not valid Unicode: {error.reason} at position {error.start}"
        ) from None
