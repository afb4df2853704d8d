"""Chat templates: which one counts, and how it is rendered.

Templates run in Jinja's immutable sandbox, with the settings and helpers that Hugging Face templates are written for
(`trim_blocks`, `lstrip_blocks`, `tojson`, `raise_exception`, `strftime_now`). So torch and transformers are not needed.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from potstill.core.errors import RecipeError
from potstill.core.files import read_json_object

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["PLAIN_TEMPLATE", "compile_template", "own_template", "read_template"]

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def own_template(folder: Path) -> str | None:
    """The chat template of a model's folder; None where it has none.

    It is chat_template.jinja, or else the one in tokenizer_config.json. Of several named ones there, `tool_use` counts,
    or else `default`.

    Raises:
        RecipeError: tokenizer_config.json cannot be read.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = read_json_object(folder / "tokenizer_config.json", missing_ok=True, error=RecipeError)
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("tool_use") or named.get("default")
    return template if isinstance(template, str) else None


def read_template(folder: Path, choice: str | Path) -> str:
    """The source of a chat template.

    Args:
        folder: folder of the model.
        choice: `own` (the model's), `plain` (contents joined, without roles), or the path of a Jinja file.

    Raises:
        RecipeError: there is no such template.
    """
    if choice == "plain":
        return PLAIN_TEMPLATE
    if choice != "own":
        path = Path(choice)
        if not path.is_file():
            raise RecipeError(f"chat.template: {choice}: no such file. Use own, plain, or the path of a Jinja file.")
        return path.read_text(encoding="utf-8")
    template = own_template(folder)
    if template is None:
        raise RecipeError(
            f"{folder}: the tokenizer has no chat template. "
            "Set chat.template: plain to train on text without roles, or give a Jinja file."
        )
    return template


def compile_template(source: str) -> Template:
    """A template that is ready to render."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise ValueError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
