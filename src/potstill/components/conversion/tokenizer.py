"""Convert the tokenizer of a checkpoint, from its tokenizer.json, to GGUF metadata.

Two kinds are supported. Byte-level BPE becomes llama.cpp's `gpt2` model: tokens, merges and a pre-tokenizer by name.
SentencePiece-style BPE becomes its `llama` model: tokens and scores.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.components.chat.template import Templates
from potstill.components.chat.tokenizer_files import read_id_settings, read_tokenizer_config, token_text
from potstill.components.conversion.pretokenizers import APPROXIMATE, pre_tokenizer_name
from potstill.components.conversion.sentencepiece import BYTE_TOKENS, PREPEND_SPACE, read_sentencepiece
from potstill.components.conversion.tokenizer_file import Node, TokenizerFile
from potstill.core.errors import StepError

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["TokenizerMetadata", "read_tokenizer"]

# gguf.TokenType
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
# In files with these in their name, llama.cpp strips spaces after all added tokens but the ones below.
_STRIPPING_NAMES = ("phi-3", "phi3")
_NEVER_STRIPPED = {"<unk>", "<s>", "<|endoftext|>"}
_KEYS = {role: f"tokenizer.ggml.{role}_token_id" for role in ("bos", "eos", "eot", "eom")} | {
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}


@dataclass(frozen=True)
class TokenizerMetadata:
    """What GGUF records of a tokenizer; `special` holds ids under bos, eos, eot, eom, unk and pad."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str] | None
    scores: list[float] | None
    special: dict[str, int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool | None
    notes: tuple[str, ...]

    def write(self, writer: GGUFWriter, chat_template: Templates | None) -> None:
        """Put these into a GGUF file's metadata."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        for role, index in self.special.items():
            writer.add_uint32(_KEYS[role], index)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.add_space_prefix is not None:
            writer.add_add_space_prefix(self.add_space_prefix)
        if chat_template:
            named = zip(("default", "tool_use"), chat_template, strict=True)
            writer.add_chat_template([{"name": name, "template": source} for name, source in named if source])


def read_tokenizer(
    checkpoint: Path,
    vocab_size: int,
    *,
    chat: bool,
    name: str,
    adds_bos: bool = False,
    spoken: Collection[int] = (),
) -> TokenizerMetadata:
    """The tokenizer of a Hugging Face folder.

    Args:
        checkpoint: the folder, with tokenizer.json and, where there are, tokenizer_config.json, config.json and
            generation_config.json.
        vocab_size: rows of the embedding; ids beyond the tokenizer's become unused tokens.
        chat: whether the student is prompted through a chat template. All special tokens of a prompt are then the
            template's, in training as in llama.cpp, and what a post-processor would add does not count.
        name: the file's general.name, which changes what llama.cpp does.
        adds_bos: with a chat template, whether its text begins with the BOS token. llama.cpp then adds the token to
            text that comes without a template too, and leaves out the template's own.
        spoken: ids of special tokens that answers contain; llama.cpp shows them, and leaves out all other special ones.

    Raises:
        StepError: a file is missing or broken, or llama.cpp would tokenize text differently.
    """
    path = checkpoint / "tokenizer.json"
    tokenizer = TokenizerFile.read(path)
    words = _words(tokenizer, vocab_size, path)
    named = _named(read_tokenizer_config(checkpoint, error=StepError), words, path)
    before, after = ([], []) if chat else _template(tokenizer.post_processor, path)
    special = _special_ids(named, words, before, path)
    if after not in ([], [special["eos"]]):
        raise StepError(
            f"{path}: the post-processor ends a text with tokens {after}; llama.cpp can only add eos_token."
        )
    merges = tokenizer.model.pairs
    tokens = [words.get(i, f"[PAD{i}]") for i in range(vocab_size)]
    scores, lines, prefix = None, None, None
    if tokenizer.model.byte_fallback:
        model, pre = "llama", "default"
        piece = read_sentencepiece(tokenizer, merges, path, chat=chat)
        scores = [piece.scores.get(token, 0.0) for token in tokens]
        prefix, own_notes = piece.add_space_prefix, piece.notes
    else:
        model, (pre, own_notes) = "gpt2", _byte_level(tokenizer, words, path)
        lines = [f"{left} {right}" for left, right in merges]
    return TokenizerMetadata(
        model=model,
        pre=pre,
        tokens=tokens,
        types=_types(tokenizer, words, vocab_size, set(named.values()), spoken),
        merges=lines,
        scores=scores,
        special=special,
        add_bos=adds_bos if chat else bool(before),
        add_eos=bool(after),
        add_space_prefix=prefix,
        notes=(*own_notes, *_check_added_tokens(tokenizer, name, path)),
    )


def _words(tokenizer: TokenizerFile, vocab_size: int, path: Path) -> dict[int, str]:
    """Text of each id, added tokens included."""
    words = {index: text for text, index in tokenizer.model.vocab.items()}
    words |= {token.id: token.content for token in tokenizer.added_tokens}
    last = max(words)
    if last >= vocab_size:
        raise StepError(
            f"{path}: token {words[last]!r} has id {last}, but the model's vocabulary ends at {vocab_size - 1}. Call "
            "model.resize_token_embeddings(len(tokenizer)) before training."
        )
    ids: dict[str, int] = {}
    for index, text in words.items():
        if ids.setdefault(text, index) != index:
            raise StepError(
                f"{path}: ids {ids[text]} and {index} both have the token {text!r}, which llama.cpp does not load. "
                "Save the tokenizer again."
            )
    return words


def _named(config: Node, words: dict[int, str], path: Path) -> dict[str, int]:
    """Ids of the tokens that tokenizer_config.json gives a role: bos, eos, unk, pad, and extra tokens by their text."""
    found = {role: token_text(config.get(f"{role}_token")) for role in ("bos", "eos", "unk", "pad")}
    extras = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    texts = [token_text(value) for value in (extras.values() if isinstance(extras, dict) else extras)]
    found |= {f"extra {text}": text for text in texts}
    ids = {text: index for index, text in words.items()}
    for text in found.values():
        if text is not None and text not in ids:
            raise StepError(
                f"{path}: the special token {text!r} of tokenizer_config.json is not in it. Load the tokenizer with "
                "transformers and save it again with save_pretrained."
            )
    return {role: ids[text] for role, text in found.items() if text is not None}


def _template(node: Node | None, path: Path) -> tuple[list[int], list[int]]:
    """Ids that the post-processor puts before and after a text.

    Only the post-processor counts: transformers 5 ignores add_bos_token where there is a tokenizer.json.
    """
    if node is None or node["type"] == "ByteLevel":
        return [], []
    if node["type"] == "Sequence":
        parts = [_template(child, path) for child in node["processors"]]
        return [i for before, _ in reversed(parts) for i in before], [i for _, after in parts for i in after]
    if node["type"] != "TemplateProcessing":
        raise StepError(
            f"{path}: post-processor {node['type']} cannot be exported. Supported: ByteLevel and TemplateProcessing."
        )
    sides: tuple[list[int], list[int]] = ([], [])
    side = 0
    for piece in node["single"]:
        if "Sequence" in piece:
            side = 1
        else:
            sides[side].extend(node["special_tokens"][piece["SpecialToken"]["id"]]["ids"])
    return sides


def _special_ids(named: dict[str, int], words: dict[int, str], before: list[int], path: Path) -> dict[str, int]:
    """Ids of bos, eos, eot, eom, unk and pad: the tokenizer's own, then what the model's configuration says."""
    config, generation = (
        read_id_settings(path.parent / f"{stem}.json", error=StepError) for stem in ("config", "generation_config")
    )
    special: dict[str, int] = {role: named[role] for role in ("bos", "unk", "pad") if role in named}
    ends = [*_ids(named.get("eos")), *_ids(generation.get("eos_token_id")), *_ids(config.get("eos_token_id"))]
    ends = [index for index in dict.fromkeys(ends) if index in words]
    if not ends:
        raise StepError(
            f"{path.parent}: there is no end-of-sequence token, so the student would never stop. Set eos_token in "
            "tokenizer_config.json or eos_token_id in config.json."
        )
    special |= dict(zip(("eos", "eot", "eom"), ends, strict=False))
    if len(before) > 1 or (before and special.get("bos", before[0]) != before[0]):
        raise StepError(
            f"{path}: the post-processor starts a text with tokens {before}; llama.cpp can only add bos_token."
        )
    # without one, llama.cpp uses id 11, whatever that is, and gives it to the chat template as bos_token
    fallback = next((index for index in _ids(config.get("bos_token_id")) if index in words), special["eos"])
    special.setdefault("bos", before[0] if before else fallback)
    return special


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int)]


def _types(
    tokenizer: TokenizerFile, words: dict[int, str], vocab_size: int, named: set[int], spoken: Collection[int]
) -> list[int]:
    """GGUF's token type of each id."""
    types = [_NORMAL if index in words else _UNUSED for index in range(vocab_size)]
    model = tokenizer.model
    if model.byte_fallback:
        for text in BYTE_TOKENS:
            if text in model.vocab:
                types[model.vocab[text]] = _BYTE
    for token in tokenizer.added_tokens:
        # transformers treats tokens that tokenizer_config.json names as special, even without the flag
        special = (token.special or token.id in named) and token.id not in spoken
        types[token.id] = _CONTROL if special else _USER_DEFINED
    if model.byte_fallback and model.unk_token in model.vocab:
        types[model.vocab[model.unk_token]] = _UNKNOWN
    return types


def _byte_level(tokenizer: TokenizerFile, words: dict[int, str], path: Path) -> tuple[str, tuple[str, ...]]:
    """Name of a byte-level tokenizer's pre-tokenizer, and notes on what llama.cpp does differently."""
    notes = []
    for step in tokenizer.normalizer_steps:
        if step["type"] != "NFC":
            raise StepError(
                f"{path}: normalizer {step['type']} cannot be exported: llama.cpp's BPE tokenizers normalize nothing. "
                "Use a student whose tokenizer has no normalizer, or NFC."
            )
        notes.append("llama.cpp does not normalize text to NFC, so it tokenizes text with combining marks differently")
    pre = pre_tokenizer_name(tokenizer, str(path))
    if pre in APPROXIMATE:
        notes.append(
            f"llama.cpp's {pre!r} pre-tokenizer is only close to the original: {APPROXIMATE[pre]} may be tokenized "
            "differently"
        )
    if tokenizer.model.unk_token and sum(len(text) == 1 for text in words.values()) < 256:
        notes.append("llama.cpp drops bytes that have no token, and tokenizer.json turns them into the unknown token")
    return pre, tuple(notes)


def _check_added_tokens(tokenizer: TokenizerFile, name: str, path: Path) -> tuple[str, ...]:
    """Notes on settings of added tokens that llama.cpp ignores.

    Raises:
        StepError: it would certainly tokenize text around them differently.
    """
    added = tokenizer.added_tokens
    normalized = [token.content for token in added if token.normalized]
    if PREPEND_SPACE in tokenizer.normalizer_steps and normalized:
        raise StepError(
            f"{path}: the added token {normalized[0]!r} is normalized, so tokenizer.json finds it only after a space "
            "and llama.cpp finds it everywhere. Add such tokens as AddedToken(..., normalized=False), and train again."
        )
    flagged = {
        flag: {token.content for token in added if getattr(token, flag)} for flag in ("lstrip", "rstrip", "single_word")
    }
    if any(family in name.lower() for family in _STRIPPING_NAMES):
        contents = {token.content for token in added}
        if flagged["rstrip"] != contents - _NEVER_STRIPPED or not contents >= _NEVER_STRIPPED:
            raise StepError(
                f"The name {name!r} makes llama.cpp drop the spaces after special tokens, as Phi-3's tokenizer does "
                "and this one does not. Choose a recipe name without 'phi-3' and 'phi3'."
            )
        flagged["rstrip"] = set()
    return tuple(
        f"llama.cpp ignores {flag} of added tokens ({', '.join(map(repr, sorted(texts)[:3]))}; {len(texts)} in all)"
        for flag, texts in flagged.items()
        if texts
    )
