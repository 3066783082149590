"""Chat templates, rendered once at build time: at run time a prompt is joined from literal texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exp3rt_trt.errors import BuildError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM = "@system-text@"
USER = "@user-text@"
ASSISTANT = "@assistant-text@"


def cut_chat_template(tokenizer: PreTrainedTokenizerBase, where: str) -> tuple[str, str, str] | None:
    """Renders the chat template and cuts it where the texts stand.

    A template that takes no system text gets it in front of the user's, a blank line between them.
    Reasoning that a model would do on its own (Qwen3's thinking) is switched off: the reasoning is part of
    our own prompt.

    Args:
        tokenizer: With its template.
        where: The checkpoint, for messages.

    Returns:
        The text before the system text, between the system and the user text, and after the user text, up
        to and with the assistant's opening; None if there is no template.

    Raises:
        BuildError: The template fails, or changes the texts it is given.
    """
    if not tokenizer.chat_template:
        return None
    cut = _cut(_try_render(tokenizer, [("system", SYSTEM), ("user", USER)]), SYSTEM, USER)
    if cut is not None:
        return (cut[0], cut[1], cut[2])
    cut = _cut(_render(tokenizer, [("user", USER)], where), USER)
    if cut is None:
        raise BuildError(f"{where}: the chat template does not repeat the user's text as it is, exactly once")
    return (cut[0], "\n\n", cut[1])


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Finds the control token with which the chat template ends the assistant's turn.

    Args:
        tokenizer: With its template.

    Returns:
        The token; None if there is no template or none of the control tokens follows the assistant's text.
    """
    if not tokenizer.chat_template:
        return None
    messages = [("system", SYSTEM), ("user", USER), ("assistant", ASSISTANT)]
    text = _try_render(tokenizer, messages, opening=False) or _try_render(
        tokenizer, messages[1:], opening=False
    )
    after = (text or "").rpartition(ASSISTANT)[2].lstrip()
    control = {
        token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    found = [content for content in control if content and after.startswith(content)]
    return control[max(found, key=len)] if found else None


def _try_render(
    tokenizer: PreTrainedTokenizerBase, messages: list[tuple[str, str]], *, opening: bool = True
) -> str | None:
    """The text; None if the template refuses such messages."""
    try:
        return _render(tokenizer, messages, "", opening=opening)
    except BuildError:
        return None


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[tuple[str, str]], where: str, *, opening: bool = True
) -> str:
    from jinja2 import TemplateError  # noqa: PLC0415

    try:
        text = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages],
            tokenize=False,
            add_generation_prompt=opening,
            enable_thinking=False,
        )
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        raise BuildError(f"{where}: the chat template cannot be rendered: {error}") from error
    return str(text)


def _cut(text: str | None, *marks: str) -> list[str] | None:
    """The pieces around the marks; None unless each mark occurs once, in this order."""
    if text is None or any(text.count(mark) != 1 for mark in marks):
        return None
    pieces = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            return None
        pieces.append(before)
    return [*pieces, text]
