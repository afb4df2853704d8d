"""Judge one answer: is it the right call, or the right words without a call?

The rules are strict on purpose, because a lenient checker hides what a device will meet:

- a call that cannot be read is an attempt that failed, never "no call": it is not a right refusal;
- values must be equal and of the same JSON type: true is not 1, "5" is not 5, "-1.5" is not "15"; 5 and 5.0 are equal;
- several calls are matched to the right ones as a whole (perfect bipartite matching), not first come, first served.

How calls are read out of text is in `potstill.components.chat.tool_calls`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from potstill.components.chat.tool_calls import PARSERS, ParsedAnswer, parse_answer
from potstill.core.errors import DataError
from potstill.core.records import Call, Gold, GoldCall, Row, check_tools

if TYPE_CHECKING:
    import jsonschema_rs

__all__ = [
    "PARSERS",
    "ParsedAnswer",
    "Verdict",
    "calls_match",
    "compile_match",
    "judge",
    "parse_answer",
    "schema_valid",
]

DEFAULT_CLARIFY = r"\?"
# English, in the present, said of oneself or of the request: how a model declines. "Sorry" alone is no refusal, nor is
# "could not find". Rows in other languages need their own `gold.match`. \u2019 is the typographic apostrophe.
DEFAULT_REFUSE = (
    r"\b(?:I|we)(?: (?:am|are)|['\u2019](?:m|re))? (?:(?:just|really|simply|currently) )?"
    r"(?:cannot|can ?not|can['\u2019]t(?! wait)|won['\u2019]t|will not|unable to|not able to|can only)\b"
    r"|\b(?:I|we) (?:(?:do not|don['\u2019]t) have|have no)\b.{0,30}?"
    r"\b(?:tools?|functions?|ways?|ability|access|means|control|permission|devices?)\b"
    r"|\b(?:that|this|it|which)(?: is|['\u2019]s) (?:not|beyond|outside)\b.{0,20}?"
    r"\b(?:possible|supported|available|something I|what I|my)\b"
    r"|\bthere(?: is|['\u2019]s) no (?:tool|function|way|device)\b"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer judged.

    parses        no malformed call in it
    schema_valid  parses, and every call fits its tool's schema (true when there is no call)
    exact         the right answer; None when the row says nothing to judge by
    made_call     it called a tool or tried to: a malformed call counts
    right_name    the names called are the right ones, each as often; None when the row asks for no known call
    """

    parses: bool
    schema_valid: bool
    exact: bool | None
    made_call: bool
    right_name: bool | None
    calls: tuple[Call, ...]
    content: str


