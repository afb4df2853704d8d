"""A reader of Modelfiles by Ollama's rules: quotes have no escapes, and a quoted value ends with a line."""

from __future__ import annotations


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Instructions and their values in order; a PARAMETER has its own name."""
    found, lines = [], text.split("\n")
    while lines:
        line = lines.pop(0)
        if not line.strip() or line.startswith("#"):
            continue
        name, _, value = line.removeprefix("PARAMETER ").partition(" ")
        while (whole := _unquoted(value.strip())) is None:
            value += "\n" + lines.pop(0)
        found.append((name, whole))
    return found


def _unquoted(value: str) -> str | None:
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            whole = len(value) >= 2 * len(quotes) and value.endswith(quotes)
            return value[len(quotes) : -len(quotes)] if whole else None
    return value
