"""Hostile sources for `potstill init`: logs, tables, tools and OpenAPI documents."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixtures import TOOLS, light_row
from fuzz.harness import Make
from fuzz.mutate import damaged_bytes, damaged_json, written
from potstill.apps.init.guess import guess_answers
from potstill.apps.init.sources.files import read_sources
from potstill.components.curriculum.sampled import rows_of_tools

__all__ = ["SOURCE_KINDS"]

_ASKED = [{"role": "user", "content": "Is it open?"}]
_SAID = {"role": "assistant", "content": "Yes."}
_CALL = {"type": "function_call", "call_id": "c", "name": "set_light", "arguments": '{"room": "attic"}'}
_RESPONSE = {"model": "m", "created": 1.7e9, "choices": [{"message": _SAID, "finish_reason": "stop"}], "usage": {}}
_ENTRIES: list[Any] = [
    {"request": {"model": "m", "messages": _ASKED, "tools": TOOLS}, "response": _RESPONSE, "session_id": "s"},
    {"model": "m", "instructions": "Be brief.", "input": [*_ASKED, _CALL], "output": [_CALL], "tools": TOOLS},
    {"messages": [*_ASKED, _SAID], "model": "m", "created_at": "2026-01-01T00:00:00Z"},
    light_row("attic", "on"),
    {"question": "Is it open?", "answer": "Yes.", "user_id": 3},
]
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^x+$"}, "b": {"$ref": "#/c/S"}}}
_OPENAPI: dict[str, Any] = {
    "openapi": "3.0.0", "c": {"S": _SCHEMA},
    "paths": {"/a/{id}": {"parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
                          "post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/c/S"}}}}}}},
}  # fmt: skip


def _entries(r: random.Random, folder: Path) -> Callable[[], object]:
    entry = r.choice(_ENTRIES)
    lines = [damaged_json(r, entry) if r.random() < 0.7 else json.dumps(entry).encode() for _ in range(3)]
    path = written(folder / r.choice(["x.jsonl", "x.jsonl", "x.json"]), b"\n".join(lines))

    def call() -> None:
        found = read_sources([path])
        guess_answers([each.row for each in found.requests], right=r.random() < 0.5)

    return call


def _tables(r: random.Random, folder: Path) -> Callable[[], object]:
    text = b'question,answer,group\n"Is it, ""open""?",Yes.,1\nIs it closed?,No.,2\n'
    path = written(folder / r.choice(["x.csv", "x.tsv"]), damaged_bytes(r, text))
    return lambda: read_sources([path])


def _openapi(r: random.Random, folder: Path) -> Callable[[], object]:
    path = written(folder / r.choice(["x.json", "x.yaml"]), damaged_json(r, _OPENAPI))
    return lambda: rows_of_tools(read_sources([path]).tools, 2, 0)


SOURCE_KINDS: list[tuple[str, Make, float]] = [
    ("entries", _entries, 1.0),
    ("tables", _tables, 0.5),
    ("openapi", _openapi, 0.5),
]
