"""The chat template as it is written into the file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from potstill.components.chat.format import ChatFormat
from potstill.components.chat.template import Templates
from potstill.core.records import Message, Row

__all__ = ["adds_bos", "file_template", "spoken_tokens"]


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


def spoken_tokens(chat: ChatFormat, rows: Sequence[Row]) -> frozenset[int]:
    """Ids of special tokens that answers contain, such as tags of calls or words of a domain; not those that end one.

    llama.cpp leaves control tokens out of an answer's text, so in the file these must be of another type.
    """
    added = chat.tokenizer.get_added_tokens_decoder().items()
    ends = {token.content for index, token in added if index in chat.stop_ids}
    special = {token.content: index for index, token in added if token.special and index not in chat.stop_ids}
    if not special:
        return frozenset()
    any_of = re.compile("|".join(re.escape(text) for text in sorted({*special, *ends}, key=len, reverse=True)))
    spoken: set[str] = set()
    for row in rows:
        if row.completion is None:
            continue
        try:
            prompt = chat.render(row.messages, row.tools, generate=True)
            whole = chat.render((*row.messages, row.completion), row.tools)
        except ValueError:  # the row cannot be trained on, so it was not trained on
            continue
        for found in any_of.findall(whole.removeprefix(prompt) if whole.startswith(prompt) else ""):
            if found in ends:
                break
            spoken.add(found)
    return frozenset(special[text] for text in spoken)
