"""The usage section of a model card: commands to paste, with the answer to expect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from potstill.stages.package.example import TOOLS, Example

if TYPE_CHECKING:
    from potstill.stages.package.stage import PackageInputs

__all__ = ["usage_section"]

_JSON = "-H 'Content-Type: application/json'"


def usage_section(inputs: PackageInputs, example: Example | None) -> str:
    """The section on usage. `example` is None for a model that continues text."""
    gguf, sampling = inputs.gguf.path.name, inputs.sampling
    serve = f"llama-server -m {gguf} -c {inputs.chat.context} --temp {sampling.temperature:g} --jinja --port 8080"
    name = inputs.name.lower()
    create = f"ollama create {name} -f Modelfile"
    if example is None:
        body = '{"prompt": "...", "n_predict": ' + f"{sampling.max_new_tokens}}}"
        return _sections(
            _shell(serve), _shell(f"curl http://localhost:8080/completion {_JSON} \\\n  -d '{body}'"),
            "The model continues text; it was not trained for conversations.",
            "With Ollama:", _shell(f"{create}\nollama run {name}"), _OLLAMA,
        )  # fmt: skip
    chat = _quoted({"model": name} | _only(example.request, "messages", "tools") | {"stream": False})
    ollama = f"curl http://localhost:11434/api/chat -d {chat}"
    return _sections(
        _shell(serve),
        "Ask it in another shell, in the folder of this file:",
        _shell(f"curl http://localhost:8080/v1/chat/completions {_JSON} \\\n  -d {_quoted(example.request)}"),
        _expected(example),
        f"```json\n{json.dumps(example.answer, indent=1, ensure_ascii=False)}\n```",
        _tools(example), "With Ollama:", _shell(f"{create}\n{ollama}"), _OLLAMA,
    )  # fmt: skip


_OLLAMA = "The Modelfile has comments on anything that Ollama renders differently."


def _sections(serve: str, *parts: str) -> str:
    return "\n\n".join(part for part in ("## Usage", "With llama.cpp:", serve, *parts) if part)


def _shell(text: str) -> str:
    return f"```sh\n{text}\n```"


def _only(request: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: request[key] for key in keys if key in request}


def _quoted(request: dict[str, Any]) -> str:
    """A request's body as one argument of a shell; the shell puts the tools in from their file."""
    shown = request | ({"tools": "@"} if "tools" in request else {})
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in shown.items()]
    text = ("{" + ",\n   ".join(lines) + "}").replace("'", r"\u0027")
    return "'" + text.replace('"tools": "@"', f'"tools": \'"$(cat {TOOLS})"\'') + "'"


def _expected(example: Example) -> str:
    if example.right:
        return (
            "This is one of the test rows. The packaged file was asked this while the package was made, and answered "
            "with the message below, which is right. Your reply has ids with its calls as well."
        )
    judged = "which is not right" if example.right is False else "and the row does not say whether that is right"
    return f"This is one of the test rows. The packaged file answered with the message below, {judged}."


def _tools(example: Example) -> str:
    if not example.row.tools:
        return "The file contains the chat template that it was trained with."
    return (
        f"The file contains the chat template that it was trained with. `{TOOLS}` has the tools that this row was "
        "trained and judged with, in the shape that the template prints. Send tools with every request: "
        "without them the prompt is unlike any that the model was trained on."
    )
