"""Trim a student's vocabulary to the tokens that its workload uses, and to those that can spell any other text.

Most bytes of a small model are rows of its embedding, and a single workload never reads most of them. These are kept:

- tokens that occur in the workload's rows;
- every intermediate token that BPE makes while it merges the pieces of a word into one of them;
- tokens of single bytes: the new tokenizer can write every text that the old one could, in more tokens;
- added tokens (special or not), and every token that a configuration file names.

Ids are renumbered in the old order, so the list of kept ids is a full description: the old id of token n is `kept[n]`.
A merge stays, in the old order of ranks, where both parts and the result are kept.

The workload's rows are split into the same tokens as before. BPE repeatedly applies the merge of the lowest rank. All
merges that it applied to these rows are kept, and the kept merges are a subset of the old ones in the old order. So the
merge that is applied at each step is still the one of the lowest rank, and where no old merge applied, no kept one
does.

A byte-level BPE tokenizer (GPT-2, Qwen) writes bytes as 256 characters and merges these. A tokenizer with byte fallback
(Llama 2, Mistral, Phi-3) merges characters, and writes a character without a token as its bytes, in the tokens <0x00>
to <0xFF>. Of its single characters, those of the workload and those of ASCII are kept, because users will type them.

A WordPiece tokenizer (BERT) has no merges: from the left, it takes the longest piece that fits. The pieces of the
workload's rows are kept, and each is still the longest kept piece that fits. All pieces of a single character are kept
too, because they can spell any other word.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from potstill.components.chat.format import Example
from potstill.components.chat.template import TEMPLATE_FILES
from potstill.components.chat.tokenizer_files import (
    MOST_TOKENIZER_BYTES,
    read_id_settings,
    read_tokenizer_config,
    token_text,
)
from potstill.core.errors import RecipeError
from potstill.core.files import read_json_object, write_json

__all__ = ["Vocabulary", "kept_ids", "renumbered_settings", "require_trimmable", "trim_folder", "trim_tokenizer"]

_CARRIED = (*TEMPLATE_FILES, "special_tokens_map.json")
_BYTES = frozenset(f"<0x{value:02X}>" for value in range(256))
_SPACE = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """A trimmed tokenizer: its tokenizer.json, and the old ids of its tokens in ascending order."""

    tokenizer: Mapping[str, Any]
    kept: tuple[int, ...]

    @cached_property
    def new_ids(self) -> dict[int, int]:
        """The new id of each old id that is kept."""
        return {old: new for new, old in enumerate(self.kept)}

    def example(self, example: Example) -> Example:
        """The same tokens with their new ids; every position keeps its token.

        Raises:
            KeyError: a token that is not kept.
        """
        return replace(example, ids=tuple(self.new_ids[old] for old in example.ids))


def require_trimmable(tokenizer: Mapping[str, Any], source: str = "tokenizer.json") -> None:
    """Check that a tokenizer's vocabulary can be trimmed, before the workload is known.

    Args:
        tokenizer: the parsed tokenizer.json.
        source: its name, for messages.

    Raises:
        RecipeError: its words are neither made by merging bytes or characters nor cut by WordPiece, or its added tokens
            would get other ids.
    """
    odd = _oddity(tokenizer)
    if odd:
        raise RecipeError(
            "student.vocabulary: a vocabulary is trimmed of byte-level BPE, BPE with byte fallback and WordPiece "
            f"tokenizers only; {source} is {odd}. Keep all tokens: take student.vocabulary out of the recipe."
        )
    vocab = tokenizer["model"]["vocab"]
    # the library numbers added tokens itself, consecutively after the vocabulary
    own = [token["id"] for token in tokenizer.get("added_tokens") or [] if token["content"] not in vocab]
    if any(first >= second for first, second in pairwise([max(vocab.values(), default=-1), *own])):
        raise _other_ids(source, "some")


def _other_ids(source: str, which: str) -> RecipeError:
    return RecipeError(
        f"student.vocabulary: {source}: renumbered, {which} tokens get other ids when loaded: its added tokens do not "
        "follow its vocabulary. Keep all tokens: take student.vocabulary out of the recipe."
    )


def _oddity(tokenizer: Mapping[str, Any]) -> str | None:
    """Why a tokenizer cannot be trimmed, as a description of it; None where it can be."""
    model = tokenizer["model"]
    kind = model.get("type")
    if kind == "WordPiece":
        return None
    if kind != "BPE":
        return f"of kind {kind}"
    odd = [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if odd:
        return f"BPE with {odd[0]}"
    byte_level = "ByteLevel" in set(_types(tokenizer.get("pre_tokenizer"), "pretokenizers"))
    if not model.get("byte_fallback"):
        return None if byte_level else "BPE with neither a ByteLevel pre-tokenizer nor byte_fallback"
    if byte_level:
        return "BPE with byte_fallback and a ByteLevel pre-tokenizer"
    absent = len(_BYTES - model["vocab"].keys())
    if absent:
        return f"BPE with byte_fallback that lacks {absent} of the 256 byte tokens"
    if "ByteFallback" not in set(_types(tokenizer.get("decoder"), "decoders")):
        return "BPE with byte_fallback whose decoder does not join bytes to characters"
    if any(_BYTES.intersection(_parts(merge)) for merge in model["merges"]):
        return "BPE with byte_fallback that merges byte tokens"
    return None


def kept_ids(tokenizer: Mapping[str, Any], used: Iterable[int], source: str = "tokenizer.json") -> list[int]:
    """The ids that a vocabulary trimmed to `used` keeps, in ascending order: these ids and all that they need.

    For arguments and errors, see `trim_tokenizer`.
    """
    require_trimmable(tokenizer, source)
    model = tokenizer["model"]
    vocab: dict[str, int] = model["vocab"]
    text_of = {index: text for text, index in vocab.items()}
    texts = {text_of[index] for index in set(used) if index in text_of}
    texts |= _characters(model) if model["type"] == "WordPiece" else _ancestors(model, texts)
    texts |= {model.get("unk_token"), *_processor_texts(tokenizer.get("post_processor"))}
    added = {token["id"] for token in tokenizer.get("added_tokens") or []}
    return sorted({vocab[text] for text in texts if text in vocab} | added)


def trim_tokenizer(tokenizer: Mapping[str, Any], used: Iterable[int], source: str = "tokenizer.json") -> Vocabulary:
    """Keep the `used` ids of a BPE or WordPiece tokenizer and all that they need.

    Args:
        tokenizer: the parsed tokenizer.json; it is not changed.
        used: ids of the workload's rows, and those that configuration files name; ids without a token are ignored.
        source: its name, for messages.

    Raises:
        RecipeError: it is of another kind, or an id lost its token when it was loaded again.
    """
    model, kept = tokenizer["model"], kept_ids(tokenizer, used, source)
    vocab: dict[str, int] = model["vocab"]
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
    new = {old: number for number, old in enumerate(kept)}

    words = {text: new[index] for text, index in sorted(vocab.items(), key=lambda item: item[1]) if index in new}
    merges = [merge for merge in model.get("merges", ()) if all(text in words for text in _parts(merge))]
    trimmed = dict(tokenizer) | {
        "model": model | {"vocab": words} | ({"merges": merges} if "merges" in model else {}),
        "added_tokens": [token | {"id": new[token["id"]]} for token in tokenizer.get("added_tokens") or []],
        "post_processor": _renumber_processor(tokenizer.get("post_processor"), words | _renumber(added, new)),
        "padding": _renumber_padding(tokenizer.get("padding"), new),
    }
    _require_same_ids(trimmed, words | _renumber(added, new), source)
    return Vocabulary(trimmed, tuple(kept))


def _types(node: Any, children: str) -> Iterator[str]:
    """The types of a part of tokenizer.json and of all parts inside it."""
    if isinstance(node, dict):
        yield str(node.get("type"))
        for child in node.get(children) or []:
            yield from _types(child, children)


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _parts(merge: str | list[str]) -> tuple[str, str, str]:
    left, right = _pair(merge)
    return left, right, left + right


def _characters(model: Mapping[str, Any]) -> set[str]:
    """The WordPiece pieces of one character, at the start of a word and inside it."""
    prefix: str = model["continuing_subword_prefix"]
    return {text for text in model["vocab"] if len(text.removeprefix(prefix)) == 1}


def _ancestors(model: Mapping[str, Any], texts: Iterable[str]) -> set[str]:
    """The BPE tokens that can spell any text, and all intermediate tokens of `texts`."""
    vocab, falls = model["vocab"], bool(model.get("byte_fallback"))
    ranks: dict[tuple[str, str], int] = {}
    for rank, pair in enumerate(map(_pair, model["merges"])):
        if "".join(pair) in vocab:
            ranks.setdefault(pair, rank)
    # a byte-level vocabulary has no other characters than its 256 bytes
    kept = {text for text in vocab if len(text) == 1 and (not falls or text.isascii() or text == _SPACE)}
    kept |= _BYTES if falls else set()
    return kept.union(*(_on_the_way(text, ranks) for text in texts if text not in kept))


def _on_the_way(text: str, ranks: Mapping[tuple[str, str], int]) -> set[str]:
    """`text` and every intermediate token that is made while it is merged from its bytes or characters.

    A token is merged in the same way alone and inside a word: a merge across its ends would have made another token.
    """
    pieces, seen = list(text), {text, *text}
    while len(pieces) > 1:
        best = min(
            range(len(pieces) - 1), key=lambda i: (ranks.get((pieces[i], pieces[i + 1]), len(ranks) + len(text)), i)
        )
        if (pieces[best], pieces[best + 1]) not in ranks:
            break  # a token that is taken whole, never merged (ignore_merges)
        pieces[best : best + 2] = ["".join(pieces[best : best + 2])]
        seen.add(pieces[best])
    return seen


def _renumber(value: Any, new: Mapping[int, int]) -> Any:
    """An id, a list of ids or a mapping to ids with the new ids; ids that are not kept are left out."""
    if isinstance(value, dict):
        return {key: _renumber(inner, new) for key, inner in value.items()}
    if isinstance(value, list):
        found = [_renumber(inner, new) for inner in value]
        return [inner for inner in found if inner is not None and inner != []]
    return new.get(value)


def _processor_texts(node: dict[str, Any] | None) -> Iterator[str]:
    """Tokens that a post-processor puts around a text."""
    if node is None:
        return
    for child in node.get("processors", ()):
        yield from _processor_texts(child)
    if node["type"] == "TemplateProcessing":
        yield from (text for part in node["special_tokens"].values() for text in part["tokens"])
    yield from (node[role][0] for role in ("sep", "cls") if role in node)


def _renumber_processor(node: dict[str, Any] | None, ids: Mapping[str, int]) -> dict[str, Any] | None:
    """A post-processor with the new ids of its special tokens, which are looked up by their text."""
    if node is None:
        return None
    node = dict(node)
    if node["type"] == "Sequence":
        node["processors"] = [_renumber_processor(child, ids) for child in node["processors"]]
    if node["type"] == "TemplateProcessing":
        node["special_tokens"] = {
            name: part | {"ids": [ids[text] for text in part["tokens"]]}
            for name, part in node["special_tokens"].items()
        }
    for role in ("sep", "cls"):
        if role in node:
            node[role] = [node[role][0], ids[node[role][0]]]
    return node


def _renumber_padding(padding: dict[str, Any] | None, new: Mapping[int, int]) -> dict[str, Any] | None:
    if padding is None:
        return None
    return padding | {"pad_id": new.get(padding["pad_id"], 0)}


def _require_same_ids(tokenizer: dict[str, Any], expected: dict[str, int], source: str) -> None:
    """Load the tokenizer as users will; where a file has gaps, the library gives added tokens other ids."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(json.dumps(tokenizer)).get_vocab(with_added_tokens=True)
    if found != expected:
        wrong = sorted(text for text in found.keys() | expected.keys() if found.get(text) != expected.get(text))
        raise _other_ids(source, f"{len(wrong)} ({wrong[0]!r}, ...)")


