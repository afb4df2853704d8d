"""Tools and messages in the shape that is trained on reach a chat template unchanged through llama.cpp's server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fixtures import TEMPLATE, TOOLS, make_model
from potstill.components.runtimes.gguf import GGUFServer
from potstill.core.records import Message
from potstill.core.tools import canonical_tools

PRINTS_ALL = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    + TEMPLATE.partition("{% endif %}")[2].partition("{% if add_generation_prompt %}")[0]
    + "{% if messages[0].content == 'SHOW' %}{% for m in messages %}{{ m | tojson }}\n{% endfor %}{% endif %}"
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMED: dict[str, Any] = TOOLS[0]["function"]
SHAPES: list[dict[str, Any]] = [
    {"type": "function", "function": NAMED | {"strict": True}},
    {"type": "function", "function": {"name": "no_description", "parameters": NAMED["parameters"]}},
    {"type": "function", "function": {"name": "no_parameters"}},
    {"function": dict(reversed(NAMED.items()))},
    {
        "name": "bounds",
        "parameters": {
            "type": "object",
            "properties": {"level": {"maximum": 1.0, "minimum": 0.0, "type": "number", "default": 0.5}},
        },
    },
]
CALL = {"id": "a1", "function": {"name": "set_light", "arguments": {"room": "hall", "level": 40.0}}}
HISTORY = [
    {"role": "user", "content": "SHOW"},
    {"role": "assistant", "tool_calls": [CALL], "reasoning": "It is dark."},
    {"role": "tool", "tool_call_id": "a1", "name": "set_light", "content": "ok"},
    {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "text", "text": "off"}]},
]


def test_llama_cpp_shows_templates_what_potstill_trains_on(tmp_path: Path) -> None:
    from potstill.components.conversion.convert import convert_checkpoint

    model, file = make_model(tmp_path / "model", layers=1), tmp_path / "model.gguf"
    convert_checkpoint(model, file, chat_template=PRINTS_ALL)
    messages = [Message.model_validate(value) for value in HISTORY]
    with GGUFServer(file, context=256) as server:
        for shape in SHAPES:
            tools = canonical_tools([shape], "here")
            lines = server.apply_template(messages, tools).splitlines()
            assert json.dumps(tools[0], ensure_ascii=False) in lines
            for message in messages[1:3]:
                assert json.dumps(message.for_template(), ensure_ascii=False) in lines
        assert "and" in lines and "off<|im_end|>" in lines
