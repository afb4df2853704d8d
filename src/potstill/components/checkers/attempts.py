"""Calls that stand in the words of an answer: in a markup that the runtime does not read, such as JSON in a code fence.

"I can't do that" followed by such a call is not a refusal to its user, and a runtime of another format would make the
call. A sentence that merely names a tool is not a call.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

__all__ = ["has_attempt"]

_NAME_KEYS = r"(?:name|function|function_name|tool|tool_name|tool_call|action|recipient_name|api|function_call)"
_ARGUMENT_KEYS = r"(?:(?:tool_|function_)?(?:arguments|parameters|args|params|input)|kwargs|inputs|action_input)"
_QUOTE = r"\\?[\"']"

# a marker with a call behind it, rather than with words of a sentence
_MARKUP = re.compile(
    r"<(?:\w+:)?(?:tool_?calls?|function_?calls?|tools?|tool_use|tool_request|execute_tool|action|invoke)>\s*(?:[{\[<]|\w+\s*[({\[<])"
    r"|<function=[\w.-]+>|<(?:\w+:)?invoke name=|<(?:tool|function)(?:_call)? name="
    r"|\[(?:TOOL_CALLS?|TOOL_REQUEST|tool_calls?)\]\s*(?:[{\[]|\w+\s*[({\[])"
    r"|\b(?:START_ACTION|functools)\b\W{0,4}\["
    r"|<\|(?:python_tag|tool_calls?|START_ACTION|plugin|action_start|tool_call_start|tool_call_begin|tools_prefix"
    r"|tool_calls_section_begin)\|>\s*(?![a-z ]+[a-z]\b[ .,])\S"
    r"|<\|tool_call>call:|<start_function_call>|<\uff5ctool\u2581calls?\u2581begin\uff5c>|\u273fFUNCTION\u273f"
    r"|\bto=functions\.\w+|```(?:tool_code|tool_calls?|function_call)\s|^\s*>>>\s?[\w.]+\s*[\n({]"
    r"|^\s*Action:\s*[\w.-]+\s*\n\s*Action Input:",
    re.MULTILINE,
)
# an object with the keys of a call, whatever the name
_ANY_JSON = re.compile(
    rf"{_QUOTE}{_NAME_KEYS}{_QUOTE}\s*:\s*{_QUOTE}[\w.-]+{_QUOTE}[^{{}}]{{0,80}}{_QUOTE}{_ARGUMENT_KEYS}{_QUOTE}\s*:"
    rf"|{_QUOTE}{_ARGUMENT_KEYS}{_QUOTE}\s*:\s*\{{[^{{}}]{{0,400}}\}}[^{{}}]{{0,80}}{_QUOTE}{_NAME_KEYS}{_QUOTE}\s*:\s*{_QUOTE}[\w.-]+"
    rf"|{_QUOTE}(?:tool_calls|function_call)\\?[\"']\s*:\s*[\[{{]"
)


def has_attempt(text: str, tools: Collection[str], *, only_known: bool) -> bool:
    """Whether the text holds a call.

    Args:
        text: the words of an answer.
        tools: names of the tools that the model was given.
        only_known: whether JSON is a call only if it names one of the tools, since the answer may be JSON itself.
    """
    if _MARKUP.search(text) or (not only_known and _ANY_JSON.search(text)):
        return True
    return bool(tools) and any(form.search(text) for form in _of_tools(tuple(sorted(tools))))


@lru_cache(maxsize=64)
def _of_tools(tools: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Patterns of calls of these tools: as JSON or a Python dictionary, by the key, as YAML, and as code."""
    name = "(?:" + "|".join(map(re.escape, tools)) + ")"
    json_name = rf"{_QUOTE}{_NAME_KEYS}{_QUOTE}\s*:\s*{_QUOTE}(?:functions\.)?{name}{_QUOTE}"
    arguments = rf"{_QUOTE}{_ARGUMENT_KEYS}{_QUOTE}\s*:"
    code = rf"(?<![\w./-])(?:functions\.|default_api\.|tools\.)?{name}(?:\.call)?"
    return (
        re.compile(rf"{json_name}.{{0,400}}?{arguments}|{arguments}.{{0,400}}?{json_name}", re.DOTALL),
        re.compile(rf"\{{\s*{json_name}\s*(?:,\s*{_QUOTE}(?:type|id){_QUOTE}\s*:\s*{_QUOTE}[\w-]*{_QUOTE}\s*)?\}}"),
        re.compile(rf"[{{\[,]\s*{_QUOTE}{name}{_QUOTE}\s*:\s*\{{"),
        re.compile(rf"^\s*(?:- )?{_NAME_KEYS}:\s*{name}\s*\n\s*{_ARGUMENT_KEYS}:", re.MULTILINE | re.IGNORECASE),
        re.compile(
            rf"\b(?i:Action|Tool|Function)(?i:[ _]call)?:\s*{name}\b\s*(?:[({{\[]|$)|>>>\s?{name}\b", re.MULTILINE
        ),
        re.compile(
            rf"<{name}(?:\s+\w+\s*=[^<>]*|\s*)/?>|(?:\bcall:|[$@/]){name}\s*[{{(]"
        ),  # as a tag, or behind a sign
        re.compile(rf"(?<![\w./-]){name}\s*:?\s*\{{\s*(?:{_QUOTE}|\}})"),  # followed by an object
        re.compile(rf"{code}\(\s*(?:[\"'\[{{\d-]|\w+\s*=)"),  # with arguments
        re.compile(
            rf"(?:^|[.!?:;]\s|[`\[>]|^```\w*\n)\s*(?:await\s+)?{code}(?:\([^()\n]*\)| \(\)| \(\w+\s*=[^()\n]*\))"
            r"[`;\]]*\s*(?:$|```|</)",
            re.MULTILINE,
        ),  # alone
        re.compile(rf"(?:^|[.!?:;]\s|`)\s*{name}(?:\s+(?:--)?\w+=[^\s=])+", re.MULTILINE),  # as a command
    )
