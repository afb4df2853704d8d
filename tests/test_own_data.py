"""The scripts of docs/howto/own-data.md make the rows that the page shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from potstill.components.checkers.golds import check_golds
from potstill.core.records import read_rows
from test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "howto" / "own-data.md"
INTENTS, SPREADSHEET = blocks(PAGE, "python")
SPLITS = ("test", "validation", "train")


def run(script: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_intents_and_slots_become_tools_and_rows(tmp_path: Path) -> None:
    (tmp_path / "utterances.json").write_text(blocks(PAGE, "json")[0])
    shown = run(INTENTS, tmp_path)
    assert shown.splitlines() == ["tools.json: 2 tools", *(f"{split}.jsonl: 1 rows" for split in SPLITS)]
    for split in SPLITS:
        rows = read_rows(tmp_path / f"{split}.jsonl", tools=tmp_path / "tools.json", need_completion=True)
        check_golds(rows)
        assert [row.behaviour for row in rows] == ["tool_call"]
    assert (tmp_path / "train.jsonl").read_text() == blocks(PAGE, "jsonl")[0]


def test_rows_of_one_template_stay_in_one_file(tmp_path: Path) -> None:
    places = ("Oslo", "Lima", "Rome", "Bonn")
    starts = [f"Is it number {number} in " for number in range(30)]
    made = [[{"text": start}, {"text": place, "slot": "city"}] for start in starts for place in places]
    (tmp_path / "utterances.json").write_text(json.dumps({"GetWeather": made}))
    run(INTENTS, tmp_path)
    files = [(tmp_path / f"{split}.jsonl").read_text() for split in SPLITS]
    assert [text.count("\n") for text in files] == [12, 12, 96]
    assert all(sum(start in text for text in files) == 1 for start in starts)


def test_a_spreadsheet_becomes_rows(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text('question,answer\n"Open on Sunday, too?","Yes, from 10 ""sharp""."\n')
    run(SPREADSHEET, tmp_path)
    (row,) = read_rows(tmp_path / "rows.jsonl", need_completion=True)
    assert row.messages[0].content == "Open on Sunday, too?"
    assert row.completion is not None and row.completion.content == 'Yes, from 10 "sharp".'
