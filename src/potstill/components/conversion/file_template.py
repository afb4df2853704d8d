"""The chat template as it is written into the file."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.components.chat.format import ChatFormat
from potstill.components.chat.template import Templates
from potstill.core.records import Message, Row

__all__ = ["adds_bos", "file_template"]


def file_template(chat: ChatFormat) -> Templates:
    """The student's chat templates, as they were trained: their variables and the date are part of the text."""
    return Templates(chat.template, chat.tool_template)


def adds_bos(chat: ChatFormat, rows: Sequence[Row]) -> bool:
    """Whether prompts begin with the BOS token, as the template writes them."""
    messages = (Message(role="user", content="Hi"),)
    for prompt in ((messages, ()), *((row.messages, row.tools) for row in rows[:1])):
        try:
            return bool(chat.bos) and chat.render(*prompt, generate=True).startswith(chat.bos or "")
        except ValueError:  # a template may need tools, or a system message: then a row shows it
            continue
    return False
