"""A log is audited: its tasks, what can be checked, what could be taken over, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fixtures import write_jsonl
from potstill.cli.main import main

SYSTEMS = (
    "You sort tickets of a shop into refund and shipping. Today is {day}.",
    "You are a poet. Write a verse about what the user names.",
)
DAY = 86_400


def entry(system: str, user: str, answer: str, time: float, model: str = "gpt-4o-mini-2024-07-18") -> dict[str, Any]:
    messages = [{"role": "user", "content": user}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    message = {"role": "assistant", "content": answer}
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    response = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage, "created": 1e9 + time}
    return {"request": {"model": model, "messages": messages}, "response": response}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    verse = "The sea is grey and wide, and on the tide a gull is crying for the ships that never came to port again."
    tickets = [
        entry(SYSTEMS[0].format(day=n), f"ticket {n} {'x' * n}", ["refund", "shipping"][n % 2], n * DAY / 3)
        for n in range(30)
    ]
    verses = [entry(SYSTEMS[1], f"about {n}", f"{verse} {n}", 0) for n in range(10)]
    odd = [entry("", "What is the answer to my question on gardens?", "It depends.", 10 * DAY, "unheard-of")]
    path = tmp_path / "log.jsonl"
    write_jsonl(path, [*tickets, *verses, *odd, {"request": {}, "response": {"error": "x"}}])
    return path


def audit(*options: Any) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["init", "--from-log", *map(str, options), "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)
    return found


def test_tasks_are_found_by_their_templates(log: Path) -> None:
    found = audit(log)
    assert (found["requests"], found["distinct"], found["left_out"], found["others"]) == (41, 41, 1, 1)
    assert [(task["requests"], task["checkable"], task["kinds"]) for task in found["tasks"]] == [
        (30, 30, {"label": 30}),
        (10, 0, {"free text": 10}),
    ]
    assert found["checkable"] == found["takeable"] == 30 and found["days"] == 10


def test_the_cost_is_that_of_the_tokens(log: Path) -> None:
    cost = audit(log)["cost"]
    one = (1000 * 0.15 + 100 * 0.60) / 1e6  # gpt-4o-mini's listed price
    assert cost["priced"] == 40 and cost["estimated"] == 0
    assert cost["total"] == pytest.approx(40 * one) and cost["takeable"] == pytest.approx(30 * one)
    assert cost["per_month"] == pytest.approx(3 * 40 * one)
    assert audit(log, "--price", 1, 10)["cost"]["total"] == pytest.approx(41 * (1000 + 1000) / 1e6)


def test_the_audit_is_printed_and_a_recipe_is_written(log: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "new"), "--from-log", str(log)])
    assert done.exit_code == 0, done.output
    assert "2 tasks; requests that belong to none: 1." in done.output and "30 requests (73.2 %)" in done.output
    assert (tmp_path / "new" / "recipe.yaml").is_file()


def test_json_of_an_audit_and_a_recipe_is_one_object(log: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "new"), "--from-log", str(log), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["audit"] == audit(log)
    assert found["folder"] == str(tmp_path / "new") and sum(found["rows"].values()) == 41


@pytest.mark.parametrize("options", [["--from-log", "none.jsonl"], ["--price", "1", "2"], ["new", "--price", "1", "2"]])
def test_wrong_usage_is_said(options: list[str]) -> None:
    done = CliRunner().invoke(main, ["init", *options])
    assert done.exit_code == 2 and "Traceback" not in done.output
