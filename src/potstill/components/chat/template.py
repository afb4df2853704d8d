"""Chat templates: which one is used, and how it is rendered.

Templates run in Jinja's immutable sandbox with limits (see `sandbox`), and with the settings and helpers that Hugging
Face templates are written for (`trim_blocks`, `lstrip_blocks`, `tojson`, `raise_exception`, `strftime_now`,
`{% generation %}`). So torch and transformers are not needed.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from potstill.components.chat.tokenizer_files import read_tokenizer_config
from potstill.core.errors import RecipeError
from potstill.core.files import read_text
from potstill.core.recipe.chat import DATE

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["PLAIN_TEMPLATE", "TEMPLATE_FILES", "Templates", "compile_template", "own_templates", "read_templates"]

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
_TOOL_USE = "additional_chat_templates/tool_use.jinja"
TEMPLATE_FILES = ("chat_template.jinja", _TOOL_USE)
"""Files of a model's folder that hold chat templates; tokenizer_config.json may hold some too."""


class Templates(NamedTuple):
    """The Jinja sources of a model; `tool_use` is for rows with tools, where they have a template of their own."""

    default: str
    tool_use: str | None = None


def own_templates(folder: Path) -> Templates | None:
    """The chat templates of a model's folder; None where it has none.

    Files take precedence over tokenizer_config.json. Of several named templates, `default` is used, and `tool_use` for
    rows with tools.

    Raises:
        RecipeError: one of the files cannot be read, or holds no text.
    """
    found = read_tokenizer_config(folder).get("chat_template")
    named: dict[str, str | None]
    if isinstance(found, list):
        named = {entry["name"]: entry["template"] for entry in found}
    else:
        named = dict(found) if isinstance(found, dict) else {"default": found}
    for name, file in zip(("default", "tool_use"), TEMPLATE_FILES, strict=True):
        if (folder / file).is_file():
            named[name] = read_text(folder / file, error=RecipeError)
    default, tool_use = (named.get(name) for name in ("default", "tool_use"))
    if default is None:
        return Templates(tool_use) if tool_use is not None else None
    return Templates(default, tool_use)


def read_templates(folder: Path, choice: str | Path) -> Templates:
    """The sources of the chat templates.

    Args:
        folder: folder of the model.
        choice: `own` (the model's), `plain` (contents joined, without roles), or the path of a Jinja file.

    Raises:
        RecipeError: there is no such template.
    """
    if choice == "plain":
        return Templates(PLAIN_TEMPLATE)
    if choice != "own":
        path = Path(choice)
        if not path.is_file():
            raise RecipeError(f"chat.template: {choice}: no such file. Use own, plain, or the path of a Jinja file.")
        return Templates(read_text(path, error=RecipeError))
    templates = own_templates(folder)
    if templates is None:
        raise RecipeError(
            f"{folder}: the tokenizer has no chat template. "
            "Set chat.template: plain to train on text without roles, or give a Jinja file."
        )
    return templates


def compile_template(source: str) -> Template:
    """A template that is ready to render, with limits of time and size."""
    from potstill.components.chat.sandbox import LimitedEnvironment

    environment = LimitedEnvironment()
    environment.add_filter("tojson", _to_json)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise ValueError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.date.fromisoformat(DATE).strftime(pattern)
