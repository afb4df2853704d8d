"""Items from the Berkeley Function Calling Leaderboard: its data, judged by potstill's own checkers.

BFCL's checker strips punctuation, so that "-1.5" matches "15", pairs parallel calls greedily, and counts an answer that
cannot be read as a right refusal to call.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

from potstill.components.suites.importers.imported import Imported, Source, json_lines
from potstill.components.suites.items import Item
from potstill.core.errors import DataError

__all__ = ["import_bfcl"]

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "long": "integer", "double": "number",
          "hashtable": "object", "hashmap": "object", "arraylist": "array", "char": "string", "any": None}  # fmt: skip
"""BFCL's types of other languages, as JSON Schema has them."""
_MOST_VALUES = 256
_ABSENT = object()


class _LeftOut(Exception):
    """Why an entry becomes no item."""


def import_bfcl(source: Source) -> Imported:
    """The questions of a file of BFCL with one turn; right calls come from possible_answer/ in the same folder.

    A file without right calls, such as BFCL_v3_irrelevance.json, expects an answer in words. Each item is tagged with
    the category in the file's name.
    """
    category = re.sub(r"^BFCL_v\d+_", "", source.path.name).removesuffix(".jsonl").removesuffix(".json")
    answers_file = source.path.parent / "possible_answer" / source.path.name
    irrelevant = "irrelevance" in category
    if not irrelevant and not answers_file.is_file():
        raise DataError(f"{answers_file}: no such file. Put BFCL's folder possible_answer next to the questions.")
    right = {} if irrelevant else {value.get("id"): value.get("ground_truth") for _, value in json_lines(answers_file)}
    found = Imported()
    for where, value in json_lines(source.path):
        try:
            messages, tools = _question(value), [_tool(each) for each in value.get("function", ())]
            calls = [] if irrelevant else _calls(right.get(value.get("id")), tools)
        except _LeftOut as reason:
            found.left_out[str(reason)] += 1
            continue
        item = {"messages": messages, "tools": tools, "expected": {"kind": "calls", "calls": calls}}
        found.items.append(Item.parse({**item, "tags": [category], "source": "BFCL"}, where))
    return found


def _question(value: dict[str, Any]) -> list[Any]:
    turns = value.get("question")
    if not isinstance(turns, list) or not turns:
        raise _LeftOut("the question is not a list of messages")
    if isinstance(turns[0], dict):
        return turns
    if len(turns) != 1:
        raise _LeftOut("the question has several turns")
    return list(turns[0])


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    parameters = _schema(function.get("parameters") or {"type": "object", "properties": {}})
    known = {"name": function.get("name"), "description": function.get("description", ""), "parameters": parameters}
    return {"type": "function", "function": known}


def _schema(value: Any) -> Any:
    """A schema with the types of JSON Schema."""
    if isinstance(value, list):
        return [_schema(each) for each in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for key, each in value.items():
        if key == "type" and isinstance(each, str):
            if known := _TYPES.get(each.lower(), each.lower()):
                out[key] = known
        elif key in ("properties", "patternProperties") and isinstance(each, dict):
            out[key] = {name: _schema(inner) for name, inner in each.items()}
        elif key == "optional":  # a mark of BFCL's Java tools
            continue
        else:
            out[key] = _schema(each) if isinstance(each, dict) else each
    return out


def _calls(truth: Any, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Right calls from BFCL's ground truth: `[{"name": {"argument": [accepted, ...]}}]`; "" says "may be absent"."""
    if not isinstance(truth, list) or not all(isinstance(each, dict) and len(each) == 1 for each in truth):
        raise _LeftOut("there is no ground truth as a list of calls")
    calls = []
    for each in truth:
        ((name, arguments),) = each.items()
        types = _argument_types(name, tools)
        calls.append(
            {
                "name": name,
                "arguments": {key: _accepted(values, types.get(key)) for key, values in arguments.items()},
                "optional": [key for key, values in arguments.items() if "" in values],
            }
        )
    return calls


def _argument_types(name: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
    schema: dict[str, Any] = next((t["function"]["parameters"] for t in tools if t["function"]["name"] == name), {})
    return {key: each.get("type") for key, each in schema.get("properties", {}).items() if isinstance(each, dict)}


def _accepted(values: Iterable[Any], kind: Any) -> list[Any]:
    """The accepted values of an argument, without the mark that it may be absent."""
    found = [each for value in values for each in _expanded(value)]
    present = [each for each in found if each != ""] or ([""] if kind == "string" else [])
    if not present:
        raise _LeftOut("an argument accepts no value")
    return present


def _expanded(value: Any) -> list[Any]:
    """A value; of objects, whose keys have lists of accepted values, every combination."""
    if isinstance(value, dict):
        parts = [_choices(key, each if isinstance(each, list) else [each]) for key, each in value.items()]
        return [{key: each for key, each in pairs if each is not _ABSENT} for pairs in _product(parts)]
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return [list(each) for each in _product([_expanded(each) for each in value])]
    return [value]


def _choices(key: str, options: list[Any]) -> list[tuple[str, Any]]:
    """The key with each accepted value; with `_ABSENT` where it may be left out."""
    present = [(key, inner) for each in options if each != "" for inner in _expanded(each)]
    return present + ([(key, _ABSENT)] if "" in options else [])


def _product(parts: list[list[Any]]) -> list[tuple[Any, ...]]:
    found = list(itertools.islice(itertools.product(*parts), _MOST_VALUES + 1))
    if len(found) > _MOST_VALUES:
        raise _LeftOut(f"an argument accepts more than {_MOST_VALUES} values")
    return found
