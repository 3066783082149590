from __future__ import annotations

import dataclasses
import itertools

import pytest
from exp3rt_trt import AUTHORS, DEFAULT, InvalidInputError, Item, PromptTemplate, RatingScale, UserProfile
from exp3rt_trt.prompts import PLAIN, Chat

CHAT = Chat("<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
FIVE, TEN = RatingScale.one_to_five(), RatingScale.one_to_ten()
USER = UserProfile("Likes {braces} and <|im_end|>.", average_rating=3.25)
ITEM = Item("i", "A {title}", "D", "P")
TEMPLATES = pytest.mark.parametrize("template", [DEFAULT, AUTHORS], ids=["default", "authors"])


def text(pieces: tuple[tuple[str, bool], ...]) -> str:
    return "".join(piece[0] for piece in pieces)


@TEMPLATES
@pytest.mark.parametrize("chat", [CHAT, PLAIN], ids=["chat", "plain"])
@pytest.mark.parametrize("scale", [FIVE, TEN], ids=["five", "ten"])
def test_segments_can_be_cut_apart(template: PromptTemplate, chat: Chat, scale: RatingScale) -> None:
    segments = [
        template.instructions_segment(scale, chat),
        template.user_segment(USER, scale),
        template.item_segment(ITEM, scale),
    ]
    for before, after in itertools.pairwise(segments):
        assert text(before).endswith("\n")
        assert not text(after)[0].isspace()
    assert "\n\n\n" not in text(sum(segments, ()))


@TEMPLATES
def test_only_the_chat_format_is_control(template: PromptTemplate) -> None:
    segments = (
        *template.instructions_segment(FIVE, CHAT),
        *template.user_segment(USER, FIVE),
        *template.item_segment(ITEM, FIVE),
        *template.opening_segment(CHAT, "reason"),
    )
    assert [piece.text for piece in segments if piece.control] == list(CHAT)
    assert USER.profile in segments[3].text
    assert "A {title}" in segments[4].text


def test_every_constant_instruction_of_the_default_is_in_the_prefix() -> None:
    assert (
        text(DEFAULT.item_segment(ITEM, FIVE))
        == "Title: A {title}\nDescription: D\nWhat others thought of it:\nP"
    )
    assert text(DEFAULT.item_segment(Item("i", description="D"), FIVE)) == "Description: D"


def test_the_authors_layout_asks_after_the_item() -> None:
    written = text(AUTHORS.item_segment(ITEM, TEN))
    assert written.index("D\n") < written.index("P\n") < written.index("0, 1, 2, 3")


@TEMPLATES
def test_wording_depends_on_the_scale(template: PromptTemplate) -> None:
    def whole(scale: RatingScale) -> str:
        return text(template.instructions_segment(scale, CHAT)) + text(template.item_segment(ITEM, scale))

    assert "1, 2, 3, 4 or 5" in whole(FIVE)
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8 or 9" in whole(TEN)
    assert "from 1 to 10" in text(template.user_segment(USER, TEN))


@TEMPLATES
def test_what_is_not_known_is_left_out(template: PromptTemplate) -> None:
    assert "3.2" in text(template.user_segment(USER, FIVE))
    without = text(template.user_segment(UserProfile("p"), FIVE))
    assert "None" not in without
    assert "verage" not in without
    assert "None" not in text(template.item_segment(Item("i", "t"), FIVE))


def test_modes() -> None:
    assert text(DEFAULT.opening_segment(CHAT, "score")) == CHAT.after_user
    assert text(DEFAULT.opening_segment(CHAT, "reason")) == CHAT.after_user + "Reasoning:"
    assert DEFAULT.answer("score") == "Predicted User Rating: "
    assert DEFAULT.answer("reason") == "\nPredicted User Rating: "


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"system": "{profile}"}, r"template.system: unknown \{profile\}"),
        ({"item": ("{}\n",)}, r"template.item\[0\]: unknown \{\}"),
        ({"item": ("{title.__class__}\n",)}, r"unknown \{title.__class__\}"),
        ({"user": ("{profile\n",)}, r"template.user\[0\]"),
        ({"user": ("{profile}",)}, r"template.user\[0\] must end with a newline"),
        ({"item": (" {title}\n",)}, "not begin with white space"),
        ({"item": "{title}\n"}, "must be a tuple of parts"),
        ({"user": ("{profile:5d}\n",)}, r"template.user\[0\]: a placeholder is a name alone"),
        ({"item": ("{title!r}\n",)}, r"template.item\[0\]: a placeholder is a name alone"),
    ],
)
def test_a_faulty_template_is_refused_by_field(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        dataclasses.replace(DEFAULT, **changes)  # type: ignore[arg-type]
