"""Find the pre-tokenizer of llama.cpp that splits text as a tokenizer.json does.

llama.cpp cannot run a pre-tokenizer from the file: it knows some by name (`tokenizer.ggml.pre`). The name is found from
the splitting steps, so that a retrained or pruned vocabulary is recognized as well as the original. A pre-tokenizer
that llama.cpp does not know is refused, because a similar one would silently tokenize text differently.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from potstill.components.conversion.tokenizer_file import Node, TokenizerFile
from potstill.core.errors import StepError

__all__ = ["APPROXIMATE", "PRE_TOKENIZERS", "pre_tokenizer_name"]

_ELISION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_CASED = (rf"{_START}{_UPPER}*{_LOWER}+", rf"{_START}{_UPPER}+{_LOWER}*")

_LLAMA3 = rf"{_ELISION}|{_START}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
_QWEN2 = rf"{_ELISION}|{_START}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
_QWEN35 = rf"{_ELISION}|{_START}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_TAIL}"
_TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
_GPT4O = rf"{_CASED[0]}{_ELISION}?|{_CASED[1]}{_ELISION}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
    + _TAIL
)

# Splitting steps, in order -> llama.cpp's names, each with whether a whole word in the vocabulary becomes one token
# without merges (tokenizer.json's `ignore_merges`).
PRE_TOKENIZERS: dict[tuple[str, ...], tuple[tuple[str, bool], ...]] = {
    ("gpt2",): (("gpt-2", False),),
    ("digit", "gpt2"): (("smollm", False),),
    (_LLAMA3,): (("llama-bpe", True), ("dbrx", False)),
    (_QWEN2,): (("qwen2", False),),
    (_QWEN35,): (("qwen35", False),),
    (_TEKKEN,): (("tekken", True),),
    (_GPT4O,): (("gpt-4o", False),),
    (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", "digit"): (("deepseek-coder", False),),
    (r"\p{N}{1,3}", "[一-龥\u3040-ゟ\u30a0-ヿ]+", _DEEPSEEK3): (("deepseek-v3", False),),
    ("punctuation", "gpt2", "digits", "[0-9][0-9][0-9]"): (("falcon", False),),
}

# Names whose expression in llama.cpp is not the original's, and the text on which they differ, found with 1,000 hostile
# strings. The other names agreed on all of them.
APPROXIMATE = {
    "tekken": "text with combining marks or letter case beyond ASCII",
    "gpt-4o": "text with combining marks or letter case beyond ASCII",
    "deepseek-coder": "text with spaces beyond ASCII",
    "falcon": "numbers, if the vocabulary was not trained with this pre-tokenizer,",
}


def pre_tokenizer_name(tokenizer: TokenizerFile, where: str) -> str:
    """llama.cpp's name for the pre-tokenizer of a byte-level tokenizer.json.

    Args:
        tokenizer: the parsed file.
        where: its path, for messages.

    Raises:
        StepError: llama.cpp has no pre-tokenizer that splits in the same way; the message shows the steps.
    """
    steps = tuple(_steps(tokenizer.pre_tokenizer, where))
    candidates = PRE_TOKENIZERS.get(steps)
    if candidates is None:
        raise StepError(
            f"{where}: no pre-tokenizer of llama.cpp splits text as this one does: {' then '.join(steps) or 'none'}. "
            "With another one the file would tokenize text differently and give worse answers without any warning. "
            f"Use a student whose tokenizer splits like one of {', '.join(known_names())}."
        )
    ignore_merges = bool(tokenizer.model.ignore_merges)
    for name, ignores in candidates:
        if ignores == ignore_merges:
            return name
    unmade = _unmade_tokens(tokenizer)
    if unmade:
        raise StepError(
            f"{where}: `ignore_merges` is {str(ignore_merges).lower()}, but llama.cpp's {candidates[0][0]!r} does the "
            f"opposite, so {len(unmade)} tokens that no merges produce ({', '.join(map(repr, unmade[:3]))}) would be "
            "tokenized differently. Use a tokenizer with the other setting."
        )
    return candidates[0][0]


def known_names() -> list[str]:
    """The names that `pre_tokenizer_name` can give, in the table's order."""
    return [name for candidates in PRE_TOKENIZERS.values() for name, _ in candidates]


def _steps(node: Node | None, where: str) -> Iterator[str]:
    """The splitting steps as text: a regular expression, or one of gpt2, digit, digits, punctuation."""
    kind = None if node is None else node["type"]
    if kind == "Sequence":
        assert node is not None
        for child in node["pretokenizers"]:
            yield from _steps(child, where)
        return
    if node is not None and kind == "ByteLevel" and not node.get("add_prefix_space"):
        if node.get("use_regex", True):
            yield "gpt2"
        return
    if node is not None and kind == "Split" and "Regex" in node["pattern"]:
        step = _plain(node["pattern"]["Regex"])
        behaviour = (node.get("behavior"), bool(node.get("invert")))
        # an expression that matches all text splits in the same way whether it keeps its matches or removes the rest
        if behaviour == ("Isolated", False) or (behaviour == ("Removed", True) and step.endswith(_TAIL)):
            yield step
            return
    if node is not None and kind == "Digits":
        yield "digit" if node.get("individual_digits") else "digits"
        return
    if node is not None and kind == "Punctuation" and node.get("behavior") == "Contiguous":
        yield "punctuation"
        return
    raise StepError(
        f"{where}: the pre-tokenizer step {json.dumps(node, ensure_ascii=False)} has no counterpart in llama.cpp's BPE "
        f"tokenizers. Use a student whose tokenizer is one of {', '.join(known_names())}."
    )


def _plain(regex: str) -> str:
    r"""A regular expression in one spelling: `\u4e00` as the character, `\p{N}` for a step that is only that."""
    out, i = "", 0
    while i < len(regex):
        if regex.startswith("\\u", i) and len(regex) >= i + 6:
            out, i = out + chr(int(regex[i + 2 : i + 6], 16)), i + 6
        else:
            width = 2 if regex[i] == "\\" else 1
            out, i = out + regex[i : i + width], i + width
    return "digit" if out == r"\p{N}" else out


def _unmade_tokens(tokenizer: TokenizerFile) -> list[str]:
    """Tokens of the vocabulary that its merges do not make from their own text."""
    from tokenizers import Tokenizer

    added = {token.content for token in tokenizer.added_tokens}
    model = tokenizer.model.model_dump() | {
        "ignore_merges": False,
        "byte_fallback": bool(tokenizer.model.byte_fallback),
    }
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    bare: Node = {"version": "1.0", "added_tokens": [], **dict.fromkeys(parts), "model": model}
    bpe = Tokenizer.from_str(json.dumps(bare)).model
    words = (text for text in tokenizer.model.vocab if len(text) > 1 and text not in added)
    return [text for text in words if [token.value for token in bpe.tokenize(text)] != [text]]
