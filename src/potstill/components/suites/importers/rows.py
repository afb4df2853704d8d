"""Items from potstill's own files: items of a suite, and test rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.components.checkers.calls import right_calls
from potstill.components.suites.importers.imported import Imported, Source, json_lines
from potstill.components.suites.items import Item
from potstill.core.errors import DataError
from potstill.core.records import Row, parse_row
from potstill.core.tools import Tool, read_tools

__all__ = ["import_items", "import_rows"]

_NOT_IN_ROWS = ("id",)


def import_items(source: Source) -> Imported:
    """Items of a suite in a JSONL file."""
    return Imported([Item.parse(value, where) for where, value in json_lines(source.path)])


def import_rows(source: Source) -> Imported:
    """Test rows in a JSONL file, or the file of the split in a folder; each is tagged with its behaviour and tools.

    Tools come from the row, else from `source.tools`, else from a tools.json in the same folder. An `id` such as
    `dialogue#turn` puts the turns of a dialogue into one group.
    """
    path = _rows_file(source)
    tools = _tools(source, path)
    found = Imported()
    for where, value in json_lines(path):
        name = value.get("id")
        row = parse_row({k: v for k, v in value.items() if k not in _NOT_IN_ROWS}, tools, False, where)
        expected = _expected(row)
        if expected is None:
            found.left_out["the row does not say which answers are right"] += 1
            continue
        group = row.group or (name.partition("#")[0] if isinstance(name, str) and "#" in name else None)
        labels = {"group": group} if group else {}
        messages = [message.model_dump(mode="json", exclude_none=True) for message in row.messages]
        item = {"messages": messages, "tools": list(row.tools), "expected": expected, "tags": _tags(row), **labels}
        found.items.append(Item.parse(item, where))
    return found


def _rows_file(source: Source) -> Path:
    if not source.path.is_dir():
        return source.path
    names = [f"{source.split}.jsonl", f"{source.split}.jsonl.gz"]
    path = next((source.path / name for name in names if (source.path / name).is_file()), None)
    if path is None:
        raise DataError(f"{source.path}: the folder has no {' or '.join(names)}. Name another with --split.")
    return path


def _tools(source: Source, path: Path) -> tuple[Tool, ...]:
    shared = source.tools or path.with_name("tools.json")
    return read_tools(shared) if source.tools or shared.is_file() else ()


def _expected(row: Row) -> dict[str, Any] | None:
    """What the row calls right, as an item says it."""
    gold = row.gold
    match row.behaviour:
        case "tool_call" | "multi_call":
            calls = [call.model_dump(mode="json") for call in right_calls(row)]
            return {"kind": "calls", "calls": calls} if calls else None
        case "refuse" | "clarify":
            kind = "refusal" if row.behaviour == "refuse" else "clarification"
            return {"kind": kind, **({"match": gold.match} if gold and gold.match else {})}
    if gold and gold.continuation:
        return None
    # a row may accept its pattern, its texts and its completion; the widest of them says what is right
    if gold and gold.match:
        return {"kind": "regex", "pattern": gold.match}
    if gold and gold.equals:
        return {"kind": "one_of", "texts": list(gold.equals)}
    if row.completion and row.completion.content:
        return {"kind": "exact", "text": row.completion.content}
    return None


def _tags(row: Row) -> list[str]:
    tools = (
        dict.fromkeys(call.name for call in right_calls(row)) if row.behaviour in ("tool_call", "multi_call") else ()
    )
    return [row.behaviour, *tools]
