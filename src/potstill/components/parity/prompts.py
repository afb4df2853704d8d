"""Prompts: what llama.cpp's server makes of each row, token by token against training's; and why one differs."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from potstill.components.chat.format import ChatFormat
from potstill.components.parity.differences import first_difference
from potstill.components.runtimes.gguf import GGUFServer
from potstill.core.artifacts.exported import TemplateParity
from potstill.core.errors import ParityError, StepError
from potstill.core.progress import progress_bar
from potstill.core.records import Row

__all__ = ["compare_template"]

_CHUNK = 64  # rows whose prompts are tokenized in one request
_PARALLEL = 2


def compare_template(server: GGUFServer, chat: ChatFormat, rows: Sequence[Row]) -> TemplateParity:
    """Compare the prompt of every row as llama.cpp's server makes it, BOS token included, with training's.

    Raises:
        ParityError: names the row, the first token that differs, the cause and what to do.
    """
    with progress_bar("compare prompts", len(rows)) as ticker, ThreadPoolExecutor(_PARALLEL) as pool:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            texts = list(pool.map(lambda row: _served(server, chat, row), chunk))
            expected = [chat.prompt_ids(row) for row in chunk]
            if _ids(server, texts) != [i for ids in expected for i in ids]:
                for row, text, ids in zip(chunk, texts, expected, strict=True):
                    _require_same(server, chat, row, text, ids)
            ticker.advance(len(chunk))
    return TemplateParity(rows=len(rows), identical=len(rows))


def _served(server: GGUFServer, chat: ChatFormat, row: Row) -> str:
    """The text that llama.cpp's server makes of a row."""
    try:
        return server.apply_template(chat.with_ids(row), row.tools)
    except StepError as error:
        raise ParityError(
            f"{server.model.name}: llama.cpp cannot run the chat template on {row.name}. {error} Simplify the "
            "template (chat.template names a Jinja file) and train with it."
        ) from None


def _ids(server: GGUFServer, texts: list[str]) -> list[int]:
    """Ids of several texts, one after the other."""
    body = {"content": texts, "add_special": True, "parse_special": True}
    return [int(i) for i in server.post("/tokenize", body)["tokens"]]


def _require_same(server: GGUFServer, chat: ChatFormat, row: Row, text: str, expected: list[int]) -> None:
    found = server.tokenize(text, add_special=True)
    if expected != found:
        raise ParityError(
            f"{server.model.name}: llama.cpp makes another prompt from {row.name} than training does: "
            f"{first_difference(chat, expected, found)} {_cause(server, chat, row, text, found)}"
        )


# ---- why a prompt differs ----


def _cause(server: GGUFServer, chat: ChatFormat, row: Row, text: str, found: list[int]) -> str:
    """Sentences with the cause and what to do."""
    own = chat.render(row.messages, row.tools, generate=True)
    bos = chat.bos or ""
    if text.removeprefix(bos) == own.removeprefix(bos):
        if bos and found[:2] == [chat.tokenizer.token_to_id(bos)] * 2:
            return f"The prompt begins with {bos} twice: the template writes it, and the file adds it. Export again."
        return (
            "Both read the same text, so the tokenizers differ. llama.cpp does not support this tokenizer. Choose a "
            "student with another one. If tokenizer.json was changed after the training, export the folder "
            "that was trained."
        )
    dates = _dates()
    if any(date in text and date not in own for date in dates):
        return (
            "The template writes a date that llama.cpp's server gives it and training did not. Set the variable that "
            "it reads (date_string, for example) in chat.template_kwargs, or remove the date from the template."
        )
    if row.tools and _differs(server, chat, row, tools=False) is False:
        return (
            "The difference is in the tools, which the template writes out: llama.cpp's server changes their "
            "shape. Give the tools as type, then function with name, description and parameters, without "
            "further keys; or use a template that writes them in another way."
        )
    if any(m.tool_calls for m in row.messages) and _differs(server, chat, row, calls=False) is False:
        return _cause_in_calls(row)
    if variables := [name for name in ("enable_thinking", "reasoning_effort") if name in chat.template]:
        return (
            f"The template reads {' and '.join(variables)}, which llama.cpp's server sets itself. Set it in "
            "chat.template_kwargs, so that training and the file use one value."
        )
    return (
        "The file has another chat template, or llama.cpp runs it differently. Put a simpler template into "
        "chat.template and train with it. If the template was changed after the training, export with the old one."
    )


def _cause_in_calls(row: Row) -> str:
    calls = [call.function.arguments for message in row.messages for call in message.tool_calls]
    if any(f"{float(number):g}" != number for text in calls for number in re.findall(r"-?\d+\.\d+", text)):
        return (
            "The difference is in the arguments of an earlier call: llama.cpp writes numbers with six digits at most "
            "(52.520008 as 52.52). Round such numbers in the rows, or pass them as text."
        )
    return (
        "The difference is at an earlier call: llama.cpp passes the message with the call to the template in another "
        "form, for example with empty text in place of null. Use a template that writes both alike, or rows without "
        "earlier calls."
    )


def _differs(server: GGUFServer, chat: ChatFormat, row: Row, *, tools: bool = True, calls: bool = True) -> bool | None:
    """Whether the prompts still differ without the tools, or without earlier calls; None where one is refused."""
    messages = row.messages if calls else tuple(m for m in row.messages if not m.tool_calls and m.role != "tool")
    given = row.tools if tools else ()
    messages = chat.with_ids(row.model_copy(update={"messages": messages, "tools": given}))
    try:
        own, served = chat.render(messages, given, generate=True), server.apply_template(messages, given)
    except (ValueError, StepError):
        return None
    bos = chat.bos or ""
    return own.removeprefix(bos) != served.removeprefix(bos)


def _dates() -> set[str]:
    """Today in the spellings that templates use."""
    today = datetime.datetime.now()
    return {re.sub(r"\b0", "", today.strftime(f)) for f in _FORMATS} | {today.strftime(f) for f in _FORMATS}


_FORMATS = ("%d %b %Y", "%d %B %Y", "%B %d, %Y", "%b %d, %Y", "%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y")