def _equal(left: Any, right: Any) -> bool:
    """Equality of JSON values: types must agree, numbers are equal by value, lists and objects go deep."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    return type(left) is type(right) and bool(left == right)


def _fits(call: Call, gold: GoldCall) -> bool:
    """Equal name, no unexpected argument, each value among the accepted, only optional ones left out."""
    if call.name != gold.name or not call.arguments.keys() <= gold.arguments.keys():
        return False
    return all(
        any(_equal(call.arguments[name], value) for value in accepted)
        if name in call.arguments
        else name in gold.optional
        for name, accepted in gold.arguments.items()
    )


def calls_match(calls: Sequence[Call], golds: Sequence[GoldCall]) -> bool:
    """Whether the calls can be paired with the golds one to one, each call fitting its gold; order does not matter.

    Source: augmenting paths, Berge (1957), PNAS 43:842-844; Kuhn (1955), Naval Research Logistics 2:83-97.
    """
    if len(calls) != len(golds):
        return False
    fits = [[j for j, gold in enumerate(golds) if _fits(call, gold)] for call in calls]
    taken: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j in fits[i]:
            if j not in seen:
                seen.add(j)
                if j not in taken or place(taken[j], seen):
                    taken[j] = i
                    return True
        return False

    return all(place(i, set()) for i in range(len(calls)))


def _refuse_remote(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not in the schema itself, and schemas are not fetched")


@lru_cache(maxsize=256)
def _validators(tools_json: str) -> dict[str, jsonschema_rs.Validator]:
    """One validator a tool; a remote $ref is refused, because a check must not depend on the network."""
    import jsonschema_rs

    tools = json.loads(tools_json)
    check_tools(tools, "the row's tools")
    validators = {}
    for tool in tools:
        name = tool["function"]["name"]
        schema = tool["function"].get("parameters", {"type": "object"})
        try:
            validators[name] = jsonschema_rs.validator_for(schema, retriever=_refuse_remote)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            message = str(error).splitlines()[0]
            raise DataError(f"The parameters of tool {name!r} cannot be used as a JSON Schema: {message}.") from None
    return validators


def schema_valid(calls: Sequence[Call], tools: Sequence[dict[str, Any]]) -> bool:
    """Whether every call names one of the tools (OpenAI's shape) and its arguments fit that tool's JSON Schema.

    Raises:
        DataError: a tool's schema is not valid, or refers to one on the network.
    """
    if not calls:
        return True
    validators = _validators(json.dumps(list(tools)))
    return all(call.name in validators and validators[call.name].is_valid(call.arguments) for call in calls)


def compile_match(pattern: str, where: str) -> re.Pattern[str]:
    """A `gold.match` pattern, case ignored. `where` names the row in the message.

    Raises:
        DataError: the pattern is not a valid regular expression.
    """
    try:
        return re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(
            f"{where}: gold.match is not a valid regular expression ({error}): {pattern!r}. Mend it; to look for plain "
            "text, put a backslash before each of . ^ $ * + ? { } [ ] ( ) | and \\."
        ) from None


def _right_calls(row: Row) -> tuple[GoldCall, ...]:
    """The calls that are right: the gold's, else exactly those of the row's own completion."""
    if row.gold is not None and row.gold.calls:
        return row.gold.calls
    made = row.completion.tool_calls if row.completion else ()
    return tuple(
        GoldCall(name=c.function.name, arguments={k: [v] for k, v in json.loads(c.function.arguments).items()})
        for c in made
    )


def _right_words(content: str, row: Row) -> bool | None:
    """Whether an answer in words is right; None when the row does not say."""
    gold = row.gold or Gold()
    where = f"row {row.row_id}"
    if row.behaviour == "clarify":
        return compile_match(gold.match or DEFAULT_CLARIFY, where).search(content) is not None
    if row.behaviour == "refuse":
        declined = compile_match(gold.match or DEFAULT_REFUSE, where).search(content) is not None
        return declined and not content.endswith("?")
    reference = (row.completion.content or None) if row.completion else None
    if reference is not None and content.split() == reference.split():
        return True
    if gold.match:
        return compile_match(gold.match, where).search(content) is not None
    return None if reference is None else False


def judge(text: str, row: Row, tool_format: str = "auto") -> Verdict:
    """Judge a model's text against what the row says is right.

    tool_call, multi_call   the calls match `gold.calls` (without them, the calls of the row's own completion)
    clarify                 no call, and `gold.match` (without it: a question mark) is found in the words
    refuse                  no call, `gold.match` (without it: a plain English refusal) is found, no question at the end
    answer                  no call, and the words equal the completion's, spacing aside, or `gold.match` is found

    A malformed call makes every behaviour wrong.

    Raises:
        UsageError: an unknown format.
        DataError: `gold.match` or a tool's schema is not valid.
    """
    parsed = parse_answer(text, tool_format)
    parses = parsed.parse_error is None
    made_call = bool(parsed.calls) or not parses
    exact: bool | None
    right_name: bool | None = None
    if row.behaviour in ("tool_call", "multi_call"):
        golds = _right_calls(row)
        exact = parses and calls_match(parsed.calls, golds) if golds else None
        if golds:
            right_name = parses and Counter(c.name for c in parsed.calls) == Counter(g.name for g in golds)
    else:
        exact = _right_words(parsed.content, row)
        if exact is not None:
            exact = exact and not made_call
    return Verdict(
        parses=parses,
        schema_valid=parses and schema_valid(parsed.calls, row.tools),
        exact=exact,
        made_call=made_call,
        right_name=right_name,
        calls=parsed.calls,
        content=parsed.content,
    )
