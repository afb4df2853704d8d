"""The Modelfile: the shipped file as `ollama create` takes it.

What Ollama does with a GGUF (read in its source, release 0.31 and later): without TEMPLATE it compares the file's own
chat template with a list of known ones; one within an edit distance of 100 is replaced by Ollama's Go template of that
name, any other is run as it is by llama.cpp. Releases before 0.30 knew no Jinja: without TEMPLATE and without a match,
they send the user's text alone. With TEMPLATE, the Go template is used, unless the file's own template knows tools and
the Go template does not: then the file's own is run. So a template that cannot be written exactly is better left out.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from potstill.components.chat.format import ChatFormat
from potstill.core.errors import RecipeError
from potstill.core.recipe import Recipe
from potstill.stages.package.turns import UnwritableTemplate, find_turns

__all__ = ["write_modelfile"]

_QUOTES = '"""'
_NO_TEMPLATE = (
    "No TEMPLATE: the chat template of this model cannot be written as a Go template that gives the same text, because "
    "{reason}. Ollama 0.31 and later run the chat template inside the GGUF, unless they take it for one they know; "
    "older releases send your text without any roles. If in doubt, run the file with llama-server."
)


def write_modelfile(recipe: Recipe, gguf: Path, chat: ChatFormat, notice: str) -> str:
    """Text of the Modelfile.

    Sampling is set as it was when the file was judged: Ollama's own defaults (temperature 0.8, top_k 40, in older
    releases a repeat penalty) give other answers.

    Args:
        recipe: the recipe.
        gguf: the shipped file; it says whether the runtime itself begins a prompt with the BOS token.
        chat: the student's tokenizer and template.
        notice: text for LICENSE; empty for none.

    Raises:
        RecipeError: `package.system` cannot stand in a Modelfile.
    """
    lines = [f"# {recipe.name}, made by potstill. Take it in with: ollama create {recipe.name.lower()} -f Modelfile"]
    lines += [f"FROM ./{gguf.name}", "", *_template(chat, gguf), ""]
    lines += [f'PARAMETER stop "{token}"' for token in _stop_tokens(chat)]
    lines.append(f"PARAMETER num_ctx {recipe.chat.context}")
    temperature = recipe.generate.temperature
    lines.append(f"PARAMETER temperature {temperature:g}")
    if temperature > 0:
        lines += [f"PARAMETER top_p {recipe.generate.top_p:g}", "PARAMETER top_k 0"]
    lines.append("PARAMETER repeat_penalty 1")
    if recipe.package.system:
        lines += ["", _quoted("SYSTEM", recipe.package.system, "package.system")]
    if notice:
        lines += ["", _quoted("LICENSE", notice, "a licence")]
    return "\n".join(lines) + "\n"


def _template(chat: ChatFormat, gguf: Path) -> list[str]:
    """The TEMPLATE instruction, or comments that say why there is none."""
    try:
        turns = find_turns(chat)
        text = turns.go_template(leave_out=chat.bos if chat.bos and _adds_bos(gguf) else None)
        if not _can_stand(text):
            raise UnwritableTemplate("it has characters that a Modelfile cannot hold")
    except UnwritableTemplate as reason:
        return _comment(_NO_TEMPLATE.format(reason=reason))
    notes = [line for note in turns.notes for line in _comment(note)]
    if turns.notes and turns.tool_joint is None:
        notes += _comment(
            "Ollama 0.31 and later see that the chat template inside the GGUF knows tools, and run that one instead; "
            "older releases refuse tools."
        )
    return [*notes, f"TEMPLATE {_QUOTES}{text}{_QUOTES}"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 100, initial_indent="# ", subsequent_indent="# ")


def _can_stand(text: str) -> bool:
    """Whether Ollama's parser gives the text back: it ends at three quotes and drops what cannot be printed."""
    return _QUOTES not in text and all(c.isprintable() or c in "\n\t" for c in text)


def _quoted(instruction: str, text: str, what: str) -> str:
    if not _can_stand(text):
        raise RecipeError(
            f"{what} cannot stand in an Ollama Modelfile: it holds three double quotes in a row, or a control "
            "character. Take them out."
        )
    return f"{instruction} {_QUOTES}{text}{_QUOTES}"


def _stop_tokens(chat: ChatFormat) -> list[str]:
    """Text of each token that ends an answer, the end-of-sequence token first."""
    others = (chat.tokenizer.id_to_token(i) for i in sorted(chat.stop_ids - {chat.eos_id}))
    return [chat.eos, *(token for token in others if token)]


def _adds_bos(gguf: Path) -> bool:
    """Whether a runtime begins this file's prompts with the BOS token by itself."""
    from gguf import GGUFReader

    field = GGUFReader(gguf).get_field("tokenizer.ggml.add_bos_token")
    return bool(field.contents()) if field else False
