"""Test rows that were also trained on are found, counted and left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures import light_row, light_rows, write_jsonl
from potstill.core.errors import DataError
from potstill.core.hashing import HashedPath
from potstill.core.records import Call, Gold, Message, Row, ToolCall, read_rows
from potstill.stages.evaluate.answers import expected_answer
from potstill.stages.evaluate.classifier import scored_rows
from potstill.stages.evaluate.rows import RowFiles, read_test_rows


def files(folder: Path, test: list[dict[str, Any]], prompts: list[dict[str, Any]], **more: Any) -> RowFiles:
    def hashed(name: str, rows: list[dict[str, Any]]) -> HashedPath:
        return HashedPath.of_file(write_jsonl(folder / f"{name}.jsonl", rows))

    given = {"test_limit": None, "tools": None, "prompts_limit": None, "finetune_rows": None} | more
    return RowFiles(test=hashed("test", test), prompts=hashed("prompts", prompts), **given)


def test_without_a_leak_every_row_is_scored(tmp_path: Path) -> None:
    rows, leaked = read_test_rows(files(tmp_path, light_rows(["now "]), light_rows([""])))
    assert len(rows) == 12
    assert (leaked.rows, leaked.of, leaked.row_ids, leaked.sentence) == (0, 12, (), "")


def test_a_leaked_prompt_is_left_out_as_often_as_it_occurs(tmp_path: Path) -> None:
    test = [*light_rows(["now "]), light_row("hall", "on"), light_row("hall", "on")]
    test[-1] = test[-1] | {"behaviour": "answer", "gold": None}  # another answer to the same prompt
    rows, leaked = read_test_rows(files(tmp_path, test, light_rows([""])))
    assert [row.row_id for row in rows] == [row.row_id for row in read_rows(tmp_path / "test.jsonl")[:12]]
    assert (leaked.rows, leaked.of, len(leaked.row_ids)) == (2, 14, 1)
    assert (
        leaked.sentence
        == "2 of 14 test rows were also trained on or used for validation, and are left out of every score."
    )


def test_only_rows_in_use_count(tmp_path: Path) -> None:
    test = [light_row("hall", "on", "now "), light_row("hall", "on")]
    prompts = [light_row("attic", "on"), light_row("hall", "on")]
    assert read_test_rows(files(tmp_path, test, prompts))[1].rows == 1
    assert read_test_rows(files(tmp_path, test, prompts, prompts_limit=1))[1].rows == 0
    assert read_test_rows(files(tmp_path, test, prompts, test_limit=1))[1].of == 1


def test_rows_that_the_teacher_was_finetuned_on_count_too(tmp_path: Path) -> None:
    tuned = HashedPath.of_file(write_jsonl(tmp_path / "tuned.jsonl", [light_row("hall", "on")]))
    test = [light_row("hall", "on"), light_row("hall", "off")]
    assert read_test_rows(files(tmp_path, test, [light_row("attic", "on")], finetune_rows=tuned))[1].rows == 1


def test_validation_rows_count_too(tmp_path: Path) -> None:
    chosen = HashedPath.of_file(write_jsonl(tmp_path / "validation.jsonl", [light_row("hall", "on")]))
    test = [light_row("hall", "on"), light_row("hall", "off")]
    rows, leaked = read_test_rows(files(tmp_path, test, [light_row("attic", "on")], validation=chosen))
    assert (len(rows), leaked.rows) == (1, 1)


def test_the_same_words_with_other_tools_are_another_prompt(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "other"}}]
    test = [light_row("hall", "on") | {"tools": tools, "gold": None}]
    assert read_test_rows(files(tmp_path, test, [light_row("hall", "on")]))[1].rows == 0


def test_a_test_of_leaked_rows_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test\.jsonl: every test row is also trained on"):
        read_test_rows(files(tmp_path, [light_row("hall", "on")], [light_row("hall", "on")]))


def test_a_classifiers_rows_leak_by_their_text(tmp_path: Path) -> None:
    test = [{"text": "play", "label": "music"}, {"text": "stop", "label": "music"}]
    hashed = HashedPath.of_file(write_jsonl(tmp_path / "test.jsonl", test))
    train = HashedPath.of_file(write_jsonl(tmp_path / "train.jsonl", [{"text": "stop", "label": "light"}]))
    rows, leaked = scored_rows(hashed, train)
    assert [row.text for row in rows] == ["play"]
    assert (leaked.rows, leaked.of, leaked.row_ids) == (1, 2, ("stop",))
    with pytest.raises(DataError, match=r"test\.jsonl: every test row is also trained on"):
        scored_rows(hashed, hashed)


def test_rows_that_repeat_each_other_count_once(tmp_path: Path) -> None:
    hall = light_row("hall", "on")
    shouted = hall | {"messages": [m | {"content": f" {m['content'].upper()} !"} for m in hall["messages"]]}
    tools = [{"type": "function", "function": {"name": "other"}}]
    test = [hall, light_row("attic", "on"), shouted, hall, hall | {"tools": tools, "gold": None}]
    rows, leaked = read_test_rows(files(tmp_path, test, [light_row("cellar", "on")]))
    assert [int(row.where.rpartition(":")[2]) for row in rows] == [1, 2, 5]
    assert (leaked.rows, leaked.repeated) == (0, 2)
    assert leaked.sentence == "2 of 5 test rows repeat earlier ones, and are not counted again."
    rows, leaked = read_test_rows(files(tmp_path, test, [shouted, light_row("attic", "on", "now ")]))
    assert [int(row.where.rpartition(":")[2]) for row in rows] == [2, 5]
    assert (leaked.rows, leaked.of, leaked.repeated, len(leaked.row_ids)) == (3, 5, 0, 2)


def test_a_classifiers_rows_that_differ_in_case_and_punctuation_are_one(tmp_path: Path) -> None:
    texts = ["Play it.", "play   it", "STOP!", "caf\u00e9?", "cafe\u0301", "go"]
    test = HashedPath.of_file(write_jsonl(tmp_path / "test.jsonl", [{"text": t, "label": "a"} for t in texts]))
    train = HashedPath.of_file(write_jsonl(tmp_path / "train.jsonl", [{"text": "stop", "label": "a"}]))
    rows, leaked = scored_rows(test, train)
    assert [row.text for row in rows] == ["Play it.", "caf\u00e9?", "go"]
    assert (leaked.rows, leaked.of, leaked.repeated, leaked.row_ids) == (1, 6, 2, ("STOP!",))


def test_the_right_answer_is_shown_for_every_kind_of_row() -> None:
    call = ToolCall.of(Call(name="set_light", arguments={"room": "Küche", "on": True}))
    user = (Message(role="user", content="x"),)
    made = Row(messages=user, completion=Message(role="assistant", tool_calls=(call,)), behaviour="tool_call")
    assert expected_answer(made) == 'set_light(room="Küche", on=true)'
    assert expected_answer(Row(messages=user, completion=Message(role="assistant", content="4"))) == "4"
    assert expected_answer(Row(messages=user, gold=Gold(match="four"))) == "/four/"


@pytest.mark.parametrize("kind", ["labelled", "unanswered"])
def test_other_rows_that_are_trained_on_are_not_scored(tmp_path: Path, kind: str) -> None:
    more = HashedPath.of_file(write_jsonl(tmp_path / "more.jsonl", [light_row("hall", "on", "now ")]))
    rows, leaked = read_test_rows(files(tmp_path, light_rows(["now "]), light_rows([""]), **{kind: more}))
    assert (len(rows), leaked.rows) == (11, 1)
