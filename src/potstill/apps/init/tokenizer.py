"""Train a tokenizer on rows: byte-level BPE with a chat template, in the files that transformers and llama.cpp read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from potstill.core.errors import UsageError
from potstill.core.files import write_json, write_text
from potstill.core.records import Message, Row

__all__ = ["MIN_VOCABULARY", "TrainedTokenizer", "train_tokenizer"]

_PAD, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_CALLS = ("<tool_call>", "</tool_call>")
_MARKS = (_PAD, _START, _END, *_CALLS)
_CUT = re.compile("|".join(map(re.escape, _MARKS)))

MIN_VOCABULARY = 256 + len(_MARKS)
"""Tokens of a vocabulary without a single merge: one per byte, and the tokens of the chat template."""

# Qwen2's expression, which llama.cpp knows under the name `qwen2`: every digit is a token of its own
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class TrainedTokenizer:
    """What was trained.

    tokens           size of the vocabulary; smaller than asked for where the rows have too few different words
    bytes_per_token  bytes of the rows' text (UTF-8) per token
    """

    tokens: int
    bytes_per_token: float


def train_tokenizer(rows: Sequence[Row], folder: Path, vocabulary: int) -> TrainedTokenizer:
    """Train on the texts of the rows, and write the tokenizer's files into `folder`, which may be new.

    The same rows give the same files. Source of the method: Sennrich, Haddow and Birch (2016), ACL 1715-1725, on bytes
    as in Radford et al. (2019).

    Args:
        rows: training rows; test rows would show the tokenizer what it is judged on.
        folder: where tokenizer.json, tokenizer_config.json and chat_template.jinja go.
        vocabulary: number of tokens, at least `MIN_VOCABULARY`.

    Raises:
        UsageError: the vocabulary is too small.
    """
    if vocabulary < MIN_VOCABULARY:
        raise UsageError(
            f"--vocabulary {vocabulary}: a vocabulary has at least {MIN_VOCABULARY} tokens, one for each of the 256 "
            f"bytes and {len(_MARKS)} of the chat template."
        )
    state = _train(_pieces(rows), vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "tokenizer.json", state)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _END, "pad_token": _PAD,
         "clean_up_tokenization_spaces": False},
    )  # fmt: skip
    template = resources.files("potstill.apps.init").joinpath("chat_template.jinja").read_text(encoding="utf-8")
    write_text(folder / "chat_template.jinja", template)
    return _measure(state, rows)


def _train(pieces: Iterable[str], vocabulary: int) -> dict[str, Any]:
    """The JSON values of tokenizer.json."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in _CALLS  # the tags of a call are part of an answer's text
        token["normalized"] = False
    return state


def _texts(rows: Sequence[Row]) -> Iterator[str]:
    """All text of the rows. Tools are the same in most rows, so each set of tools counts once."""
    seen: set[str] = set()
    for row in rows:
        tools = json.dumps(row.tools, ensure_ascii=False)
        if row.tools and tools not in seen:
            seen.add(tools)
            yield from (json.dumps(tool, ensure_ascii=False) for tool in row.tools)
        for message in (*row.messages, *([row.completion] if row.completion else [])):
            yield from _message_texts(message)


def _message_texts(message: Message) -> Iterator[str]:
    yield f"{message.role}\n{message.content or ''}"
    for entry in message.tool_calls:
        yield f'\n{{"name": "{entry.function.name}", "arguments": {entry.function.arguments}}}\n'


def _pieces(rows: Sequence[Row]) -> Iterator[str]:
    """Texts cut at the chat template's tokens, which is what merges can apply to when the tokenizer is used."""
    return (piece for text in _texts(rows) for piece in _CUT.split(text) if piece)


def _measure(state: dict[str, Any], rows: Sequence[Row]) -> TrainedTokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(state))
    texts = list(_texts(rows))
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False))
    return TrainedTokenizer(tokenizer.get_vocab_size(), sum(len(text.encode()) for text in texts) / tokens)
