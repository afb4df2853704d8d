"""Built-in suites: seeded, varied, and every item can be answered."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from potstill.cli.main import main
from potstill.cli.suite import BUILTIN as NAMES
from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.suites.builtin import BUILTIN, generate_items
from potstill.components.suites.checks import check_answer, check_expected
from potstill.components.suites.folder import Suite
from potstill.components.suites.lint import lint
from potstill.core.artifacts.suite import SuiteRecord
from potstill.core.errors import UsageError


def test_the_names_of_the_help_are_those_of_the_code() -> None:
    assert sorted(NAMES) == sorted(BUILTIN)


@pytest.mark.parametrize("kind", BUILTIN)
def test_items(kind: str) -> None:
    items = generate_items(kind, 120, 0)
    assert len({item.item_id for item in items}) == 120
    assert generate_items(kind, 60, 0) == items[:60]
    assert {item.item_id for item in generate_items(kind, 60, 1)} != {item.item_id for item in items[:60]}
    check_expected(items)
    suite = Suite(Path(), SuiteRecord(name=kind), tuple(items), ())
    assert [each.what for each in lint(suite) if each.level == "error" or "given" in each.what] == []
    if kind != "units":
        assert min(Counter(tag for item in items for tag in item.tags).values()) >= 3


def test_a_fixed_item_stays_what_it_is() -> None:
    """The items of a seed are part of what users have frozen: another text is another kind, with another version."""
    found = {kind: generate_items(kind, 1, 0)[0].item_id for kind in sorted(BUILTIN)}
    assert found == IDS


IDS = {
    "arithmetic": "29396d9a0e173827",
    "instructions": "1bc13d325fc02557",
    "messy": "762d67edc369e53b",
    "needle": "7f921fd64a933078",
    "refusal": "89c2ce5fe75eeeca",
    "schema": "bdd3d93081d4702f",
    "tools": "017b731ac4f5097e",
    "units": "9001ebb1404621d9",
}


def test_schema_items_want_the_facts_and_not_only_the_form() -> None:
    for item in generate_items("schema", 20, 0):
        properties = item.expected.to_json()["json_schema"]["properties"]
        right = {key: each["const"] for key, each in properties.items()}
        assert check_answer(item, ParsedAnswer((), json.dumps(right))).right
        wrong = {key: "x" if isinstance(value, str) else value + 1 for key, value in right.items()}
        assert not check_answer(item, ParsedAnswer((), json.dumps(wrong))).right


def test_too_many_are_refused() -> None:
    with pytest.raises(UsageError, match="different items of the kind 'units'"):
        generate_items("units", 10_000, 0)


def test_on_the_command_line(tmp_path: Path) -> None:
    arguments = ["suite", "generate", str(tmp_path / "s"), "--kind", "needle", "--count", "9"]
    assert "9 items added" in CliRunner().invoke(main, arguments).output
    assert "0 items added, 9 known already" in CliRunner().invoke(main, arguments).output
