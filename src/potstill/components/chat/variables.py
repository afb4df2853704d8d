"""Write variables, special tokens and the date into a chat template, so that every runtime renders the same text.

Training and evaluation give a template only the messages, the tools and the texts of BOS and EOS. The runtime of the
shipped file gives it more: llama.cpp's server defines `enable_thinking`, `date_string` and `datetime`, and gives
today's date. All of these are set at the top of the template, which is written into the GGUF file.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

from potstill.components.chat.template import compile_template
from potstill.core.errors import RecipeError
from potstill.core.recipe.chat import DATE

__all__ = ["Variable", "reads", "write_variables"]

Variable = bool | int | float | str

_RUNTIME_ONLY = ("enable_thinking", "date_string", "datetime")  # llama.cpp defines them, and training does not
_NOW = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(["'])((?:(?!\1)[^\\])*)\1\s*\)""")
_OTHER_NOW = re.compile(r"strftime_now\s*\(")
_ASKS_FOR_TOOLS = re.compile(r"\btools\s*(?:is\s+(?:not\s+)?(?:un)?defined\b|is\s+(?:not\s+)?none\b|==|!=)")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def reads(source: str, name: str) -> bool:
    """Whether a template mentions a variable."""
    return re.search(rf"(?<![\w.]){re.escape(name)}\b", source) is not None


def write_variables(
    source: str, variables: Mapping[str, Variable], tokens: Mapping[str, str] | None = None, date: str = DATE
) -> str:
    """A template with the values of its variables written into it.

    Args:
        source: Jinja source.
        variables: value of each variable, such as `enable_thinking`.
        tokens: text of the special tokens other than BOS and EOS, by their name, such as `pad_token`.
        date: what `strftime_now` gives, as YYYY-MM-DD.

    Raises:
        RecipeError: the template asks for the date in a way that cannot be replaced.
    """
    source = _NOW.sub(lambda call: _literal(_day(date).strftime(call[2])), source)
    if _OTHER_NOW.search(source):
        raise RecipeError(
            "chat.template: the template calls strftime_now with a pattern that is computed, so the date cannot be "
            "fixed, and the shipped file would write another date than training. Copy the template into a file, write "
            "the pattern as text in quotes, and name the file in chat.template."
        )
    values = {name: _literal(value) for name, value in {**(tokens or {}), **variables}.items()}
    values = dict.fromkeys(_RUNTIME_ONLY, "never_defined") | {"documents": "none"} | values
    lines = [f"{{% set {name} = {value} %}}" for name, value in values.items() if reads(source, name)]
    # transformers defines it always, llama.cpp only where there are tools
    if _ASKS_FOR_TOOLS.search(source) and _takes_no_tools(source):
        lines.append("{% if tools is not defined %}{% set tools = none %}{% endif %}")
    # the line break after a block is not rendered, so what follows stays as it is
    return "".join(f"{line}\n" for line in lines) + source


def _takes_no_tools(source: str) -> bool:
    """Whether the template renders a conversation without tools, as llama.cpp does when it loads it."""
    try:
        user = {"role": "user", "content": "Hi"}
        compile_template(source).render(messages=[user], tools=None, bos_token="", eos_token="")
    except Exception:  # a template is a program from outside, and may fail in any way
        return False
    return True


def _day(date: str) -> datetime.date:
    return datetime.date.fromisoformat(date)


def _literal(value: Variable) -> str:
    """A value as both Jinja and llama.cpp read it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(character, character) for character in value) + '"'
    return repr(value)
