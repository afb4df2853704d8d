"""A model answers a suite: from a folder, a GGUF file and an endpoint; nothing is asked for twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from endpoints import Endpoint, Script, reply
from fixtures import TOOLS
from potstill.apps.suites.targets import Asking, open_target
from potstill.cli.main import main
from potstill.components.suites.folder import add_items, freeze, new_suite, read_suite
from potstill.components.suites.items import Item
from potstill.core.artifacts.suite import SuiteRecord
from potstill.core.artifacts.suite_results import ItemResult, SuiteResults, read_results
from potstill.core.errors import StepError, UsageError

CALL = [("set_light", '{"room": "hall", "state": "on"}')]
GOLD = {"name": "set_light", "arguments": {"room": ["hall"], "state": ["on"]}}


def potstill(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def item(prompt: str, expected: dict[str, Any], tag: str, **more: Any) -> Item:
    value = {"messages": [{"role": "user", "content": prompt}], "expected": expected, "tags": [tag], **more}
    return Item.parse(value, "test")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    items = [
        item("hall on", {"kind": "calls", "calls": [GOLD]}, "call", tools=TOOLS),
        item("2+2", {"kind": "numeric", "value": "4"}, "sum"),
        item("3+3", {"kind": "numeric", "value": "6"}, "sum"),
        item("fly", {"kind": "refusal"}, "refuse", tools=TOOLS),
    ]
    freeze(add_items(new_suite(tmp_path / "suite", SuiteRecord(name="mixed")), items)[0])
    return tmp_path / "suite"


def answers(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    prompt = request["messages"][-1]["content"]
    said = {"2+2": "It is 4.", "3+3": "7", "fly": "Sorry, I cannot fly."}
    return 200, reply(None, CALL, "tool_calls") if prompt == "hall on" else reply(said.get(prompt, "?"))


def evaluate(target: str | Path, suite: Path, *options: str | Path) -> tuple[SuiteResults, list[ItemResult], Path]:
    done = potstill("evaluate", target, "--suite", suite, "--home", suite.parent / "home", *options, "--json")
    assert done.exit_code == 0, done.output
    folder = Path(json.loads(done.stdout)["folder"])
    return (*read_results(folder), folder)


def asked(suite: Path) -> int:
    """Requests in the journal of the only model."""
    (path,) = (suite.parent / "home" / ".answers").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM requests").fetchone()[0])


def test_an_endpoint(suite: Path, endpoint: Callable[[Script], Endpoint]) -> None:
    server = endpoint(answers)
    results, items, folder = evaluate(server.url, suite, "--model", "m")
    assert (results.right, results.items, results.suite_version, results.conditions.runtime) == (3, 4, 1, "endpoint")
    assert [each.right for each in items] == [True, True, False, True]
    assert (items[2].error, items[2].text, items[2].expected) == ("wrong_words", "7", "6")
    assert len(server.requests) == 4

    again, _, same = evaluate(server.url, suite, "--model", "m")
    assert (again, same, len(server.requests)) == (results, folder, 4)  # nothing is asked for twice
    add_items(read_suite(suite), [item("5+5", {"kind": "numeric", "value": "10"}, "sum")])
    grown, _, _ = evaluate(server.url, suite, "--model", "m")
    assert (grown.items, grown.drafts, len(server.requests)) == (5, 1, 5)
    evaluate(server.url, suite, "--model", "m", "--max-new-tokens", "9")
    assert len(server.requests) == 10  # other conditions are other answers

    done = potstill("evaluate", server.url, "--model", "m", "--suite", suite, "--home", suite.parent / "home")
    assert "m on mixed (version 1, 1 draft item)" in done.output
    assert "call       1 of 1  100.0 %" in done.output
    assert "Wrong answers: wrong words 2." in done.output


def test_a_run_that_was_killed_goes_on(suite: Path, endpoint: Callable[[Script], Endpoint]) -> None:
    seen: list[str] = []

    def failing(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        seen.append(request["messages"][-1]["content"])
        return (401, {"error": {"message": "no"}}) if len(seen) == 3 else answers(request)

    server = endpoint(failing)
    options = ["--model", "m", "--parallel", "1", "--home", suite.parent / "home"]
    assert potstill("evaluate", server.url, "--suite", suite, *options).exit_code == 1
    results, _, _ = evaluate(server.url, suite, "--model", "m", "--parallel", "1")
    assert results.right == 3
    assert sorted(seen) == sorted(["hall on", "2+2", "3+3", "3+3", "fly"])


def test_a_folder_in_the_order_of_its_items(suite: Path, tiny_model: Path) -> None:
    options = ("--max-new-tokens", "8", "--batch-size", "2")
    first, items, _ = evaluate(tiny_model, suite, *options)
    assert (first.conditions.runtime, first.conditions.batch_size, first.conditions.context) == ("transformers", 2, 128)
    assert [each.error for each in items if each.finish_reason == "length"] == ["cut_off"] * 4
    assert asked(suite) == 2  # two batches
    more = [item(f"{n}+1", {"kind": "numeric", "value": str(n + 1)}, "sum") for n in range(2)]
    add_items(read_suite(suite), more)
    grown, again, _ = evaluate(tiny_model, suite, *options)
    assert asked(suite) == 3  # the new items are one more batch
    assert again[:4] == items
    assert grown.model == first.model


@pytest.mark.parametrize("name", ["recipe.yaml", "nothing", "FOLDER"])
def test_what_is_no_model(tmp_path: Path, name: str) -> None:
    target = str(tmp_path) if name == "FOLDER" else str(tmp_path / name)
    message = "potstill run RECIPE --until evaluate" if name.endswith("yaml") else "not a model"
    with pytest.raises(UsageError, match=message), open_target(target, Asking()):
        pass


def test_a_package_that_was_changed_is_not_evaluated(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    message = "What is evaluated must be what was packaged"
    with pytest.raises(StepError, match=message), open_target(str(tmp_path), Asking()):
        pass


def test_wrong_usage(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(suite.parent)
    assert "Name the suite with --suite" in potstill("evaluate", "http://localhost:1/v1").output
    done = potstill("evaluate", "http://localhost:1/v1", "--suite", suite)
    assert (done.exit_code, "name the model of this endpoint with --model" in done.output) == (2, True)
    new_suite(suite.parent / "empty", SuiteRecord(name="empty"))
    done = potstill("evaluate", "http://localhost:1/v1", "--suite", suite.parent / "empty")
    assert (done.exit_code, "the suite has no items" in done.output) == (2, True)
