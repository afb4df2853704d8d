"""Nothing of a row is left out of the text that a model reads without being named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures import TEMPLATE, TOOLS, light_row, make_tokenizer
from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.chat.losses import left_out, left_out_of_answer, marked
from potstill.core.records import Row

CALL = light_row("hall", "on")["completion"]
WHOLE: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": "ANSWER IN FRENCH"},
        {"role": "user", "content": "lights on"},
        CALL,
        {"role": "tool", "content": 'DONE\n"yes" é'},
        {"role": "user", "content": "and now?"},
    ],
    "tools": TOOLS,
}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    return load_chat(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def with_template(chat: ChatFormat, template: str) -> ChatFormat:
    return ChatFormat(chat.tokenizer, template, None, chat.eos)


def row(**changes: Any) -> Row:
    return Row.model_validate(WHOLE | changes)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("microsoft-Phi-3.5-mini-instruct", ["the tools", "the developer message", "a call", "the result of a call"]),
        ("Qwen-Qwen2.5-7B-Instruct", ["the developer message"]),
        ("google-gemma-2-2b-it", None),
    ],
)
def test_what_public_templates_leave_out_is_named(
    shared_data: Path, chat: ChatFormat, name: str, lost: list[str] | None
) -> None:
    public = with_template(chat, (shared_data / "chat_templates" / f"{name}.jinja").read_text())
    if lost is None:
        with pytest.raises(ValueError, match="cannot render"):
            left_out(row(), public)
    else:
        assert left_out(row(), public) == lost


def test_a_template_that_writes_everything_loses_nothing(chat: ChatFormat) -> None:
    assert left_out(row(), chat) == []
    assert left_out(marked(row()), chat) == []
    assert left_out_of_answer(marked(row()), chat) == []
    as_json = with_template(chat, "{{ tools | tojson }}{{ messages | tojson(ensure_ascii=true) }}")
    assert left_out(row(), as_json) == []


def test_words_before_an_earlier_call_have_a_name_of_their_own(chat: ChatFormat) -> None:
    messages = [{"role": "user", "content": "a"}, CALL | {"content": "So:"}, {"role": "tool", "content": "b"}]
    assert left_out(row(messages=messages), chat) == []
    assert left_out(row(messages=messages), with_template(chat, NO_WORDS)) == ["words before an earlier call"]


def test_a_text_that_comes_twice_must_be_written_twice(chat: ChatFormat) -> None:
    twice = row(messages=[{"role": "system", "content": "hi"}, {"role": "user", "content": "hi"}], tools=[])
    assert left_out(twice, chat) == []
    drops = with_template(chat, "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}")
    assert left_out(twice, drops) == ["the system message", "the user message"]
    assert left_out(marked(twice), drops) == ["the system message"]


WORDS = "message.content or ''"
NO_WORDS = TEMPLATE.replace(WORDS, "'' if message.tool_calls else message.content")
SHORT = TEMPLATE.replace(WORDS, "(message.content or '')[:3]")
NO_THINKING = TEMPLATE.replace(WORDS, "(message.content or '').split('</think>')[-1]")


@pytest.mark.parametrize(
    ("template", "answer", "lost"),
    [
        (TEMPLATE, CALL | {"content": "I do so:"}, []),
        (NO_WORDS, CALL | {"content": "I do so:"}, ["words before a call"]),
        (NO_WORDS, {"role": "assistant", "content": "I do so:"}, []),
        (TEMPLATE, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"}, []),
        (NO_THINKING, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"}, ["thinking"]),
        (NO_THINKING, {"role": "assistant", "content": "hm</think>Yes"}, ["thinking"]),
        (TEMPLATE, {"role": "assistant", "content": "Yes", "reasoning_content": "hm"}, ["thinking"]),
        (SHORT, {"role": "assistant", "content": "longer"}, ["the answer"]),
        (TEMPLATE.replace("message.tool_calls", "none"), CALL, ["a call"]),
    ],
)  # fmt: skip
def test_what_is_left_out_of_an_answer_is_named(
    chat: ChatFormat, template: str, answer: dict[str, Any], lost: list[str]
) -> None:
    assert template == TEMPLATE or template not in TEMPLATE
    given = row(messages=[{"role": "user", "content": "a"}], completion=answer)
    assert left_out_of_answer(given, with_template(chat, template)) == lost
