"""What depends on who renders a template is written into it, in a form that Jinja and llama.cpp read alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures import TEMPLATE, TOOLS, make_model
from potstill.components.chat.format import load_chat
from potstill.components.chat.template import compile_template
from potstill.components.chat.variables import write_variables
from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.conversion.file_template import file_template
from potstill.components.runtimes.gguf import GGUFServer
from potstill.core.errors import RecipeError
from potstill.core.records import Message


def rendered(source: str, **given: Any) -> str:
    return compile_template(source).render(**given)


@pytest.mark.parametrize("value", [True, False, 3, -0.5, 1e-9, "high", 'a "b" \\ \n\t\r %} {{ x }} é\u2028', ""])
def test_a_value_keeps_its_type_and_text(value: bool | float | str) -> None:
    written = write_variables("{{ x | tojson }}|{{ x is string }}", {"x": value})
    assert rendered(written) == rendered("{{ x | tojson }}|{{ x is string }}", x=value)


def test_what_a_runtime_defines_and_the_recipe_does_not_is_undefined() -> None:
    source = "{{ enable_thinking is defined }} {{ date_string is defined }}"
    written = write_variables(source, {})
    assert rendered(written, enable_thinking=True, date_string="today") == "False False"
    assert rendered(write_variables(source, {"enable_thinking": False}), enable_thinking=True) == "True False"


def test_the_text_after_the_variables_stays_as_it_is() -> None:
    for source in ("\n\n  a{{ x }}", "  {% if x %}\n  b{% endif %}", "{{- x }}", " {#- c #} {{ x }}"):
        assert rendered(write_variables(source, {"x": 1})) == rendered(source, x=1)
    assert write_variables("{{ message.x }} and nothing else", {"x": 1}) == "{{ message.x }} and nothing else"


def test_a_template_never_gets_todays_date() -> None:
    source = (
        "{{ strftime_now('%d %b %Y') }} {% if strftime_now is defined %}{{ strftime_now(format=\"%Y\") }}{% endif %}"
    )
    assert rendered(write_variables(source, {})) == "26 Jul 2024 2024"
    assert rendered(write_variables(source, {}, date="2026-01-31")) == "31 Jan 2026 2026"
    with pytest.raises(RecipeError, match=r"chat\.template: .*computed"):
        write_variables("{% set f = '%d' %}{{ strftime_now(f) }}", {})


def test_a_template_that_cannot_do_without_tools_is_left_as_it_is() -> None:
    """llama.cpp tries a template without tools when it loads it, and could not if `tools` were none."""
    needs = "{% if tools is defined %}{% for t in tools %}{{ t.name }}{% endfor %}{% endif %}"
    assert write_variables(needs, {}) == needs
    assert write_variables("of these tools is one", {}) == "of these tools is one"
    assert write_variables("{{ tools is not none }}", {}) != "{{ tools is not none }}"


VARYING = (
    "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }} {{ datetime is defined }}"
    "{{ tools is defined }}{{ tools is none }}{{ documents is defined }}{{ pad_token }}{{ effort }}\n"
)


@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}, {"enable_thinking": True, "effort": 'a"b\n'}])
def test_llama_cpp_renders_what_was_trained(tmp_path: Path, variables: dict[str, Any]) -> None:
    """Its server defines enable_thinking for every template, and a model may think unless it is told not to."""
    folder = make_model(tmp_path / "m", layers=1)
    thinks = "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    (folder / "chat_template.jinja").write_text("\n" + VARYING + TEMPLATE + thinks)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("With tools: " + VARYING + TEMPLATE + thinks)
    chat = load_chat(folder, kwargs=variables, date="2025-12-24")
    messages = (Message(role="user", content="hi"),)
    assert chat.render(messages, generate=True).endswith("<think>") == variables.get("enable_thinking", True)
    convert_checkpoint(folder, tmp_path / "m.gguf", chat_template=file_template(chat))
    with GGUFServer(tmp_path / "m.gguf", context=256) as server:
        for tools in ((), tuple(TOOLS)):
            expected = chat.render(messages, tools, generate=True)
            assert server.apply_template(messages, tools) == expected
            assert expected.startswith("With tools") == bool(tools)
            assert "24 Dec 2025" in expected
