"""Through llama.cpp's chat endpoint, a file gets the prompts that its student was trained on, and gives calls back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures import make_model, write_jsonl
from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.conversion.file_template import file_template
from potstill.components.parity.prompts import compare_template
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.gguf import GGUFServer
from potstill.components.runtimes.gguf_runtime import GGUFRuntime
from potstill.core.errors import ParityError
from potstill.core.records import Row, read_rows

# as Qwen's: the tools' JSON is a part of the system turn, and results of tools are turns of the user
PRINTS_TOOLS = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- 'You may call these functions:\n<tools>' }}
    {%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}
    {{- '\n</tools>\nWrite <tool_call>{"name": ..., "arguments": ...}</tool_call> for each call.<|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- elif message.role == 'assistant' and message.tool_calls %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}{{- '\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls %}
            {{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""


def tool(name: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


DIM = tool("dim", {"room": {"type": "string"}, "level": {"type": "number", "minimum": 0.0, "maximum": 1.0}})
SHAPES = {
    "usual": [tool("open_door", {"door": {"type": "string", "description": "Which"}}, description="Open a door")],
    "bounds": [DIM],
    "strict": [tool("dim", {"room": {"type": "string"}}, description="Dim", strict=True)],
    "other order": [{"function": dict(reversed(DIM["function"].items())), "type": "function"}],
    "no parameters": [{"type": "function", "function": {"name": "stop_all", "description": "Stop 'all' <at once>"}}],
    "nested": [tool("plan", {"steps": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}})],
    "two": [DIM, tool("sing", {"größe": {"type": "string", "enum": ["ä", "灯"], "default": "ä"}})],
}


def called(*calls: tuple[str, dict[str, Any]], content: str | None = None) -> dict[str, Any]:
    made = [
        {"id": f"id{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(values)}}
        for i, (name, values) in enumerate(calls)
    ]
    return {"role": "assistant", "content": content, "tool_calls": made}


USER = {"role": "user", "content": "Dim the 'hall' to 0.5 — \"now\"\n{{ x }} 灯"}
TALKS: list[list[dict[str, Any]]] = [
    [USER],
    [{"role": "system", "content": "Be brief."}, USER],
    [USER, {"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "The first."}],
    [
        USER,
        called(("dim", {"room": "hall", "level": 0.5}), ("dim", {"level": 1, "room": "attic", "on": None})),
        {"role": "tool", "content": '{"ok": true}', "tool_call_id": "id0"},
        {"role": "tool", "content": "no such room", "tool_call_id": "id1"},
        {"role": "user", "content": "And?"},
    ],
    [USER, called(("dim", {"level": 1e-3, "room": "Küche"}), content="So:"),
     {"role": "tool", "content": "", "tool_call_id": "id0"}, {"role": "assistant", "content": "Done."}, USER],
]  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Conversations of all shapes with tools of all shapes, and some without tools."""
    lines = [{"messages": talk, "tools": tools} for talk in TALKS for tools in SHAPES.values()]
    lines += [{"messages": talk} for talk in TALKS[:3]]
    return read_rows(write_jsonl(tmp_path_factory.mktemp("rows") / "test.jsonl", lines))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "small", layers=1, context=2048)


def exported(model: Path, folder: Path, template: str) -> tuple[Path, ChatFormat]:
    path = folder / "template.jinja"
    path.write_text(template)
    chat = load_chat(model, path)
    convert_checkpoint(model, folder / "m.gguf", quantization="F32", chat_template=file_template(chat))
    return folder / "m.gguf", chat


def ask_all(file: Path, chat: ChatFormat, rows: list[Row]) -> int:
    """Number of rows that the endpoint answered, each with the prompt that training has."""
    with GGUFServer(file, context=4 * 2048, parallel=4) as server:
        assert compare_template(server, chat, rows).identical == len(rows)
        answers = GGUFRuntime(server, chat, 2048, 4).answer(rows, Sampling(2), "test")
    assert [a.prompt_tokens for a in answers] == [len(chat.prompt_ids(row)) for row in rows]
    return len(answers)


def test_prompts_of_a_template_that_prints_tools_are_those_of_training(
    model: Path, rows: list[Row], tmp_path: Path
) -> None:
    file, chat = exported(model, tmp_path, PRINTS_TOOLS)
    texts = [chat.render(row.messages, row.tools, generate=True) for row in rows]
    assert sum('"parameters"' in text for text in texts) == len(TALKS) * len(SHAPES)
    assert ask_all(file, chat, rows) == len(rows)


@pytest.mark.parametrize(
    ("name", "talks"),
    [
        ("Qwen-Qwen2.5-7B-Instruct", range(5)),
        ("meta-llama-Llama-3.1-8B-Instruct", (0, 1, 2, 4)),
        ("mistralai-Mistral-Nemo-Instruct-2407", (0, 1, 2, 4)),  # its ids of calls have nine characters
    ],
)
def test_prompts_of_real_templates_are_those_of_training(
    model: Path, rows: list[Row], shared_data: Path, tmp_path: Path, name: str, talks: Sequence[int]
) -> None:
    template = (shared_data / "chat_templates" / f"{name}.jinja").read_text()
    kept = {json.dumps(TALKS[i][-1]["content"]) + str(len(TALKS[i])) for i in talks}
    chosen = [row for row in rows if json.dumps(row.messages[-1].content) + str(len(row.messages)) in kept]
    assert ask_all(*exported(model, tmp_path, template), chosen) == len(chosen) >= 10


def test_another_template_in_the_file_is_found(model: Path, rows: list[Row], tmp_path: Path) -> None:
    file, _ = exported(model, tmp_path, PRINTS_TOOLS.replace("You may call", "You can call"))
    path = tmp_path / "trained.jinja"
    path.write_text(PRINTS_TOOLS)
    with GGUFServer(file, context=2048) as server, pytest.raises(ParityError, match=r"test\.jsonl:1.*at token \d+"):
        compare_template(server, load_chat(model, path), rows)
