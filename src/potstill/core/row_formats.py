"""The formats that rows come in, brought into the shape of `Row`: OpenAI's, ShareGPT's, distilabel's and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from potstill.core.json_values import BadJson, read_strictly
from potstill.core.words import nearest_hint

__all__ = ["in_row_format"]

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
"""ShareGPT's names of speakers."""
_DISTILABEL = ("model_name", "distilabel_metadata")


def in_row_format(value: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """A row as `messages`, `completion`, `tools` and so on, whatever format it has; keys that are null are left out.

    Args:
        value: the row's JSON object.
        known: the keys of a row.

    Raises:
        ValueError: the row has a key that no format has, or a value of the wrong type; the message says what to do.
    """
    row = {key: each for key, each in value.items() if each is not None}
    if "generation" in row:
        row = _distilabel(row)
    if "messages" not in row:
        found = next((key for key in _FORMATS if key in row), None)
        if found:
            row = _FORMATS[found](row)
    if "functions" in row and "tools" not in row:
        row["tools"] = row.pop("functions")
    if isinstance(row.get("tools"), str):
        row["tools"] = _json_text(row["tools"], "tools")
    _require_known(row, known)
    messages = row.get("messages")
    if "completion" not in row and isinstance(messages, list) and messages:
        last = messages[-1]
        if isinstance(last, dict) and last.get("role") == "assistant":
            row |= {"messages": messages[:-1], "completion": last}
    return row


def _require_known(row: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in row:
        if key not in known:
            hint = nearest_hint(key, known, "known keys are")
            end = "" if hint.endswith("?") else "."
            raise ValueError(f"unknown key {key!r}; {hint}{end} Put what should stay with the row into its provenance")


def _json_text(text: str, key: str) -> Any:
    """The value of a key that a data set stores as JSON text."""
    try:
        return read_strictly(text)
    except BadJson as error:
        raise ValueError(f"{key}: the text is not valid JSON ({error})") from None


def _sharegpt(row: dict[str, Any]) -> dict[str, Any]:
    """`{"conversations": [{"from": "human", "value": ...}], "system": ..., "tools": ...}`."""
    turns = row.pop("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("conversations must be a list of turns")
    messages = [_sharegpt_turn(index, turn) for index, turn in enumerate(turns)]
    if system := row.pop("system", ""):
        messages.insert(0, {"role": "system", "content": system})
    return {**row, "messages": messages}


def _sharegpt_turn(index: int, turn: Mapping[str, Any]) -> dict[str, Any]:
    if "from" not in turn or "value" not in turn:  # some data sets have messages under this key
        return dict(turn)
    speaker, value = turn["from"], turn["value"]
    if not isinstance(speaker, str) or speaker not in _ROLES:
        raise ValueError(
            f"conversations.{index}: unknown speaker {speaker!r}; the known speakers are {', '.join(_ROLES)}"
        )
    if extra := [key for key, each in turn.items() if key not in ("from", "value", "weight") and each is not None]:
        raise ValueError(f"conversations.{index}: unknown key {extra[0]!r}; a turn has the keys from and value")
    if speaker == "function_call":
        calls = _json_text(value, f"conversations.{index}") if isinstance(value, str) else value
        functions = calls if isinstance(calls, list) else [calls]
        return {"role": "assistant", "tool_calls": [{"type": "function", "function": each} for each in functions]}
    return {"role": _ROLES[speaker], "content": value}


def _prompt_and_completion(row: dict[str, Any]) -> dict[str, Any]:
    """`{"prompt": text or messages, "completion": text or messages}`, as TRL reads them."""
    prompt, completion = row.pop("prompt"), row.pop("completion", None)
    if isinstance(completion, list):
        if len(completion) != 1:
            raise ValueError("the completion must be one message; write the turns before the last into the prompt")
        completion = completion[0]
    return {**row, "messages": _messages(prompt, "user"), **_answer(completion)}


def _instruction(row: dict[str, Any]) -> dict[str, Any]:
    """`{"instruction": ..., "input": ..., "output": ...}`, as Alpaca has them; the input follows a blank line."""
    parts = [row.pop("instruction"), row.pop("input", "")]
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("instruction and input must be text")
    system = _messages(row.pop("system", ""), "system")
    messages = [*system, *_messages("\n\n".join(part for part in parts if part), "user")]
    answer = _answer(row.pop("output", None))
    return {**row, "messages": messages, **answer}


def _distilabel(row: dict[str, Any]) -> dict[str, Any]:
    """`{"instruction" or "messages": ..., "generation": text}`; the other columns of distilabel go into provenance."""
    answer = _answer(row.pop("generation"))
    if system := row.pop("system_prompt", ""):
        row["system"] = system
    kept = {key: row.pop(key) for key in _DISTILABEL if key in row}
    provenance = row.get("provenance", {})
    if kept and isinstance(provenance, dict):
        row["provenance"] = kept | provenance
    return answer | row


def _messages(value: Any, role: str) -> list[Any]:
    """Messages as they are, or a text as one message."""
    if isinstance(value, list):
        return value
    return [{"role": role, "content": value}] if value else []


def _answer(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    return {"completion": {"role": "assistant", "content": value} if isinstance(value, str) else value}


_FORMATS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "conversations": _sharegpt,
    "prompt": _prompt_and_completion,
    "instruction": _instruction,
}
"""The formats by the key that identifies them."""
