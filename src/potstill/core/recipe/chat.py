"""The recipe's section on how messages become text."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, ValidationInfo

from potstill.core.recipe.fields import ELSEWHERE, Count, Section, path_from_recipe

__all__ = ["DATE", "Chat", "Reasoning"]

DATE = "2024-07-26"
"""The date that templates are given. It is the one that Llama 3's template writes where it knows no other."""


Reasoning = Literal["learn", "drop"]
_BUILT_IN = ("own", "plain")
_GIVEN = ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token")


def _template_from_recipe(template: str, info: ValidationInfo) -> str:
    return template if template in _BUILT_IN else str(path_from_recipe(Path(template), info))


def _known_names(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in variables:
        if not name.isidentifier() or name in _GIVEN:
            raise ValueError(
                f"{name!r} cannot be set: a variable of a template has a name of letters, digits and underscores, and "
                f"is none of {', '.join(_GIVEN)}"
            )
    return variables


def _date_text(value: Any) -> Any:
    """A date as text; YAML reads an unquoted one as a date."""
    return value.isoformat() if type(value) is datetime.date else value


def _real_date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text!r} is not a date; write it as YYYY-MM-DD") from None


class Chat(Section):
    """How messages become text, and how long a row may be."""

    template: Annotated[str, AfterValidator(_template_from_recipe), ELSEWHERE] = "own"
    """Chat template: `own` (the tokenizer's), `plain` (contents joined, no roles), or a Jinja file; default: own."""
    template_kwargs: Annotated[dict[str, StrictBool | StrictInt | StrictFloat | str], AfterValidator(_known_names)] = (
        Field(default_factory=dict)
    )
    """Variables of the chat template, such as `enable_thinking: false`; also written into the GGUF file; default:
    none."""
    date: Annotated[str, BeforeValidator(_date_text), AfterValidator(_real_date)] = DATE
    """Date that a template gets instead of today's, as YYYY-MM-DD; also written into the GGUF file; default:
    2024-07-26."""
    tool_format: Literal["auto", "hermes", "llama3", "mistral"] = "auto"
    """Syntax of tool calls in an answer; `auto` takes it from the chat template; default: auto."""
    reasoning: Reasoning = "learn"
    """Whether the thinking in answers is learnt (`learn`) or left out of rows and answers (`drop`); default: learn."""
    context: Count = 1024
    """Maximum length of prompt and answer together, in tokens; default: 1024."""

    def is_elsewhere(self, name: str) -> bool:
        """Whether a field is counted elsewhere: of `template`, only the path of a file is."""
        return super().is_elsewhere(name) and not (name == "template" and self.template in _BUILT_IN)
