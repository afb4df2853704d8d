"""Convert a SentencePiece-style tokenizer.json (`▁` for a space, bytes for text without a token) for llama.cpp.

tokenizer.json merges pairs by rank, and llama.cpp merges the neighbours that form the token with the highest score. The
scores are made from the ranks. Where the two algorithms can disagree, a note says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.components.conversion.tokenizer_file import TokenizerFile
from potstill.core.errors import StepError

__all__ = ["BYTE_TOKENS", "PREPEND_SPACE", "SentencePiece", "read_sentencepiece"]

_SPACE = "▁"
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
PREPEND_SPACE = {"type": "Prepend", "prepend": _SPACE}
BYTE_TOKENS = [f"<0x{value:02X}>" for value in range(256)]


@dataclass(frozen=True)
class SentencePiece:
    """Scores of the vocabulary's tokens, whether a text gets a leading space, and notes on remaining differences."""

    scores: dict[str, float]
    add_space_prefix: bool
    notes: tuple[str, ...]


def read_sentencepiece(
    tokenizer: TokenizerFile, merges: list[tuple[str, str]], path: Path, *, chat: bool
) -> SentencePiece:
    """Scores and space prefix of a tokenizer.json with `byte_fallback`.

    Args:
        tokenizer: the parsed file.
        merges: its merges, in order.
        path: its path, for messages.
        chat: whether the student is prompted through a chat template.

    Raises:
        StepError: a byte has no token, or spaces are handled in a way that llama.cpp does not support.
    """
    vocab = tokenizer.model.vocab
    absent = [text for text in BYTE_TOKENS if text not in vocab]
    if absent:
        raise StepError(
            f"{path}: byte_fallback is on, but {len(absent)} of the 256 byte tokens ({absent[0]} first) are not in the "
            "vocabulary, and llama.cpp needs them all. Add them before training."
        )
    prefix, note = _space_prefix(tokenizer, path, chat)
    scores, loose = _scores(vocab, merges)
    notes = [note] if note else []
    if loose:
        notes.append(
            f"llama.cpp merges by token and tokenizer.json by pair: {loose} pairs are merged by only one of them, or "
            "in another order, so some texts may be tokenized differently"
        )
    return SentencePiece(scores, prefix, tuple(notes))


def _space_prefix(tokenizer: TokenizerFile, path: Path, chat: bool) -> tuple[bool, str | None]:
    """Whether llama.cpp should put a space before a text, and a note on the remaining difference."""
    pre, steps = tokenizer.pre_tokenizer, tokenizer.normalizer_steps
    if pre is None and steps in ([PREPEND_SPACE, _REPLACE], [_REPLACE]):
        return len(steps) == 2, None
    is_metaspace = pre is not None and pre["type"] == "Metaspace" and pre.get("replacement") == _SPACE
    if pre is not None and is_metaspace and not steps and not pre.get("split", True):
        scheme = pre.get("prepend_scheme", "always")
        if scheme == "never":
            return False, None
        if scheme == "always":
            return True, "llama.cpp puts a space even before a text that starts with one, and tokenizer.json does not"
        # text from a chat template usually starts with a special token, and then no part of it gets a space
        what = "never does" if chat else "does so after each special token too, and where there is a space already"
        return not chat, f"tokenizer.json puts a space only before the first word of a text, and llama.cpp {what}"
    shown = json.dumps({"normalizer": tokenizer.normalizer, "pre_tokenizer": pre}, ensure_ascii=False)
    raise StepError(
        f"{path}: {shown} cannot be exported: llama.cpp's SentencePiece tokenizer only turns spaces into {_SPACE}, "
        "with or without one in front of the text. Use a student with such a tokenizer."
    )


def _scores(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tuple[dict[str, float], int]:
    """A score for each token, and the number of pairs on which the two algorithms differ (0: they always agree).

    They agree when every pair that joins to a token is a merge, and the merges that make one token follow each other.
    """
    order: dict[str, int] = {}
    interleaved = 0
    last = ""
    for left, right in merges:
        made = left + right
        interleaved += made in order and made != last
        order.setdefault(made, len(order))
        last = made
    known = set(merges)
    unknown = sum(pair not in known for text in vocab for pair in _splits(text, vocab))
    return {text: -float(order.get(text, len(order))) for text in vocab}, interleaved + unknown


def _splits(text: str, vocab: dict[str, int]) -> Iterator[tuple[str, str]]:
    """The pairs of tokens that join to `text`."""
    for cut in range(1, len(text)):
        if text[:cut] in vocab and text[cut:] in vocab:
            yield text[:cut], text[cut:]
