"""Rows from the two files of an OpenAI Batch job: what was asked, and what was answered.

A line of requests is `{"custom_id": ..., "body": {"messages": ..., "tools": ...}}`; a line of results is
`{"custom_id": ..., "response": {"status_code": 200, "body": {"choices": ...}}, "error": null}`, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.core.errors import DataError
from potstill.core.files import read_json_lines
from potstill.core.records import Row, parse_row, write_rows
from potstill.core.words import printable

__all__ = ["BatchRows", "rows_of_batch"]

_ASKED = ("messages", "tools", "functions")
_ANSWERED = ("role", "content", "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning")


@dataclass(frozen=True)
class BatchRows:
    """What was written.

    rows        rows with an answer
    cut_off     rows among them whose answer is not whole: no end token is learnt from them
    left_out    requests without a row, each with its reason, as `ID: reason`
    """

    rows: int
    cut_off: int
    left_out: tuple[str, ...]


def rows_of_batch(requests: Path, results: Path, out: Path) -> BatchRows:
    """Write the answered requests as rows, in the order of the requests; each choice of a result is a row.

    Raises:
        DataError: a file is absent or broken, an id is absent or there twice, or no request has an answer.
    """
    answers = dict(_by_id(results))
    rows: list[Row] = []
    left_out: list[str] = []
    for name, (where, request) in _by_id(requests):
        asked = request.get("body")
        if not isinstance(asked, dict) or "messages" not in asked:
            raise DataError(f"{where}: a request must have a body with messages, as for /v1/chat/completions.")
        made = _rows(name, asked, *answers.get(name, (where, {})))
        if isinstance(made, str):
            left_out.append(f"{printable(name, 60)}: {made}")
        else:
            rows += made
    if not rows:
        reason = f"; the first is {left_out[0]}" if left_out else ""
        raise DataError(f"{results}: it has no answer to a request of {requests}{reason}. Give the files of one batch.")
    write_rows(out, rows)
    return BatchRows(len(rows), sum(row.unfinished for row in rows), tuple(left_out))


def _by_id(path: Path) -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    """Each line of a file with its id, and with its file and line as messages name it."""
    seen: set[str] = set()
    for number, value in read_json_lines(path):
        where, name = f"{path}:{number}", value.get("custom_id")
        if not isinstance(name, str) or name in seen:
            raise DataError(
                f"{where}: custom_id must be text that no other line has. Give the files of an OpenAI batch."
            )
        seen.add(name)
        yield name, (where, value)


def _rows(name: str, asked: Mapping[str, Any], where: str, result: Mapping[str, Any]) -> list[Row] | str:
    """The rows of one result, or why there is none."""
    response = result.get("response")
    if not isinstance(response, dict):
        return f"the request failed ({printable(str(result['error']), 80)})" if result.get("error") else "no result"
    if response.get("status_code") != 200:
        return f"status {printable(str(response.get('status_code')), 20)}"
    body = response.get("body")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(choices, list) or not choices:
        return "the result has no choices"
    rows = []
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            return "a choice has no message"
        value = {key: asked[key] for key in _ASKED if key in asked}
        value["completion"] = {key: message[key] for key in _ANSWERED if key in message}
        value["provenance"] = {
            "custom_id": name,
            "model": body.get("model"),
            "finish_reason": choice.get("finish_reason"),
        }
        try:
            rows.append(parse_row(value, (), True, where))
        except DataError as error:  # one odd answer does not lose the others
            return printable(str(error).removeprefix(f"{where}: "), 200)
    return rows
