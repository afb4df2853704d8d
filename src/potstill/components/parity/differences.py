"""Where two sequences of tokens differ, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.components.chat.format import ChatFormat

__all__ = ["first_difference", "shown_before"]

_SHOWN = 40  # characters of text shown before a difference


def shown_before(chat: ChatFormat, ids: Sequence[int]) -> str:
    """The end of a text, as it is shown before a difference."""
    return chat.tokenizer.decode(list(ids), skip_special_tokens=False)[-_SHOWN:]


def first_difference(chat: ChatFormat, expected: Sequence[int], found: Sequence[int]) -> str:
    """A sentence about the first position where two sequences differ."""

    def shown(ids: Sequence[int]) -> str:
        return f"{ids[at]} ({chat.tokenizer.id_to_token(ids[at])!r})" if at < len(ids) else "the end"

    both = zip(expected, found, strict=False)
    at = next((i for i, (a, b) in enumerate(both) if a != b), min(len(expected), len(found)))
    before = shown_before(chat, expected[:at])
    return f"at token {at}, after {before!r}, llama.cpp has {shown(found)}, the checkpoint {shown(expected)}."
