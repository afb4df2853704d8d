"""The Modelfile, from which `ollama create` makes a model of the shipped file.

What Ollama does with a GGUF, according to its source (release 0.31 and later): without TEMPLATE, it compares the file's
chat template with a list of known ones. A template within an edit distance of 100 of a known one is replaced by
Ollama's Go template of that name; llama.cpp runs any other as it is. Releases before 0.30 do not support Jinja: without
TEMPLATE and without a match, they send only the user's text. With TEMPLATE, the Go template is used, unless the file's
template supports tools and the Go template does not; then the file's template is run. So a template that cannot be
written exactly is left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from potstill.components.chat.format import ChatFormat
from potstill.components.packages.modelfile import modelfile_stops
from potstill.core.errors import RecipeError
from potstill.core.recipe.fields import fits_modelfile
from potstill.stages.package.stage import PackageInputs
from potstill.stages.package.turns import UnwritableTemplate, find_turns, prints_schemas
from potstill.stages.package.workload import Workload

__all__ = ["write_modelfile"]

_QUOTES = '"""'
_NO_TEMPLATE = (
    "No TEMPLATE: no Go template gives the same text as the chat template of this model, because {reason}. Ollama 0.31 "
    "and later run the chat template inside the GGUF, unless it looks like one of their own; older releases send your "
    "text without any roles. If in doubt, run the file with llama-server."
)
_NUM_CTX = (
    "Prompt and answer together must fit into num_ctx tokens. Ollama does not refuse a longer prompt: it leaves out "
    "the oldest messages, or cuts the text, and answers anyway. num_predict is the longest answer that was "
    "judged; Ollama's own limit is ten times num_ctx."
)
_DROPPED = (
    "The student was trained on tools as llama.cpp's server passes them on, with {keys} in their schemas. Ollama "
    "leaves these keywords out, so its prompts differ from those that were judged."
)
_UNHELD = (
    "Every row begins with the same system message, which this Modelfile cannot hold, because it has three double "
    "quotes in a row or a control character. Send it with each request."
)


def write_modelfile(
    inputs: PackageInputs, chat: ChatFormat, notice: str, workload: Workload, notes: Sequence[str] = ()
) -> str:
    """Text of the Modelfile.

    Sampling is set as it was when the file was judged, because Ollama's defaults (temperature 0.8, top_k 40, and a
    repeat penalty in older releases) give other answers.

    Args:
        inputs: the stage's inputs. The GGUF says whether the runtime adds the BOS token to a prompt.
        chat: the student's tokenizer and template.
        notice: text for LICENSE; empty for none.
        workload: what all rows share; their system message is the Modelfile's where `package.system` has none.
        notes: differences between llama.cpp and the checkpoint, from export.

    Raises:
        RecipeError: a Modelfile cannot hold `package.system`, a licence or an end token.
    """
    gguf, sampling = inputs.gguf.path, inputs.sampling
    lines = [f"# {inputs.name}, made by potstill. Add it to Ollama: ollama create {inputs.name.lower()} -f Modelfile"]
    system = inputs.system or workload.system
    if system and not inputs.system and not fits_modelfile(system):
        system, notes = None, (*notes, _UNHELD)
    lines += [line for note in (*notes, _NUM_CTX) for line in _comment(f"{note.rstrip('.')}.")]
    lines += [f"FROM ./{gguf.name}", "", *_template(chat, gguf, workload.dropped), ""]
    lines += [f'PARAMETER stop "{token}"' for token in modelfile_stops(chat)]
    lines += [f"PARAMETER num_ctx {inputs.chat.context}", f"PARAMETER num_predict {sampling.max_new_tokens}"]
    lines.append(f"PARAMETER temperature {sampling.temperature:g}")
    if sampling.temperature > 0:
        lines += [f"PARAMETER top_p {sampling.top_p:g}", "PARAMETER top_k 0"]
    lines.append("PARAMETER repeat_penalty 1")
    if system:
        lines += ["", _quoted("SYSTEM", system, "package.system")]
    if notice:
        lines += ["", _quoted("LICENSE", notice, "license")]
    return "\n".join(lines) + "\n"


def _template(chat: ChatFormat, gguf: Path, dropped: Sequence[str]) -> list[str]:
    """The TEMPLATE instruction, or comments on why there is none; and comments on what Ollama does differently."""
    lost = _comment(_DROPPED.format(keys=", ".join(dropped))) if dropped and prints_schemas(chat) else []
    try:
        turns = find_turns(chat)
        text = turns.go_template(leave_out=chat.bos if chat.bos and _adds_bos(gguf) else None)
        if not fits_modelfile(text):
            raise UnwritableTemplate("it has characters that a Modelfile cannot hold")
    except UnwritableTemplate as reason:
        return [*_comment(_NO_TEMPLATE.format(reason=reason)), *lost]
    notes = [line for note in turns.notes for line in _comment(note)]
    if turns.notes and turns.tool_joint is None:
        notes += _comment(
            "Ollama 0.31 and later find that the chat template inside the GGUF supports tools, and run that one "
            "instead; older releases refuse tools."
        )
    return [*notes, *lost, f"TEMPLATE {_QUOTES}{text}{_QUOTES}"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 100, initial_indent="# ", subsequent_indent="# ")


def _quoted(instruction: str, text: str, what: str) -> str:
    if not fits_modelfile(text):
        raise RecipeError(
            f"{what}: an Ollama Modelfile cannot hold this text, because it has three double quotes in a row or a "
            "control character. Remove them."
        )
    return f"{instruction} {_QUOTES}{text}{_QUOTES}"


def _adds_bos(gguf: Path) -> bool:
    """Whether a runtime adds the BOS token to prompts for this file."""
    from gguf import GGUFReader

    field = GGUFReader(gguf).get_field("tokenizer.ggml.add_bos_token")
    return bool(field.contents()) if field else False
