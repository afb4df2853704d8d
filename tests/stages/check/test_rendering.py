"""The check proves that the text of each row holds what the row says, and shows one."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import TEMPLATE
from potstill.cli.render.check import render_check
from potstill.stages.check import check
from potstill.stages.check.check import check_recipe

if TYPE_CHECKING:
    from workshop import Workshop


@pytest.fixture(autouse=True)
def _not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp is tried in tests of their own."""
    monkeypatch.setattr(check, "missing_package", lambda: "xllamacpp")


def own_template(workshop: Workshop, template: str) -> None:
    (workshop.model / "chat_template.jinja").write_text(template)


def test_tools_that_no_text_holds_are_refused(workshop: Workshop) -> None:
    own_template(workshop, TEMPLATE.replace("{% if tools %}", "{% if false %}"))
    message = workshop.refused(workshop.recipe())
    assert "train.jsonl:1: the chat template leaves the tools out of 24 of the 24 rows of prompts" in message
    assert "chat.template" in message


@pytest.mark.parametrize(("role", "name"), [("developer", "the developer message"), ("system", "the system message")])
def test_a_message_that_no_text_holds_is_refused(workshop: Workshop, role: str, name: str) -> None:
    def instruct(row: dict[str, Any]) -> None:
        row["messages"].insert(0, {"role": role, "content": "Answer in French."})

    where = workshop.spoil("train.jsonl", 5, instruct)
    check_recipe(workshop.recipe())
    own_template(workshop, f"{{% set messages = messages | rejectattr('role', 'eq', '{role}') | list %}}\n" + TEMPLATE)
    assert f"{where}: the chat template leaves {name} out of a row of prompts" in workshop.refused(workshop.recipe())


def test_a_call_that_no_template_could_write_is_refused_before_a_teacher_makes_it(workshop: Workshop) -> None:
    own_template(workshop, TEMPLATE.replace("message.tool_calls", "none"))

    def only_words(row: dict[str, Any]) -> None:
        row.pop("completion", None)
        row.pop("behaviour", None)

    for file, rows in (("train.jsonl", 24), ("test.jsonl", 12)):
        for line in range(1, rows + 1):
            workshop.spoil(file, line, only_words)
    assert "leaves a call in the answer out of" in workshop.refused(workshop.recipe())


def test_a_call_that_no_template_could_write_is_told_where_all_rows_answer_in_words(workshop: Workshop) -> None:
    own_template(workshop, TEMPLATE.replace("message.tool_calls", "none"))

    def in_words(row: dict[str, Any]) -> None:
        row["completion"] = {"role": "assistant", "content": "Done."}
        row.update(behaviour="answer", gold=None)

    for file, rows in (("train.jsonl", 24), ("test.jsonl", 12)):
        for line in range(1, rows + 1):
            workshop.spoil(file, line, in_words)
    warnings = check_recipe(workshop.recipe()).warnings
    assert any("leaves a call in the answer out of" in warning for warning in warnings)


def test_words_before_a_call_are_counted(workshop: Workshop) -> None:
    def talk(row: dict[str, Any]) -> None:
        row["completion"]["content"] = "I do so now:"

    where = workshop.spoil("test.jsonl", 3, talk)
    assert check_recipe(workshop.recipe()).warnings == check_recipe(workshop.recipe()).warnings
    own_template(workshop, TEMPLATE.replace("message.content or ''", "'' if message.tool_calls else message.content"))
    warnings = check_recipe(workshop.recipe()).warnings
    assert any(f"leaves words before a call out of 1 of 12 rows (the first is {where})" in w for w in warnings)


def test_a_variable_that_no_template_reads_is_refused(workshop: Workshop) -> None:
    own_template(workshop, "{% if enable_thinking %}{% endif %}" + TEMPLATE)
    check_recipe(workshop.recipe(chat={"template_kwargs": {"enable_thinking": False}}))
    message = workshop.refused(workshop.recipe(chat={"template_kwargs": {"enable_thinkin": False}}))
    assert message.startswith("chat.template_kwargs.enable_thinkin: the chat template never reads")


def test_a_row_is_shown_with_what_is_learnt_of_it(workshop: Workshop) -> None:
    from rich.console import Console

    def colour(row: dict[str, Any]) -> None:
        row["messages"][0]["content"] += " \x1b[31m\x07"

    workshop.spoil("train.jsonl", 1, colour)
    found = check_recipe(workshop.recipe())
    shown = found.shown
    assert shown is not None
    ((start, end),) = shown.learnt
    assert shown.text[:start].endswith("<|im_start|>assistant\n")
    assert shown.text[start:end].startswith("<tool_call>") and shown.text.endswith("<|im_end|>")
    assert 0 < shown.learnt_tokens < shown.tokens
    console = Console(file=io.StringIO(), width=80, highlight=False, color_system=None)
    console.print(render_check(found))
    page = console.file.getvalue()  # type: ignore[attr-defined]
    assert ">>><tool_call>" in page and "<|im_end|><<<" in page
    assert "\\x1b[31m\\x07" in page and "\x1b" not in page and "\x07" not in page
