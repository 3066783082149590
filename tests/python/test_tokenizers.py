"""Tokenizers of engines: texts to tokens, labels, end tokens, and the chat template cut into texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny_models
from exp3rt_trt.engines import gguf_tokenizer, tokenizers
from exp3rt_trt.engines.build import build_engine
from exp3rt_trt.engines.chat import cut_chat_template, end_of_turn
from exp3rt_trt.engines.checkpoints import DirectoryCheckpoint
from exp3rt_trt.engines.engine import Engine
from exp3rt_trt.errors import BuildError
from tokenizers import Tokenizer, models, pre_tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

TEXTS = [
    "Predicted User Rating: 9",
    "Zombieland: Double Tap (2019), 4.6 of 10\n\n  - it's  'great', isn't it?\t\tYES\r\n",
    "naïve café 東京 🎬 ½ ①² ١٢٣ e\u0301",
    "<|im_start|>user\nhi<|im_end|>",
    " leading and trailing ",
    "1234567890 12 a1b2",
    "",
]
BOS_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}<|im_end|>{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system text') }}{% endif %}"
    "<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)
DROPS_SYSTEM = "{% for m in messages if m['role'] == 'user' %}Q: {{ m['content'] }} A:{% endfor %}"
# The ending of Qwen3's: an empty thought where thinking is off.
THINKING = tiny_models.CHATML + (
    "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def make_tokenizer(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str | None], PreTrainedTokenizerBase]:
    from transformers import AutoTokenizer

    def make(template: str | None) -> PreTrainedTokenizerBase:
        directory = tmp_path_factory.mktemp("tokenizer")
        tiny_models.train_tokenizer(directory, template)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory)
        return tokenizer

    return make


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, None),
        (
            tiny_models.CHATML,
            ("<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
        ),
        (BOS_TEMPLATE, ("<|im_start|>[system]", "<|im_end|>[user]", "<|im_end|>")),
        (NO_SYSTEM, ("<user>", "\n\n", "<model>")),
        (DROPS_SYSTEM, ("Q: ", "\n\n", " A:")),
        (
            THINKING,
            (
                "<|im_start|>system\n",
                "<|im_end|>\n<|im_start|>user\n",
                "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            ),
        ),
    ],
)
def test_template_is_cut(
    template: str | None,
    expected: tuple[str, ...] | None,
    make_tokenizer: Callable[[str | None], PreTrainedTokenizerBase],
) -> None:
    tokenizer = make_tokenizer(template)
    cut = cut_chat_template(tokenizer, "model")
    assert cut == expected
    if cut is not None and template not in (NO_SYSTEM, DROPS_SYSTEM):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        assert f"{cut[0]}Be brief.{cut[1]}Hello{cut[2]}" == rendered


@pytest.mark.parametrize(
    "template", ["{{ messages[0]['content'] | upper }}", "{{ nothing.at.all }}", "{% if %}"]
)
def test_useless_template_is_refused(
    template: str, make_tokenizer: Callable[[str | None], PreTrainedTokenizerBase]
) -> None:
    with pytest.raises(BuildError, match="model: the chat template"):
        cut_chat_template(make_tokenizer(template), "model")


def test_end_of_turn_is_found(make_tokenizer: Callable[[str | None], PreTrainedTokenizerBase]) -> None:
    assert end_of_turn(make_tokenizer(tiny_models.CHATML)) == 2
    assert end_of_turn(make_tokenizer(BOS_TEMPLATE)) == 2
    assert end_of_turn(make_tokenizer(NO_SYSTEM)) is None
    assert end_of_turn(make_tokenizer(None)) is None


def test_end_tokens_are_gathered(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    copied = Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "checkpoint"))
    generation = copied / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": [0, 5, 9999]}), encoding="utf-8")
    assert build_engine(copied, tmp_path / "engine").end_tokens == (0, 2, 5)


@pytest.mark.parametrize("text", TEXTS)
def test_engine_tokenizes_as_the_checkpoint(
    text: str, tiny_checkpoint: Callable[[str], Path], tiny_engine: Callable[[str, str], Path]
) -> None:
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(tiny_checkpoint("llama")).encode(text, add_special_tokens=False)
    engine = Engine.open(tiny_engine("llama", "fp32"))
    assert (
        Tokenizer.from_file(str(engine.tokenizer_path)).encode(text, add_special_tokens=False).ids == expected
    )


def test_labels_are_single_tokens(tiny_engine: Callable[[str, str], Path]) -> None:
    engine = Engine.open(tiny_engine("llama", "fp32"))
    tokenizer = Tokenizer.from_file(str(engine.tokenizer_path))
    assert list(engine.manifest.label_tokens) == list("0123456789")
    for label, token in engine.manifest.label_tokens.items():
        assert tokenizer.id_to_token(token) == label


def test_label_that_is_not_one_token_is_named() -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocab = {token: index for index, token in enumerate([*sorted(alphabet), "Ġ7"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "7")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(BuildError, match=r"model: label '7' is not one token of its own after 'Predicted"):
        tokenizers.label_tokens(tokenizer, "model")


def test_tokenizer_larger_than_the_model_is_refused(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path]
) -> None:
    copied = Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "checkpoint"))
    tokenizer = Tokenizer.from_file(str(copied / "tokenizer.json"))
    tokenizer.add_tokens(["extra one", "extra two"])
    tokenizer.save(str(copied / "tokenizer.json"))
    with pytest.raises(BuildError, match="the tokenizer has token 301, the model's vocab_size is 301"):
        build_engine(copied, tmp_path / "engine")


def test_truncation_is_taken_out(tiny_checkpoint: Callable[[str], Path]) -> None:
    text = (tiny_checkpoint("llama") / "tokenizer.json").read_text(encoding="utf-8")
    assert tokenizers.runtime_json(text, "model") is text
    tokenizer = Tokenizer.from_str(text)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=5)
    adjusted = tokenizers.runtime_json(tokenizer.to_str(), "model")
    assert len(Tokenizer.from_str(adjusted).encode("a long enough text").ids) > 5
    with pytest.raises(BuildError, match=r"model: tokenizer\.json is damaged"):
        tokenizers.runtime_json("[", "model")


def test_tokenizer_without_json_is_converted(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> None:
    class Converted(DirectoryCheckpoint):
        tokenizer_json = None

    checkpoint = Converted(tiny_checkpoint("llama"))
    facts = tokenizers.write_tokenizer(checkpoint, tmp_path, 301, "model")
    assert facts.end_tokens == (2,)
    original = Tokenizer.from_file(str(tiny_checkpoint("llama") / "tokenizer.json"))
    written = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert written.encode(text).ids == original.encode(text).ids


def test_base_student_tokenizes_as_transformers(
    base_student_reference_tokenizer: PreTrainedTokenizerBase, base_student_engine: Callable[[str], Path]
) -> None:
    engine = Engine.open(base_student_engine("fp32"))
    tokenizer = Tokenizer.from_file(str(engine.tokenizer_path))
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        # transformers converts the file without the rule that numerals stand alone, which shows at ½ and ①.
        if "½" not in text:
            assert ids == base_student_reference_tokenizer.encode(text, add_special_tokens=False)


def test_base_student_knows_its_special_tokens(base_student_engine: Callable[[str], Path]) -> None:
    engine = Engine.open(base_student_engine("fp32"))
    tokenizer = Tokenizer.from_file(str(engine.tokenizer_path))
    assert tokenizer.encode("<|im_start|>user\n", add_special_tokens=False).ids[0] == 1
    assert tokenizer.encode("a<|im_end|>b", add_special_tokens=False).tokens == ["a", "<|im_end|>", "b"]
    tokenizer.encode_special_tokens = True
    assert 2 not in tokenizer.encode("a<|im_end|>b", add_special_tokens=False).ids
    assert tokenizer.encode("in 1998", add_special_tokens=False).tokens == ["in", "Ġ", "1", "9", "9", "8"]
    assert engine.manifest.end_tokens == (2,)
    assert [engine.manifest.label_tokens[digit] for digit in "0123456789"] == list(range(32, 42))


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("smollm", "it's 2019!\n x", ["it", "'s", "Ġ", "2", "0", "1", "9", "!", "Ċ", "Ġx"]),
        ("gpt-2", "it's 2019!\n x", ["it", "'s", "Ġ2019", "!", "Ċ", "Ġx"]),
        ("llama-bpe", "it's 2019!\n x", ["it", "'s", "Ġ", "201", "9", "!Ċ", "Ġx"]),
        ("qwen2", "it's 2019!\n x", ["it", "'s", "Ġ", "2", "0", "1", "9", "!Ċ", "Ġx"]),
    ],
)
def test_pre_tokenizers(pre: str, text: str, expected: list[str]) -> None:
    split = gguf_tokenizer._pre_tokenizer(pre).pre_tokenize_str(text)
    assert [piece for piece, _ in split] == expected


def gguf_metadata(**changes: Any) -> Callable[[str], Any]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    values = {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": [*alphabet, "ab", "<|im_end|>", "<think>"],
        "token_type": [1] * 257 + [3, 4],
        "merges": ["a b"],
        **changes,
    }
    return lambda key: values.get(key.rpartition(".")[2])


def test_gguf_token_types() -> None:
    tokenizer = gguf_tokenizer.make_backend(gguf_metadata(), "model")
    assert tokenizer.encode("ab<|im_end|>").ids == [256, 257]
    tokenizer.encode_special_tokens = True
    assert 257 not in tokenizer.encode("<|im_end|>").ids
    assert tokenizer.encode("<think>").ids == [258]
    assert tokenizer.encode("e\u0301").ids == tokenizer.encode("é").ids  # Qwen2's texts are normalized
    assert tokenizer.get_vocab_size() == 259


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "llama"},
            "tokenizer 'llama' with pre-tokenizer 'qwen2' is not supported; supported: 'gpt2'",
        ),
        ({"pre": "tekken"}, "pre-tokenizer 'tekken' is not supported"),
        ({"merges": None}, "tokens, merges or token types are missing"),
        ({"token_type": [1]}, "tokens, merges or token types are missing or do not match"),
    ],
)
def test_other_gguf_tokenizers_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        gguf_tokenizer.make_backend(gguf_metadata(**changes), "model")
