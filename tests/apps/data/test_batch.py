"""Rows from the two files of an OpenAI Batch job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fixtures import TOOLS, write_jsonl
from potstill.apps.data.batch import rows_of_batch
from potstill.cli.main import main
from potstill.core.errors import DataError
from potstill.core.records import read_rows

CALL = {"id": "c1", "type": "function", "function": {"name": "set_light", "arguments": '{"room":"attic","state":"on"}'}}


def _request(name: str, **body: Any) -> dict[str, Any]:
    asked = {"model": "gpt", "messages": [{"role": "user", "content": name}], "max_tokens": 5, **body}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": asked}


def _result(name: str, *choices: dict[str, Any], status: int = 200, error: Any = None) -> dict[str, Any]:
    body = {"id": "x", "model": "gpt-9", "choices": list(choices), "usage": {}}
    return {"id": "b", "custom_id": name, "response": {"status_code": status, "body": body}, "error": error}


def _choice(content: str | None, reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "refusal": None, "annotations": [], **more}
    return {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}


def test_requests_and_results_are_joined_by_their_id(tmp_path: Path) -> None:
    requests = write_jsonl(
        tmp_path / "requests.jsonl",
        [_request("plain"), _request("tool", tools=TOOLS), _request("failed"), _request("absent"), _request("expired"),
         _request("cut"), _request("broken", tools=TOOLS), _request("two")],
    )  # fmt: skip
    broken = CALL | {"function": {"name": "set_light", "arguments": "{"}}
    results = write_jsonl(
        tmp_path / "results.jsonl",
        [
            _result("tool", _choice(None, "tool_calls", tool_calls=[CALL])),
            _result("plain", _choice("fine")),
            _result("failed", status=500),
            {"custom_id": "expired", "response": None, "error": {"code": "batch_expired"}},
            _result("cut", _choice("and the", "length")),
            _result("broken", _choice(None, "tool_calls", tool_calls=[broken])),
            _result("two", _choice("one"), _choice("other", None)),
            _result("unasked", _choice("x")),
        ],
    )
    result = CliRunner().invoke(main, ["data", "batch", str(requests), str(results), str(tmp_path / "rows.jsonl")])
    assert result.exit_code == 0
    assert "rows.jsonl: 5 rows." in result.output
    assert "2 answers did not end by itself" in result.output
    assert "4 requests left out. failed: status 500; absent: no result; expired: the request failed" in result.output
    rows = read_rows(tmp_path / "rows.jsonl", need_completion=True)
    said = [(row.messages[0].content, row.completion.content if row.completion else None) for row in rows]
    assert said == [("plain", "fine"), ("tool", None), ("cut", "and the"), ("two", "one"), ("two", "other")]
    assert rows[1].behaviour == "tool_call" and len(rows[1].tools) == len(TOOLS)
    assert [row.unfinished for row in rows] == [False, False, True, False, True]
    assert rows[0].provenance == {"custom_id": "plain", "model": "gpt-9", "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("request_lines", "result_lines", "says"),
    [
        ([_request("a"), _request("a")], [_result("a", _choice("x"))], r"requests\.jsonl:2: custom_id"),
        ([{"body": {}}], [_result("a", _choice("x"))], r"requests\.jsonl:1: custom_id"),
        ([{"custom_id": "a", "body": {"input": "x"}}], [_result("a", _choice("x"))], r":1: a request must have a body"),
        ([_request("a")], [_result("b", _choice("x"))], "no answer to a request of .*; the first is a: no result"),
        ([_request("a")], [{"custom_id": 1}], r"results\.jsonl:1: custom_id"),
        (
            [_request("a")],
            [{"custom_id": "a", "response": {"status_code": 200, "body": {"choices": [1]}}}],
            "no message",
        ),
    ],
)
def test_files_that_are_no_batch_are_refused(
    tmp_path: Path, request_lines: list[Any], result_lines: list[Any], says: str
) -> None:
    requests = write_jsonl(tmp_path / "requests.jsonl", request_lines)
    results = write_jsonl(tmp_path / "results.jsonl", result_lines)
    with pytest.raises(DataError, match=says):
        rows_of_batch(requests, results, tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


def test_an_existing_file_of_rows_is_kept(tmp_path: Path) -> None:
    requests = write_jsonl(tmp_path / "requests.jsonl", [_request("a")])
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"mine": 1}))
    assert CliRunner().invoke(main, ["data", "batch", str(requests), str(requests), str(rows)]).exit_code == 2
    assert rows.read_text() == json.dumps({"mine": 1})
