"""Items from promptfoo's YAML: each assertion of a test, for each prompt, is an item."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from potstill.components.suites.importers.imported import Imported, Source
from potstill.components.suites.items import Item
from potstill.core.errors import DataError
from potstill.core.files import read_text
from potstill.core.json_values import BadJson, read_foreign

__all__ = ["import_promptfoo"]

_VARIABLE = re.compile(r"\{\{-?\s*(\w+)\s*-?\}\}")
_LOGIC = re.compile(r"\{%|\{\{")


class _LeftOut(Exception):
    """Why an assertion becomes no item."""


def import_promptfoo(source: Source) -> Imported:
    """The tests of a promptfooconfig.yaml: `equals`, `contains` and its kin, `regex` and `is-json`.

    Assertions of one test and prompt are one group, because they judge one answer. Assertions that run code, ask a
    model or compare with embeddings are left out and counted.
    """
    try:
        config = yaml.safe_load(read_text(source.path, advice="Give a promptfooconfig.yaml."))
    except yaml.YAMLError as error:
        raise DataError(f"{source.path}: not valid YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(config, dict) or not isinstance(config.get("tests"), list):
        raise DataError(f"{source.path}: it has no list of tests. Give a promptfooconfig.yaml with its tests in it.")
    found = Imported()
    default = _mapping(config.get("defaultTest"))
    prompts = _prompts(source.path, config.get("prompts") or ["{{prompt}}"])
    for number, test in enumerate(config["tests"], 1):
        if not isinstance(test, dict):
            found.left_out["the test is not in the file itself"] += 1
            continue
        values = {**_mapping(default.get("vars")), **_mapping(test.get("vars"))}
        asserts = [*(default.get("assert") or []), *(test.get("assert") or [])]
        for place, prompt in enumerate(prompts, 1):
            where = f"{source.path}: test {number}, prompt {place}"
            for item in _items(prompt, values, asserts, str(test.get("description") or f"test {number}"), where, found):
                found.items.append(item)
    return found


def _items(
    prompt: str, values: dict[str, Any], asserts: list[Any], name: str, where: str, found: Imported
) -> Iterator[Item]:
    for each in asserts:
        try:
            messages = _messages(_filled(prompt, values))
            expected = _expected(each, values)
        except _LeftOut as reason:
            found.left_out[str(reason)] += 1
            continue
        labels = {"group": f"{name}, {where.rpartition(', ')[2]}", "source": "promptfoo"}
        tag = re.sub(r"[,;|\n]+", " ", name).strip()[:64]
        yield Item.parse({"messages": messages, "expected": expected, "tags": [tag], **labels}, where)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _prompts(path: Path, prompts: Any) -> list[str]:
    texts = []
    for each in prompts if isinstance(prompts, list) else [prompts]:
        text = each.get("raw") or each.get("id") if isinstance(each, dict) else each
        if not isinstance(text, str):
            raise DataError(f"{path}: a prompt must be a text or the name of a file.")
        if text.startswith("file://"):
            text = read_text(path.parent / text.removeprefix("file://"), advice="It is named as a prompt.")
        texts.append(text)
    return texts


def _filled(text: str, values: dict[str, Any]) -> str:
    """The text with its variables; what a template computes cannot be filled in."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise _LeftOut(f"the variable {match[1]!r} has no value")
        return str(values[match[1]])

    if _LOGIC.search(_VARIABLE.sub("", text)):
        raise _LeftOut("the template has more than variables")
    if any(isinstance(values.get(name), list) for name in _VARIABLE.findall(text)):
        raise _LeftOut("a variable has several values")
    return _VARIABLE.sub(value, text)


def _messages(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            value = read_foreign(text)
        except BadJson:
            value = None
        if isinstance(value, list) and value and all(isinstance(each, dict) and "role" in each for each in value):
            return value
    return [{"role": "user", "content": text}]


def _expected(check: Any, values: dict[str, Any]) -> dict[str, Any]:
    kind = str(check.get("type")) if isinstance(check, dict) else "?"
    value = check.get("value") if isinstance(check, dict) else None
    texts = [_filled(str(each), values) for each in (value if isinstance(value, list) else [value])]
    escaped = [re.escape(text) for text in texts]
    match kind:
        case "equals" if not isinstance(value, dict):
            return {"kind": "exact", "text": texts[0]}
        case "icontains" | "icontains-all":
            return {"kind": "contains_all", "texts": texts}
        case "contains" | "contains-all":  # case counts there
            return {"kind": "regex", "pattern": "(?-i:" + "".join(f"(?=[\\s\\S]*{text})" for text in escaped) + ")"}
        case "contains-any" | "icontains-any":
            inside = "|".join(escaped)
            return {"kind": "regex", "pattern": f"(?-i:{inside})" if kind == "contains-any" else inside}
        case "regex":
            return {"kind": "regex", "pattern": f"(?-i:{texts[0]})"}
        case "is-json":
            return {"kind": "schema", "json_schema": value if isinstance(value, dict) else {}}
    raise _LeftOut(f"the assertion {kind!r} is not supported")
