"""Calls reach a template in the form that it was written for, found by trying."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures import TOOLS, make_model, make_tokenizer
from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.conversion.file_template import file_template
from potstill.components.runtimes.gguf import GGUFServer
from potstill.core.messages import Message
from potstill.core.records import Row

ARGUMENTS = {"room": "hall", "level": [1, 2.5], "note": 'a "b"'}
CALL = {"type": "function", "function": {"name": "set_light", "arguments": json.dumps(ARGUMENTS)}}
CONVERSATION = tuple(
    Message.model_validate(m)
    for m in (
        {"role": "user", "content": "lights on"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "DONE"},
    )
)
NEEDS_ID = "{% if c.id is not defined or c.id | length != 9 %}{{ raise_exception('no id') }}{% endif %}"
LOOP = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% for c in m.tool_calls %}CALLS{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    return load_chat(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def rendered(chat: ChatFormat, template: str, tools: tuple[dict[str, Any], ...] = ()) -> str:
    return ChatFormat(chat.tokenizer, template, "<|endoftext|>", chat.eos).render(CONVERSATION, tools)


@pytest.mark.parametrize(
    "call",
    [
        "{{ c.function.arguments | tojson }}",
        "{{ c.function.arguments }}",
        NEEDS_ID + "{{ c.function.arguments }}",
        "{% if m.content is none %}{{ c.function.arguments }}{% endif %}",
        "{% if m.content is none %}{{ c.function.arguments | tojson }}{% endif %}",
        "{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}",
    ],
)
def test_arguments_are_written_as_json_whatever_the_template_wants(chat: ChatFormat, call: str) -> None:
    text = rendered(chat, LOOP.replace("CALLS", call))
    assert json.loads(text[text.index("{") : text.rindex("}") + 1]) == ARGUMENTS
    assert text.endswith("[tool]DONE")


def test_arguments_in_a_syntax_of_the_templates_own_come_as_values(chat: ChatFormat) -> None:
    call = "{% for k, v in c.function.arguments.items() %}<{{ k }}>{{ v }}</{{ k }}>{% endfor %}"
    assert '<room>hall</room><level>[1, 2.5]</level><note>a "b"</note>' in rendered(chat, LOOP.replace("CALLS", call))


def test_a_result_names_its_call(chat: ChatFormat) -> None:
    calls = "{% for c in m.tool_calls %}{{ c.id }}={% endfor %}"
    template = "{% for m in messages %}" + calls + "{{ m.tool_call_id }}{% endfor %}"
    assert rendered(chat, template) == "call_0=call_0"


@pytest.mark.parametrize(
    "name",
    ["mistralai-Mistral-Nemo-Instruct-2407", "meta-llama-Llama-3.1-8B-Instruct", "meta-llama-Llama-3.2-3B-Instruct",
     "Qwen-Qwen2.5-7B-Instruct", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "meetkai-functionary-medium-v3.1",
     "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "CohereForAI-c4ai-command-r7b-12-2024-tool_use"],
)  # fmt: skip
def test_public_templates_write_calls_and_results(shared_data: Path, chat: ChatFormat, name: str) -> None:
    text = rendered(chat, (shared_data / "chat_templates" / f"{name}.jinja").read_text(), tuple(TOOLS))
    assert "DONE" in text
    start = text.rindex("{", 0, text.index('"hall"'))
    assert json.JSONDecoder().raw_decode(text, start)[0] == ARGUMENTS


def test_llama_cpp_gets_the_ids_that_were_rendered(shared_data: Path, tmp_path: Path) -> None:
    """Mistral's template refuses ids that do not have nine letters and digits, and writes them."""
    folder = make_model(tmp_path / "m", layers=1)
    template = (shared_data / "chat_templates" / "mistralai-Mistral-Nemo-Instruct-2407.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template)
    chat = load_chat(folder)
    convert_checkpoint(folder, tmp_path / "m.gguf", chat_template=file_template(chat))
    row = Row(messages=CONVERSATION, tools=tuple(TOOLS))
    with GGUFServer(tmp_path / "m.gguf", context=256) as server:
        served = server.apply_template(chat.with_ids(row), row.tools)
    assert served == chat.render(row.messages, row.tools, generate=True)
    assert '"id": "call00000"' in served and '"call_id": "call00000"' in served
