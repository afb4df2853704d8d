"""Requests from rows and tables whose columns have names of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from potstill.apps.init.sources.found import Request
from potstill.core.errors import DataError
from potstill.core.records import Row, parse_row

__all__ = ["Columns", "guess_columns", "is_row", "read_row", "read_table_row"]

_PROMPTS = ("prompt", "question", "query", "instruction", "input", "text", "utterance", "user", "request", "message")
_ANSWERS = ("answer", "completion", "response", "output", "label", "intent", "reply", "assistant", "target", "category")
_SYSTEMS = ("system", "system_prompt", "instructions")
_GROUPS = ("group", "group_id", "conversation_id", "session_id", "user_id", "customer_id", "template")

_ROW_FORMATS = ("messages", "conversations", "gold", "completion", "generation")
"""Keys of which one is in every row of a known format."""
_KEPT = (
    *(name for name in Row.model_fields if name not in ("where", "provenance")), "conversations", "functions",
    "system", "prompt", "instruction", "input", "output", "generation", "system_prompt",
)  # fmt: skip


class Columns(dict[str, str]):
    """Which column of a table is the `prompt`, the `answer`, the `system` message and the `group`."""

    @property
    def sentence(self) -> str:
        """The columns in words."""
        return ", ".join(f"{role} from {name!r}" for role, name in self.items())


def is_row(value: Mapping[str, Any]) -> bool:
    """Whether an object is a row in a format that potstill reads."""
    return any(key in value for key in _ROW_FORMATS) or ("instruction" in value and "output" in value)


def read_row(value: Mapping[str, Any], where: str) -> Request:
    """The request of a row; keys that a row does not have go into its provenance.

    Raises:
        DataError: the row is not valid.
    """
    others = {key: each for key, each in value.items() if key not in _KEPT and key != "provenance" and each is not None}
    own = value.get("provenance") if isinstance(value.get("provenance"), Mapping) else {}
    row = {key: each for key, each in value.items() if key in _KEPT}
    row["provenance"] = {**others, **(own or {})}
    if "group" not in row and (name := next((key for key in _GROUPS if others.get(key)), None)):
        row["group"] = str(others[name])
    return Request(parse_row(row, (), False, where))


def guess_columns(names: Sequence[str], where: str) -> Columns:
    """The columns of a table by their names; one column alone is the prompt, and of two the first.

    Raises:
        DataError: no column has the name of a prompt.
    """
    if not names:
        raise DataError(f"{where}: the first entry is empty. Give it a 'prompt', and an 'answer' if one is known.")
    plain = {name.strip().casefold(): name for name in reversed(names)}
    found = Columns()
    for role, known in (("prompt", _PROMPTS), ("answer", _ANSWERS), ("system", _SYSTEMS), ("group", _GROUPS)):
        name = next((plain[each] for each in known if each in plain and plain[each] not in found.values()), None)
        if name is not None:
            found[role] = name
    if "prompt" not in found and len(names) <= 2:
        found = Columns(zip(("prompt", "answer"), names, strict=False))
    if "prompt" not in found:
        raise DataError(
            f"{where}: none of the columns {', '.join(map(repr, names[:12]))} has a name that says it holds the "
            "prompts. Rename that column to 'prompt', and the one with the right answers, if there is one, to 'answer'."
        )
    return found


def read_table_row(value: Mapping[str, Any], columns: Columns, where: str) -> Request:
    """The request in a line of a table.

    Raises:
        DataError: the line has no prompt.
    """
    prompt = value.get(columns["prompt"])
    if isinstance(prompt, dict | list):
        raise DataError(f"{where}: the column {columns['prompt']!r} must hold text, found {type(prompt).__name__}.")
    texts = {role: _text(value.get(name)) for role, name in columns.items()}
    if not texts["prompt"]:
        raise DataError(f"{where}: the column {columns['prompt']!r} is empty.")
    system = [{"role": "system", "content": texts["system"]}] if texts.get("system") else []
    row: dict[str, Any] = {"messages": [*system, {"role": "user", "content": texts["prompt"]}]}
    if texts.get("answer"):
        row["completion"] = {"role": "assistant", "content": texts["answer"]}
    if texts.get("group"):
        row["group"] = texts["group"]
    return Request(parse_row(row, (), False, where))


def _text(value: Any) -> str:
    """The text of a cell; a table in JSONL may have numbers, and objects as answers."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
