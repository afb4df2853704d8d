"""`potstill suite` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fixtures import light_rows, write_jsonl
from potstill.cli.main import main
from potstill.cli.suite import KINDS
from potstill.components.suites.expected import KINDS as EXPECTED
from potstill.components.suites.folder import read_suite
from potstill.components.suites.importers import IMPORTERS
from potstill.components.suites.importers.csv_file import expected_value


def potstill(*arguments: str | Path, input: str | None = None) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), input=input)


def test_the_kinds_of_the_help_are_those_of_the_code() -> None:
    assert sorted(KINDS) == sorted(IMPORTERS)


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_kind_can_be_added_on_the_command_line(tmp_path: Path, kind: str) -> None:
    value = {"schema": "{}", "calls": "[]", "numeric": "3", "constraints": '[{"name": "punctuation:no_comma"}]'}.get(
        kind, "x"
    )
    assert expected_value(kind, value, "here")["kind"] == kind
    assert potstill("suite", "new", tmp_path / "s").exit_code == 0
    done = potstill("suite", "add", tmp_path / "s", "--prompt", "Hi", "--expect", f"{kind}={value}", "--tag", "a b")
    assert done.exit_code == 0, done.output
    assert read_suite(tmp_path / "s").items[0].expected.kind == kind


def test_a_suite_from_rows_to_a_frozen_version(tmp_path: Path) -> None:
    rows, folder = write_jsonl(tmp_path / "rows.jsonl", light_rows([""])), tmp_path / "lights"
    tools = tmp_path / "tools.json"
    from fixtures import TOOLS

    tools.write_text(json.dumps(TOOLS))
    done = potstill("suite", "import", folder, rows, "--tools", tools, "--tag", "lights")
    assert "12 items added. The suite has 12 items (12 drafts)." in done.output
    assert "0 items added, 12 known already" in potstill("suite", "import", folder, rows, "--tools", tools).output
    done = potstill("suite", "lint", folder)
    assert (done.exit_code, "0 errors" in done.output) == (0, True)
    assert "version 1 has 12 items (12 new)" in potstill("suite", "freeze", folder).output
    assert potstill("suite", "freeze", folder).exit_code == 2
    done = potstill("suite", "add", folder, "--prompt", "2+2?", "--expect", "numeric=4")
    assert "1 item added. The suite has 13 items (1 draft)." in done.output
    assert "1 added, 0 removed, 0 with other labels; 12 the same." in potstill("suite", "diff", folder).output
    found = json.loads(potstill("suite", "diff", folder, "--since", "0", "--json").output)
    assert len(found["added"]) == 13
    done = potstill("suite", "review", folder, input="d\n")
    assert "1 of 1 draft dropped. The suite has 12 items." in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "FOLDER"], "is not an empty folder"),
        (["lint", "NOTHING"], "has no suite.json"),
        (["add", "FOLDER"], "Give a file of items, or --prompt and --expect"),
        (["add", "FOLDER", "--prompt", "x", "--expect", "magic=1"], "unknown kind 'magic'"),
        (["import", "FOLDER", "NOTHING"], "no such file"),
        (["diff", "FOLDER", "--since", "4"], "has no version 4"),
        (["new", "NOTHING", "--name", "a b"], "cannot be the name of a suite"),
    ],
)
def test_wrong_usage_is_one_paragraph(tmp_path: Path, arguments: list[str], message: str) -> None:
    potstill("suite", "new", tmp_path / "s")
    places = {"FOLDER": str(tmp_path / "s"), "NOTHING": str(tmp_path / "nothing")}
    done = potstill("suite", *[places.get(each, each) for each in arguments])
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--prompt", "Hi", "--expect", "exakt=a"),
            "unknown kind 'exakt' of what is expected; the kinds are exact, one_of",
        ),
        (("--prompt", " ", "--expect", "exact=a"), "the prompt is empty"),
        (("--prompt", "Hi", "--expect", 'schema={"a": NaN}'), "is not valid JSON (NaN is not a JSON value)"),
        (("items.jsonl", "--core"), "--tag, --core and --group are for --prompt"),
    ],
)
def test_items_that_cannot_be_added_are_refused(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    CliRunner().invoke(main, ["suite", "new", str(tmp_path / "s")])
    done = CliRunner().invoke(main, ["suite", "add", str(tmp_path / "s"), *options])
    assert done.exit_code == 2 and message in done.output
