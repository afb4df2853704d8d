"""Items from a CSV file with a header."""

from __future__ import annotations

import csv
import io
from typing import Any

from potstill.components.suites.expected import KINDS
from potstill.components.suites.importers.imported import Imported, Source, user_item
from potstill.core.errors import DataError
from potstill.core.files import read_text
from potstill.core.json_values import BadJson, read_strictly
from potstill.core.words import nearest_hint

__all__ = ["expected_value", "import_csv"]

_COLUMNS = ("prompt", "expected", "kind", "system", "tags", "core", "group", "weight", "source")
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


def import_csv(source: Source) -> Imported:
    """Items from a CSV file, one per line.

    Columns: `prompt` and `expected`, and optionally `kind` (default: exact), `system`, `tags` (separated by ";"),
    `core` (true or false), `group`, `weight` and `source`. Several texts of one_of and contains_all are separated by
    "|"; the schema of schema, the calls of calls and the rules of constraints are JSON.
    """
    text = read_text(source.path, advice="Give the path of a CSV file.")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    found = Imported()
    try:
        _require_columns(source, reader.fieldnames or ())
        for line in reader:
            found.items.append(_item(line, f"{source.path}:{reader.line_num}"))
    except csv.Error as error:
        raise DataError(f"{source.path}:{reader.line_num}: not valid CSV ({error}).") from None
    return found


def _require_columns(source: Source, names: Any) -> None:
    missing = [name for name in ("prompt", "expected") if name not in names]
    if missing:
        raise DataError(
            f"{source.path}: the header has no column {missing[0]!r}. The first line must name the columns: prompt, "
            "expected, and what else there is."
        )
    if unknown := [name for name in names if name not in _COLUMNS]:
        raise DataError(f"{source.path}: unknown column {unknown[0]!r}; {nearest_hint(unknown[0], _COLUMNS)}.")


def _item(line: dict[str, Any], where: str) -> Any:
    if None in line or None in line.values():
        raise DataError(
            f"{where}: the line has another number of cells than the header. Put cells with commas in quotes."
        )
    core = line.get("core", "").strip().lower()
    if core not in (*_YES, *_NO):
        raise DataError(f"{where}: core is {core!r}, and must be true or false.")
    labels: dict[str, Any] = {"core": core in _YES}
    labels["tags"] = [tag.strip() for tag in line.get("tags", "").split(";") if tag.strip()]
    labels |= {name: line[name].strip() for name in ("group", "source") if line.get(name, "").strip()}
    if line.get("weight", "").strip():
        labels["weight"] = line["weight"].strip()
    kind = line.get("kind", "").strip() or "exact"
    expected = expected_value(kind, line["expected"], where)
    return user_item(line["prompt"], expected, where, system=line.get("system", ""), **labels)


def expected_value(kind: str, text: str, where: str) -> dict[str, Any]:
    """What is expected, from its kind and one text: texts separated by "|", or JSON where the kind needs an object.

    Raises:
        DataError: there is no such kind, or the text is not JSON where it must be.
    """
    if kind not in KINDS:
        raise DataError(f"{where}: unknown kind {kind!r} of what is expected; the kinds are {', '.join(KINDS)}.")
    key = {
        "exact": "text", "one_of": "texts", "regex": "pattern", "schema": "json_schema", "calls": "calls",
        "numeric": "value", "refusal": "match", "clarification": "match", "contains_all": "texts",
        "constraints": "rules",
    }.get(kind, "value")  # fmt: skip
    value: Any = text.strip()
    if kind in ("refusal", "clarification") and not value:
        return {"kind": kind}
    if key == "texts":
        value = [part.strip() for part in value.split("|") if part.strip()]
    elif kind in ("schema", "calls", "constraints"):
        try:
            value = read_strictly(value)
        except BadJson as error:
            raise DataError(f"{where}: what is expected as {kind} is not valid JSON ({error}).") from None
    return {"kind": kind, key: value}