def trim_folder(folder: Path, used: Iterable[int], out: Path) -> Vocabulary:
    """Write the tokenizer files of a model to `out`, trimmed to the `used` tokens; the weights are not changed.

    Args:
        folder: has tokenizer.json, and the configuration files that go with it.
        used: ids of the workload's rows.
        out: folder to write tokenizer.json, tokenizer_config.json and generation_config.json into; the chat template
            and the names of special tokens are copied.

    Raises:
        RecipeError: see `trim_tokenizer`.
    """
    source = folder / "tokenizer.json"
    tokenizer = read_json_object(source, error=RecipeError, most_bytes=MOST_TOKENIZER_BYTES)
    vocab = tokenizer["model"]["vocab"]
    config = read_tokenizer_config(folder)
    model, generation = (read_id_settings(folder / f"{name}.json") for name in ("config", "generation_config"))
    named = {vocab[text] for text in _named_texts(config) if text in vocab}
    named.update(*map(_named_ids, (model, generation)))
    vocabulary = trim_tokenizer(tokenizer, {*used, *named}, str(source))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "tokenizer.json", vocabulary.tokenizer)
    if config:
        if "added_tokens_decoder" in config:
            kept = ((vocabulary.new_ids.get(int(old)), token) for old, token in config["added_tokens_decoder"].items())
            config["added_tokens_decoder"] = {str(index): token for index, token in kept if index is not None}
        write_json(out / "tokenizer_config.json", config)
    if generation:
        write_json(out / "generation_config.json", generation | renumbered_settings(generation, vocabulary.new_ids))
    for name in _CARRIED:
        if (folder / name).is_file():
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, out / name)
    return vocabulary


def _named_texts(config: Mapping[str, Any]) -> Iterator[str]:
    """Tokens that tokenizer_config.json gives a role; the export looks for all of them."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    parts = [value for key, value in config.items() if key.endswith("_token")]
    for value in (*parts, *(extra.values() if isinstance(extra, dict) else extra)):
        if (text := token_text(value)) is not None:
            yield text


def _id_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of config.json or generation_config.json that hold token ids."""
    lists = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
    return {
        key: value
        for key, value in config.items()
        if value is not None and (key in lists or key.endswith(("_token_id", "_token_ids")))
    }


def _named_ids(config: Mapping[str, Any]) -> Iterator[int]:
    """Ids that a configuration gives a role. Lists of tokens to avoid are no reason to keep a token."""
    for key, value in _id_settings(config).items():
        if key.endswith("_token_id"):
            yield from value if isinstance(value, list) else [value]


def renumbered_settings(config: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """The settings of a configuration that hold token ids, with the new ids; None for an id whose token is not kept,
    and for a list without kept ids."""
    found = {key: _renumber(value, new) for key, value in _id_settings(config).items()}
    return {key: None if value == [] else value for key, value in found.items()}
