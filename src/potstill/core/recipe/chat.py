"""The recipe's section on how messages become text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ValidationInfo

from potstill.core.recipe.fields import ELSEWHERE, Count, Section, path_from_recipe

__all__ = ["Chat"]

_BUILT_IN = ("own", "plain")


def _template_from_recipe(template: str, info: ValidationInfo) -> str:
    return template if template in _BUILT_IN else str(path_from_recipe(Path(template), info))


class Chat(Section):
    """How messages become text, and how long a row may be."""

    template: Annotated[str, AfterValidator(_template_from_recipe), ELSEWHERE] = "own"
    """Chat template: `own` (the tokenizer's), `plain` (contents joined, no roles), or a Jinja file; default: own."""
    tool_format: Literal["auto", "hermes", "llama3", "mistral"] = "auto"
    """Syntax of tool calls in an answer; `auto` takes it from the chat template; default: auto."""
    context: Count = 1024
    """Maximum length of prompt and answer together, in tokens; default: 1024."""

    def is_elsewhere(self, name: str) -> bool:
        """Whether a field is counted elsewhere: of `template`, only the path of a file is."""
        return super().is_elsewhere(name) and not (name == "template" and self.template in _BUILT_IN)
