"""The chat template as it is written into the file."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.components.chat.format import ChatFormat
from potstill.core.records import Message, Row

__all__ = ["adds_bos", "file_template"]


def file_template(chat: ChatFormat) -> str:
    """The student's chat template, without the variables that llama.cpp defines and training did not.

    llama.cpp gives every template today's date as `date_string`, which Llama 3.1 prints, and a `bos_token` even where
    the tokenizer has none. The first is made undefined, and the second empty.
    """
    unset = []
    if "date_string" in chat.template:
        unset.append("{%- set date_string = never_defined -%}")
    if "bos_token" in chat.template and chat.bos is None:
        unset.append("{%- set bos_token = '' -%}")
    return "".join(unset) + chat.template


def adds_bos(chat: ChatFormat, rows: Sequence[Row]) -> bool:
    """Whether prompts begin with the BOS token, as the template writes them."""
    messages = (Message(role="user", content="Hi"),)
    for prompt in ((messages, ()), *((row.messages, row.tools) for row in rows[:1])):
        try:
            return bool(chat.bos) and chat.render(*prompt, generate=True).startswith(chat.bos or "")
        except ValueError:  # a template may need tools, or a system message: then a row shows it
            continue
    return False
