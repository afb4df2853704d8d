"""Guesses what is right in rows: behaviours and golds from their answers, and the gates that can then be judged."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.pattern import check_clarify, check_refuse
from potstill.core.json_values import BadJson, read_strictly
from potstill.core.records import Behaviour, Gold, GoldCall, Row

__all__ = ["Answers", "guess_answers", "is_json_object"]

_SHORT = 80  # characters; longer answers are wordings, of which many are right
_FINAL_NUMBER = re.compile(  # as in GSM8K: the reasoning, and then a line such as `#### 1,200`
    r"####[ \t]*\$?(?P<sign>-?)\$?(?P<whole>\d{1,3}(?:,\d{3})+|\d{1,18})(?:\.(?P<part>\d{1,18}))?\s*$"
)
_FEW = 3  # times that a class is named in the mean


@dataclass(frozen=True)
class Answers:
    """Rows with their behaviours and golds, and what their answers are.

    kinds    what the answer of each row is: a behaviour with calls, `clarify`, `refuse`, `label`, `JSON`, `short
             answer`, `final number`, `free text` or `no answer`
    """

    rows: list[Row]
    kinds: list[str]

    @property
    def counts(self) -> Counter[str]:
        """Number of rows of each kind."""
        return Counter(self.kinds)


def guess_answers(rows: Sequence[Row], *, right: bool) -> Answers:
    """Give rows the behaviour and the gold that their answers suggest; what a row says itself stays.

    Args:
        rows: rows with or without answers.
        right: whether the answers are right; answers of a model in production may be wrong, and give no gold.
    """
    texts = [row.completion.content or "" for row in rows if row.completion and not row.completion.tool_calls]
    distinct = {text.strip().casefold() for text in texts}
    labels = distinct if len(texts) >= _FEW * len(distinct) and max(map(len, distinct), default=0) <= _SHORT else set()
    kinds = [_kind(row, labels) for row in rows]
    return Answers([_guessed(row, kind, right=right) for row, kind in zip(rows, kinds, strict=True)], kinds)


def _kind(row: Row, labels: set[str]) -> str:
    """What the answer of a row is, in a word."""
    if row.completion is None:
        return "no answer" if row.gold is None and row.behaviour == "answer" else row.behaviour
    if row.completion.tool_calls:
        return "tool_call" if len(row.completion.tool_calls) == 1 else "multi_call"
    text = (row.completion.content or "").strip()
    if row.tools and row.behaviour == "answer":
        answer = ParsedAnswer((), text)
        if check_clarify(answer, row):
            return "clarify"
        if check_refuse(answer, row):
            return "refuse"
    if row.behaviour in ("clarify", "refuse"):
        return row.behaviour
    if text.casefold() in labels:
        return "label"
    if is_json_object(text):
        return "JSON"
    if _FINAL_NUMBER.search(text):
        return "final number"
    return "short answer" if len(text) <= _SHORT and "\n" not in text else "free text"


def _same_final_number(text: str) -> str:
    """A pattern for answers that end in the same number after `####`; commas and a currency do not count."""
    found = _FINAL_NUMBER.search(text)
    assert found is not None
    whole = f"{int(found['whole'].replace(',', '')):,}".replace(",", ",?")
    part = (found["part"] or "").rstrip("0")
    rest = rf"\.{part}0*" if part else r"(?:\.0+)?"
    return rf"####\s*\$?{found['sign']}\$?{whole}{rest}(?![.,/]?\d)[^#]*$"


def is_json_object(text: str) -> bool:
    """Whether a text is a JSON object or a list."""
    try:
        return isinstance(read_strictly(text), dict | list)
    except BadJson:
        return False


def _guessed(row: Row, kind: str, *, right: bool) -> Row:
    behaviours: dict[str, Behaviour] = {
        "tool_call": "tool_call", "multi_call": "multi_call", "clarify": "clarify", "refuse": "refuse",
    }  # fmt: skip
    changes: dict[str, object] = {"behaviour": behaviours.get(kind, row.behaviour)}
    if row.gold is None and right and row.completion is not None:
        if row.completion.tool_calls:
            calls = (entry.call for entry in row.completion.tool_calls)
            golds = [GoldCall(name=c.name, arguments={key: [v] for key, v in c.arguments.items()}) for c in calls]
            changes["gold"] = Gold(calls=tuple(golds))
        elif kind in ("label", "short answer", "JSON"):
            changes["gold"] = Gold(equals=((row.completion.content or "").strip(),))
        elif kind == "final number":
            changes["gold"] = Gold(match=_same_final_number(row.completion.content or ""))
        elif kind == "free text":
            changes["gold"] = Gold(continuation=True)
    return row.model_copy(update=changes)
