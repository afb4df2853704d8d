"""Rows, tables, logs and tools are read from the shapes in which people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures import write_jsonl
from potstill.apps.init.sources.files import read_sources
from potstill.apps.init.sources.found import Found, Request
from potstill.core.errors import DataError
from potstill.core.tools import argument_validators

ASK = [{"role": "user", "content": "Is it open?"}]
SAID = {"role": "assistant", "content": "Yes."}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
RESPONSE = {
    "model": "gpt-4o-mini-2024-07-18", "created": 1_700_000_000,
    "choices": [{"index": 0, "message": {**SAID, "annotations": [], "audio": None}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13},
}  # fmt: skip


def only(found: Found) -> Request:
    (request,) = found.requests
    assert not found.left_out
    return request


def said(request: Request) -> tuple[Any, Any]:
    """What is asked and answered."""
    answer = request.row.completion
    return [(m.role, m.content) for m in request.row.messages], answer and answer.content


LOGGED = [("user", "Is it open?")], "Yes."


@pytest.mark.parametrize(
    "entry",
    [
        {"request": {"model": "gpt-4o-mini", "messages": ASK, "tools": [TOOL]}, "response": RESPONSE},
        {"request_body": json.dumps({"messages": ASK}), "response_body": json.dumps(RESPONSE), "status": 200},
        {"request": {"body": {"messages": ASK}}, "response": {"status_code": 200, "body": RESPONSE}},
        {"messages": ASK, "response": RESPONSE, "metadata": {"user": 1}},
        {"input": {"messages": ASK}, **RESPONSE},
        {"messages": [*ASK, SAID], "model": "gpt-4o-mini", "created": 1_700_000_000_000},
        {"input": "Is it open?", "model": "m", "created_at": "2023-11-14T22:13:20+00:00", "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]}]},
        {"request": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Is it open?"}]}]},
         "response": {"output": [{"type": "message", "role": "assistant", "content": "Yes."}], "created_at": 1.7e9}},
    ],
    ids=["pair", "texts", "batch", "litellm", "input", "stored", "responses", "responses pair"],
)  # fmt: skip
def test_an_entry_of_a_log_is_a_request_with_its_answer(entry: dict[str, Any], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "log.jsonl", [entry])
    request = only(read_sources([tmp_path / "log.jsonl"]))
    assert request.logged and said(request) == LOGGED
    if "response" in entry or "response_body" in entry or "created" in entry or "created_at" in entry:
        assert request.time == 1.7e9


def test_a_log_says_which_model_answered_and_how_many_tokens_it_took(tmp_path: Path) -> None:
    asked = {"model": "gpt-4o-mini", "messages": ASK, "response_format": {"type": "json_object"}}
    write_jsonl(tmp_path / "log.jsonl", [{"request": asked, "response": RESPONSE, "session_id": "s1"}])
    request = only(read_sources([tmp_path / "log.jsonl"]))
    assert (request.model, request.prompt_tokens, request.completion_tokens) == ("gpt-4o-mini-2024-07-18", 11, 2)
    assert request.wants_json and request.row.group == "s1"
    assert request.row.provenance == {"model": "gpt-4o-mini-2024-07-18", "finish_reason": "stop"}


def test_calls_of_the_responses_api_become_tool_calls(tmp_path: Path) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": '{"word": "open"}'}
    entry = {
        "model": "m", "instructions": "Be brief.", "tools": [{"type": "function", "name": "look_up", "strict": True}],
        "input": [{"role": "user", "content": "Is it open?"}, call,
                  {"type": "function_call_output", "call_id": "c1", "output": "9 to 5"}],
        "output": [{**call, "call_id": "c2"}, {**call, "call_id": "c3"}],
    }  # fmt: skip
    write_jsonl(tmp_path / "log.jsonl", [entry])
    row = only(read_sources([tmp_path / "log.jsonl"])).row
    assert [m.role for m in row.messages] == ["system", "user", "assistant", "tool"]
    assert row.messages[2].tool_calls[0].id == row.messages[3].tool_call_id == "c1"
    assert row.completion is not None and len(row.completion.tool_calls) == 2
    assert row.tools[0]["function"]["name"] == "look_up" and row.behaviour == "multi_call"


def test_failed_requests_and_images_are_left_out_with_a_reason(tmp_path: Path) -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    good = {"request": {"messages": ASK}, "response": RESPONSE}
    bad = [
        {"request": {"messages": ASK}, "response": {"status_code": 500, "body": {}}},
        {"request": {"messages": ASK}, "response": {"error": {"message": "no"}}},
        {"request": {"messages": image}, "response": RESPONSE},
        {"request": {"messages": ASK}, "response": "<html>"},
    ]
    write_jsonl(tmp_path / "log.jsonl", [good, *bad])
    found = read_sources([tmp_path / "log.jsonl"])
    assert len(found.requests) == 1 and len(found.left_out) == 4
    assert all(str(tmp_path / "log.jsonl") in reason for reason in found.left_out)
    write_jsonl(tmp_path / "bad.jsonl", bad)
    with pytest.raises(DataError, match="none of 4 entries can be used"):
        read_sources([tmp_path / "bad.jsonl"])


def test_rows_keep_what_they_say_and_other_keys_go_into_the_provenance(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "7", "messages": [*ASK, SAID], "user_id": 3, "note": None}])
    request = only(read_sources([tmp_path / "rows.jsonl"]))
    assert not request.logged and said(request) == LOGGED
    assert request.row.provenance == {"id": "7", "user_id": 3} and request.row.group == "3"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'Question;Answer\n"Is it open?";Yes.\n'),
        ("t.tsv", "id\tutterance\tintent\n1\tIs it open?\tYes.\n"),
        ("t.jsonl", '{"text": "Is it open?", "label": "Yes."}\n'),
        ("t.json", '[{"query": "Is it open?", "reply": "Yes.", "x": 1}]'),
        ("t.csv", "first,second\nIs it open?,Yes.\n"),
    ],
)
def test_columns_are_known_by_their_names(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert said(only(read_sources([tmp_path / name]))) == LOGGED


def test_a_table_whose_columns_say_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(DataError, match="Rename that column to 'prompt'"):
        read_sources([tmp_path / "t.csv"])


@pytest.mark.parametrize(
    ("text", "asked", "answer"),
    [
        ('prompt,answer\nA,B\n"Say ""hi"", now","""hi"""\n', 'Say "hi", now', '"hi"'),
        ("prompt\nGood morning, is it open?\n", "Good morning, is it open?", None),
        ("prompt,answer\nIs\u2028it\x0bopen?,Yes\n", "Is\u2028it\x0bopen?", "Yes"),
        ('prompt; answer\n"Is it; open?"; Yes, it is.\n', "Is it; open?", "Yes, it is."),
        ("\ufeffprompt|answer\r\nIs it, open?|Yes\r\n", "Is it, open?", "Yes"),
    ],
    ids=["quotes", "one column", "line separators", "semicolons", "byte order mark"],
)
def test_cells_of_a_csv_file_are_whole(text: str, asked: str, answer: str | None, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, newline="")
    assert said(read_sources([tmp_path / "t.csv"]).requests[-1]) == ([("user", asked)], answer)


def test_a_line_with_more_cells_than_the_header_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,answer\nIs it open, now?,Yes.\nIs it open?,Yes.\n")
    found = read_sources([tmp_path / "t.csv"])
    assert len(found.requests) == 1 and "t.csv:2: the line has more cells than the header" in found.left_out[0]


@pytest.mark.parametrize(("label", "answer"), [(0, "0"), (False, "false"), ({"a": "é"}, '{"a": "é"}'), (None, None)])
def test_answers_of_a_table_that_are_not_text_become_json(label: Any, answer: str | None, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"text": "Is it open?", "label": label}])
    assert said(only(read_sources([tmp_path / "t.jsonl"]))) == ([("user", "Is it open?")], answer)


def test_a_prompt_of_a_table_must_be_text(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"text": ["Is it open?"]}, {"text": "Is it open?"}])
    assert "t.jsonl:1: the column 'text' must hold text, found list" in read_sources([tmp_path / "t.jsonl"]).left_out[0]


def test_a_folder_has_prompts_in_text_files_and_a_task(tmp_path: Path) -> None:
    folder = tmp_path / "examples" / "deep"
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("Is it open?\n")
    (folder / "one.answer.txt").write_text("Yes.\n")
    (folder / "two.txt").write_text("Is it closed?")
    (tmp_path / "examples" / "task.md").write_text("Answer questions about a shop.")
    found = read_sources([tmp_path / "examples"])
    assert [said(each) for each in found.requests] == [LOGGED, ([("user", "Is it closed?")], None)]
    assert found.task == "Answer questions about a shop."


PET = {"$ref": "#/components/schemas/Pet"}
OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/pets/{id}": {
            "parameters": [{"$ref": "#/components/parameters/id"}],
            "get": {"operationId": "getPet", "summary": "Find a pet."},
            "patch": {"requestBody": {"content": {"application/json": {"schema": PET}}}},
        }
    },
    "components": {
        "parameters": {"id": {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}},
        "schemas": {"Pet": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "example": "Rex"}, "tag": {"type": "string", "nullable": True},
            "parent": PET}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_operations_of_an_openapi_document_become_tools(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"api{suffix}").write_text(json.dumps(OPENAPI))
    get, patch = (tool["function"] for tool in read_sources([tmp_path / f"api{suffix}"]).tools)
    assert get["name"] == "getPet" and get["description"] == "Find a pet."
    assert get["parameters"] == {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
    assert patch["name"] == "patch_pets_id" and patch["parameters"]["required"] == ["id", "name"]
    validator = argument_validators(read_sources([tmp_path / f"api{suffix}"]).tools, "x")["patch_pets_id"]
    assert validator.is_valid({"id": 1, "name": "Rex", "tag": None, "parent": {"name": "Max"}})
    assert not validator.is_valid({"id": 1, "name": 3})


def test_schemas_that_refer_to_each_other_are_cut(tmp_path: Path) -> None:
    names = "ABCDEFGH"
    each = {name: {"$ref": f"#/components/schemas/{name}"} for name in names}
    schemas = {name: {"type": "object", "properties": each, "required": ["A"]} for name in names}
    body = {"content": {"application/json": {"schema": each["A"]}}}
    document = {"paths": {"/x": {"post": {"requestBody": body}}}, "components": {"schemas": schemas}}
    (tmp_path / "api.json").write_text(json.dumps(document))
    (tool,) = read_sources([tmp_path / "api.json"]).tools
    properties = tool["function"]["parameters"]["properties"]
    assert set(properties) == set(names) and properties["H"]["required"] == ["A"]
    assert json.dumps(tool).count("{") < 1000


def test_an_operation_may_have_a_number_as_its_name_and_dates_as_values(tmp_path: Path) -> None:
    (tmp_path / "api.yaml").write_text(
        "paths: {/x: {get: {operationId: 5, parameters: [{in: query, name: day, schema: {type: string, "
        "default: 2020-01-31}}], responses: {200: {}}}}}"
    )
    (tool,) = read_sources([tmp_path / "api.yaml"]).tools
    assert tool["function"]["name"] == "5"
    assert tool["function"]["parameters"]["properties"]["day"]["default"] == "2020-01-31"


def test_tools_of_other_kinds_are_read(tmp_path: Path) -> None:
    mcp = {"tools": [{"name": "look_up", "description": "Look up.", "inputSchema": {"type": "object"}}]}
    for value in (mcp, mcp["tools"], [TOOL], {"functions": [TOOL["function"]]}):
        (tmp_path / "tools.json").write_text(json.dumps(value))
        (tool,) = read_sources([tmp_path / "tools.json"]).tools
        assert tool["function"]["name"] == "look_up"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", "", "the file is empty"),
        ("x.jsonl", '{"messages": [\n', r"x\.jsonl:1: not valid JSON"),
        ("x.json", "[1, 2]", "entry 1: must be a JSON object"),
        ("x.pdf", "", "files of this kind are not read"),
        ("x.json", '{"paths": {}}', "there is no tool in it"),
        ("x.yaml", "a: b: c", "not valid YAML"),
        ("x.yaml", "2020-01-01: 5", "a key or a number that JSON does not have"),
        ("x.json", '{"tools": []}', "there is no tool in it"),
        ("x.csv", 'prompt,answer\n"Is it open?,Yes.\n', r"x\.csv:1: not valid CSV"),
        ("x.csv", "prompt,answer,answer\na,b,c\n", "two columns have the name 'answer'"),
    ],
)
def test_bad_files_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_sources([tmp_path / name])
