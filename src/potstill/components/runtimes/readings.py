"""Two readings of an answer: the one that the runtime gives its users, and potstill's own of the same text."""

from __future__ import annotations

import json
from dataclasses import replace

from potstill.components.chat.tool_calls import ParsedAnswer, parse_answer
from potstill.components.runtimes import Answer
from potstill.core.records import Row

__all__ = ["as_served", "own_reading", "same_reading", "shown"]


def own_reading(text: str, row: Row, tool_format: str) -> ParsedAnswer:
    """Calls and words that potstill reads in a model's text."""
    only_known = row.behaviour == "answer"  # which may be JSON itself
    return parse_answer(text, tool_format, row.tools, only_known=only_known)


def as_served(answer: Answer, row: Row, tool_format: str) -> ParsedAnswer | None:
    """Calls and words that a user of the runtime gets; None where the runtime gives the text alone.

    Calls that the runtime leaves in the words are of no use to its users, and words with them are no answer in words:
    they count as malformed. Thinking in the words is skipped, as in every other answer.
    """
    served = answer.parsed
    if served is None or served.parse_error:
        return served
    words = own_reading(served.content, row, tool_format)
    left = words.parse_error or ("the runtime does not read the call in the words" if words.calls else None)
    return replace(served, content=words.content, parse_error=left)


def same_reading(first: ParsedAnswer, second: ParsedAnswer) -> bool:
    """Whether two readings have the same calls, and the same words but for white space."""
    return (
        first.calls == second.calls
        and first.content.split() == second.content.split()
        and (first.parse_error is None) == (second.parse_error is None)
    )


def shown(answer: ParsedAnswer) -> str:
    """A reading, for a person to read: each call on a line, then the words, then what could not be read."""
    calls = (f"{c.name}({json.dumps(c.arguments, ensure_ascii=False)})" for c in answer.calls)
    problem = f"[not readable: {answer.parse_error}]" if answer.parse_error else ""
    return "\n".join(part for part in (*calls, answer.content, problem) if part)
