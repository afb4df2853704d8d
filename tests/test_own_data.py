"""The scripts of docs/howto/own-data.md make the rows that the page shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from potstill.components.checkers.golds import check_golds
from potstill.core.records import read_rows
from test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "howto" / "own-data.md"
INTENTS, SPREADSHEET = blocks(PAGE, "python")


def run(script: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_intents_and_slots_become_tools_and_rows(tmp_path: Path) -> None:
    (tmp_path / "utterances.json").write_text(blocks(PAGE, "json")[0])
    assert run(INTENTS, tmp_path) == "2 tools, 3 rows\n"
    rows = read_rows(tmp_path / "rows.jsonl", tools=tmp_path / "tools.json", need_completion=True)
    check_golds(rows)
    assert (tmp_path / "rows.jsonl").read_text().splitlines()[0] == blocks(PAGE, "jsonl")[0].strip()
    assert [row.behaviour for row in rows] == ["tool_call"] * 3


def test_a_spreadsheet_becomes_rows(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text('question,answer\n"Open on Sunday, too?","Yes, from 10 ""sharp""."\n')
    run(SPREADSHEET, tmp_path)
    (row,) = read_rows(tmp_path / "rows.jsonl", need_completion=True)
    assert row.messages[0].content == "Open on Sunday, too?"
    assert row.completion is not None and row.completion.content == 'Yes, from 10 "sharp".'
