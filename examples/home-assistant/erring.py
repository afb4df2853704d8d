"""A teacher that errs on purpose: it answers rows of the workload rightly, except for a known share of four kinds.

value       a call has a value that nobody said
tool        another tool is called, with arguments that fit its schema
truncated   the answer breaks off in the middle; half of these claim to be whole
guess       a call with an invented argument, where the right answer is to ask for it

Each kind has the same number of rows. What becomes of a row is drawn from the seed, its text and the request's own
seed, so several samples of one row err independently of each other.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["KINDS", "ErringTeacher", "Reply"]

KINDS = ("value", "tool", "truncated", "guess")


@dataclass(frozen=True)
class Reply:
    """An assistant message in OpenAI's format, how it ended, and the kind of its error; None for a right answer."""

    message: dict[str, Any]
    finish_reason: str
    kind: str | None


class ErringTeacher:
    """Answers rows that have a completion and a gold.

    Args:
        rows: rows of the workload, as JSON objects.
        tools: its tools.
        share: share of wrong answers.
        seed: seed of all draws.
    """

    def __init__(
        self, rows: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], share: float, seed: int
    ) -> None:
        self.rows = {row["messages"][-1]["content"]: row for row in rows}
        self.schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
        self.seed = seed
        calling = sum(bool(row["completion"].get("tool_calls")) for row in rows)
        asking = sum(row["behaviour"] == "clarify" for row in rows)
        each = share / len(KINDS) * len(rows)
        self.chances = {"value": each / calling, "tool": each / calling, "guess": each / asking}
        self.chances["truncated"] = each / len(rows)
        self.seen: dict[tuple[str, str], list[Any]] = defaultdict(list)
        for row in rows:
            for name, arguments in _calls(row):
                for key, value in arguments.items():
                    self.seen[name, key].append(value)

    def answer(self, prompt: str, sample: int = 0) -> Reply:
        """The answer to the row with this text; `sample` is the seed of the request."""
        row, draw = self.rows[prompt], random.Random(f"{self.seed} {sample} {prompt}")
        possible = {
            "value": bool(_calls(row)),
            "tool": bool(_calls(row)),
            "truncated": True,
            "guess": row["behaviour"] == "clarify",
        }
        at = draw.random()
        for kind in (kind for kind in KINDS if possible[kind]):
            at -= self.chances[kind]
            if at < 0:
                return self._wrong(kind, row, draw)
        return Reply(row["completion"], "stop", None)

    def _wrong(self, kind: str, row: dict[str, Any], draw: random.Random) -> Reply:
        if kind == "truncated":
            return Reply(_cut(row["completion"]), draw.choice(["length", "stop"]), kind)
        if kind == "guess":
            return Reply(_message([self._guess(row, draw)]), "stop", kind)
        calls = _calls(row)
        place = draw.randrange(len(calls))
        name, arguments = calls[place]
        if kind == "value":
            key = draw.choice(sorted(arguments))
            calls[place] = name, arguments | {key: self._other(name, key, arguments[key], draw)}
        else:
            others = [other for other in sorted(self.schemas) if other not in {made for made, _ in calls}]
            calls[place] = self._with_tool(draw.choice(others), arguments, draw)
        return Reply(_message(calls), "stop", kind)

    def _other(self, name: str, key: str, value: Any, draw: random.Random) -> Any:
        """Another value of an argument, from another row."""
        shown = str(value).casefold()
        return draw.choice([other for other in self.seen[name, key] if str(other).casefold() != shown])

    def _with_tool(self, name: str, arguments: dict[str, Any], draw: random.Random) -> tuple[str, dict[str, Any]]:
        """A call of another tool, with the values of the right call where its schema lets them in."""
        schema, made = self.schemas[name], {}
        for key in schema["required"]:
            rule = schema["properties"][key]
            listed = "enum" in rule or "pattern" in rule or rule["type"] != "string"
            same = [value for other, value in arguments.items() if other == key]
            words = [value for value in arguments.values() if isinstance(value, str)]
            made[key] = draw.choice(self.seen[name, key] if listed else same or words or self.seen[name, key])
        return name, made

    def _guess(self, row: dict[str, Any], draw: random.Random) -> tuple[str, dict[str, Any]]:
        """A call that the row's question would have led to, with a guessed value for what is missing."""
        name, missing = row["provenance"]["template"].split("/")[0].split(".")[1:]
        words = row["messages"][-1]["content"].strip(".!?").split()
        made = {}
        for key in self.schemas[name]["required"]:
            rule = self.schemas[name]["properties"][key]
            free = rule["type"] == "string" and "enum" not in rule and "pattern" not in rule
            said = free and key != missing
            made[key] = " ".join(words[-2:]) if said else draw.choice(self.seen[name, key])
        return name, made


def _calls(row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    made = row["completion"].get("tool_calls") or []
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in made]


def _message(calls: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    made = [
        {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}
        for name, arguments in calls
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}


def _cut(message: dict[str, Any]) -> dict[str, Any]:
    """The first half of a message's words, or its calls with half of the last one's arguments."""
    if not message.get("tool_calls"):
        return message | {"content": message["content"][: len(message["content"]) // 2]}
    *whole, last = message["tool_calls"]
    half = last["function"]["arguments"][: len(last["function"]["arguments"]) // 2]
    return message | {"tool_calls": [*whole, last | {"function": last["function"] | {"arguments": half}}]}
