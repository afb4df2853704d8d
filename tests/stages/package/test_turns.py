"""A chat template written as a Go template renders the same text, or is not written."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fixtures import ROOT, TEMPLATE, make_tokenizer
from go_template import Go, Small
from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.chat.template import PLAIN_TEMPLATE
from potstill.core.records import Function, Message, ToolCall
from potstill.stages.package.turns import UnwritableTemplate, find_turns

LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN = (  # a default system prompt, and tools by their whole schema
    "{%- if tools %}{{ '<|im_start|>system\n' }}{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}"
    "{% endif %}{{ '# Tools\n<tools>' }}{% for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}"
    "{{ '\n</tools><|im_end|>\n' }}{% elif messages[0].role == 'system' %}"
    "{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{% if not (loop.first and message.role == 'system') %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BRACES = (
    "{% for m in messages %}{{ '{{' + m.role + '}}' + m.content + '{{/}}' }}{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)
EXAMPLE = (ROOT / "examples" / "home-assistant" / "chat_template.jinja").read_text()
WRITTEN = {
    "chatml": TEMPLATE,
    "example": EXAMPLE,
    "llama3": LLAMA3,
    "qwen": QWEN,
    "plain": PLAIN_TEMPLATE,
    "braces": BRACES,
}
NAMED_TOOLS = ("chatml", "example")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "t")


def chat_of(tokenizer: Path, template: str) -> ChatFormat:
    own = load_chat(tokenizer)
    return ChatFormat(own.tokenizer, template, "<|endoftext|>", own.eos)


def talk(*turns: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in turns]  # type: ignore[arg-type]


def called(content: str | None, *names: str) -> Message:
    return Message(
        role="assistant", content=content, tool_calls=tuple(ToolCall(function=Function(name=n)) for n in names)
    )


TALKS = {
    "ask": talk(("user", "Is it {{ .Content }}?")),
    "chat": talk(
        ("user", "one\n\ntwo"), ("assistant", 'Ja, "größer".'), ("user", "<b>&</b>"), ("assistant", "x"), ("user", "?")
    ),
}
TOOL_TALKS = {
    "call": [*talk(("user", "on")), called(None, "lamp"), *talk(("tool", "done")), called(None, "lamp", "oven")],
    "words": [*talk(("user", "on")), called("Both:", "lamp", "oven"), *talk(("tool", "a"), ("tool", "b"))],
}  # fmt: skip


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def values(system: str, tools: list[str], messages: list[Message]) -> dict[str, Any]:
    """What Ollama gives a template: the system message is told twice, arguments are objects."""
    everything = [*([Message(role="system", content=system)] if system else []), *messages]
    told = [
        {
            "Role": m.role,
            "Content": m.content or "",
            "ToolCalls": [
                {"Function": {"Name": c.function.name, "Arguments": json.loads(c.function.arguments)}}
                for c in m.tool_calls
            ],
        }
        for m in everything
    ]
    named = [{"Type": "function", "Function": {"Name": name}} for name in tools]
    return {"System": system, "Tools": named, "Messages": told}


@cache
def cases(tokenizer: Path) -> list[tuple[str, str, dict[str, Any], str]]:
    """Name, Go template, values, and the text that the Jinja template gives."""
    out = []
    for family, template in WRITTEN.items():
        chat = chat_of(tokenizer, template)
        written = find_turns(chat).go_template()
        talks = TALKS | (TOOL_TALKS if family in NAMED_TOOLS else {})
        for system in ("", "Be kind."):
            for tools in ([], ["lamp"], ["lamp", "oven", "door"]) if family in NAMED_TOOLS else ([],):
                for name, messages in talks.items():
                    head = talk(("system", system)) if system else []
                    text = chat.render((*head, *messages), tuple(tool(t) for t in tools), generate=True)
                    label = f"{family} {name} {system} {tools}"
                    out.append((label, written, values(system, tools, messages), text))
    return out


def test_small_reader_gives_what_jinja_gives(tokenizer: Path) -> None:
    for label, template, given, expected in cases(tokenizer):
        assert Small().render(template, given) == expected, label


@pytest.mark.skipif(not Go.available, reason="go is not installed")
def test_go_itself_gives_what_jinja_gives(tokenizer: Path, tmp_path: Path) -> None:
    every = cases(tokenizer)
    texts = Go(tmp_path).render_all([(template, given) for _, template, given, _ in every])
    for (label, _, _, expected), text in zip(every, texts, strict=True):
        assert text == expected, label


@pytest.mark.parametrize("family", WRITTEN)
def test_tools_are_written_only_where_they_come_out_alike(tokenizer: Path, family: str) -> None:
    turns = find_turns(chat_of(tokenizer, WRITTEN[family]))
    written = turns.go_template()
    assert (".Tools" in written) == (".ToolCalls" in written) == (family in NAMED_TOOLS)
    assert any("schemas" in note for note in turns.notes) == (family == "qwen")


def test_call_tag_is_the_first_text_after_the_condition(tokenizer: Path) -> None:
    # Ollama learns from there how a call begins in the model's answer
    for family in NAMED_TOOLS:
        written = find_turns(chat_of(tokenizer, WRITTEN[family])).go_template()
        after = written.split("{{ if .ToolCalls }}{{ range $i, $call := .ToolCalls }}")[1]
        assert after.startswith('<tool_call>\n{"name": "')


def test_beginning_that_the_runtime_writes_is_left_out(tokenizer: Path) -> None:
    turns = find_turns(chat_of(tokenizer, LLAMA3))
    assert turns.go_template().count("<|endoftext|>") == 2  # with a system prompt and without
    assert "<|endoftext|>" not in turns.go_template(leave_out="<|endoftext|>")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no') }}", "refuses a plain conversation (no)"),
        ("{{ messages[-1].content }}", "leaves out, repeats or moves"),
        (TEMPLATE.replace("message.content or ''", "(message.content or '')[:40]"), "not the sum of its turns"),
        (TEMPLATE.replace("{{ message.role }}", "{{ message.role }}{{ loop.index }}"), "depends on its neighbours"),
        ("{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}", "system prompt"),
    ],
    ids=["refuses", "moves", "truncates", "numbers", "no system"],
)  # fmt: skip
def test_what_cannot_be_written_says_why(tokenizer: Path, template: str, reason: str) -> None:
    with pytest.raises(UnwritableTemplate) as caught:
        find_turns(chat_of(tokenizer, template))
    assert reason in str(caught.value)


def test_real_templates_are_written_alike_or_not_at_all(tokenizer: Path, shared_data: Path) -> None:
    written, refused = set(), set()
    for path in sorted((shared_data / "chat_templates").glob("*.jinja")):
        chat = chat_of(tokenizer, path.read_text())
        try:
            text = find_turns(chat).go_template()
        except UnwritableTemplate:
            refused.add(path.stem)
            continue
        written.add(path.stem)
        for system in ("", "Be kind."):
            for messages in TALKS.values():
                head = talk(("system", system)) if system else []
                expected = chat.render((*head, *messages), generate=True)
                assert Small().render(text, values(system, [], messages)) == expected, path.stem
    assert {"Qwen-Qwen2.5-7B-Instruct", "meta-llama-Llama-3.1-8B-Instruct"} <= written
    assert {"google-gemma-2-2b-it", "meta-llama-Llama-3.2-3B-Instruct"} <= refused
