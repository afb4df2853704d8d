"""Two tokenizers compared: the bytes of their tokens, the tokens that they share, and a text that both have tokenized.

Shapes: S student tokens, T teacher tokens, P spans, M matched pairs of tokens.

A span is the shortest sequence of bytes between two places at which both tokenizations start a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Spans", "VocabMap", "align", "token_bytes"]

_MARK = b"\xff"  # the first byte of a special token; no UTF-8 text contains it


def token_bytes(tokenizer: Mapping[str, Any], roles: Mapping[str, int] | None = None) -> list[bytes | None]:
    """The bytes of each token id of a parsed tokenizer.json; None for an id without a token.

    A special token stands for no text: its bytes are a mark and its content, or its role.

    Args:
        tokenizer: a byte-level BPE tokenizer, or one of SentencePiece's kind, with U+2581 for a space.
        roles: ids of special tokens that mean the same to both sides under different names, for example {"eos": 2}.

    Raises:
        ValueError: the tokenizer is of another kind, or has no such id.
    """
    kinds = {node.get("type") for node in _nodes(tokenizer.get("decoder"))}
    if not kinds & {"ByteLevel", "Replace", "Metaspace"}:
        raise ValueError(f"the bytes of a tokenizer with decoder {sorted(map(str, kinds))} are not known")
    vocab = tokenizer["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {entry[0]: number for number, entry in enumerate(vocab)}
    added = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    tokens: list[bytes | None] = [None] * (max([*ids.values(), *added]) + 1)
    back = {char: byte for byte, char in enumerate(_byte_level_alphabet())} if "ByteLevel" in kinds else None
    for text, number in ids.items():
        tokens[number] = _plain_bytes(text, back)
    for number, entry in added.items():
        tokens[number] = (_MARK if entry["special"] else b"") + entry["content"].encode()
    for role, number in (roles or {}).items():
        if not 0 <= number < len(tokens):
            raise ValueError(f"role {role!r} is id {number}, but the tokenizer has {len(tokens)} ids")
        tokens[number] = _MARK + role.encode()
    return tokens


def _nodes(node: Any) -> Iterator[Mapping[str, Any]]:
    if node:
        yield node
        for inner in node.get("decoders", []):
            yield from _nodes(inner)


def _byte_level_alphabet() -> list[str]:
    """GPT-2's character for each byte: printable Latin-1 characters themselves, and U+0100 and up for other bytes."""
    same = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = {byte: 256 + place for place, byte in enumerate(b for b in range(256) if b not in same)}
    return [chr(others.get(byte, byte)) for byte in range(256)]


def _plain_bytes(text: str, back: Mapping[str, int] | None) -> bytes:
    if back is not None:
        return bytes(back[char] for char in text) if all(char in back for char in text) else text.encode()
    byte = _fallback_byte(text)
    return text.replace("\u2581", " ").encode() if byte is None else bytes([byte])


def _fallback_byte(text: str) -> int | None:
    return int(text[3:5], 16) if len(text) == 6 and text.startswith("<0x") and text.endswith(">") else None


@dataclass(frozen=True)
class VocabMap:
    """Which tokens of two vocabularies have the same bytes. Indices are int64.

    student_tokens, teacher_tokens  bytes of each id
    student_M, teacher_M            ids of each pair
    student_rest, teacher_rest      ids without a counterpart
    pair_of                         number of the first pair with these bytes
    pairs                           number of the pair with these two ids
    """

    student_tokens: Sequence[bytes | None]
    teacher_tokens: Sequence[bytes | None]
    student_M: Tensor
    teacher_M: Tensor
    student_rest: Tensor
    teacher_rest: Tensor
    pair_of: Mapping[bytes, int]
    pairs: Mapping[tuple[int, int], int]

    @staticmethod
    def of(student: Sequence[bytes | None], teacher: Sequence[bytes | None]) -> VocabMap:
        """The map of two vocabularies, from `token_bytes`. Ids with the same bytes are paired from the highest down.

        The highest of such ids is the one that encoding gives: byte tokens come first, and added tokens last.
        """
        if list(student) == list(teacher):
            pairs = [(number, number) for number in range(len(student))]
        else:
            theirs = _ids_of(teacher)
            pairs = [
                pair for text, ids in _ids_of(student).items() for pair in zip(ids, theirs.get(text, []), strict=False)
            ]
        pair_of: dict[bytes, int] = {}
        for number, (student_id, _) in enumerate(pairs):
            text = student[student_id]
            if text is not None:
                pair_of.setdefault(text, number)
        numbers = {pair: number for number, pair in enumerate(pairs)}
        student_M, teacher_M = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        rests = [
            torch.ones(len(tokens), dtype=torch.bool).index_fill_(0, ids_M, False).nonzero()[:, 0]
            for tokens, ids_M in ((student, student_M), (teacher, teacher_M))
        ]
        return VocabMap(student, teacher, student_M, teacher_M, rests[0], rests[1], pair_of, numbers)

    @property
    def share(self) -> float:
        """Fraction of the student's tokens that have a counterpart."""
        return len(self.student_M) / max(1, len(self.student_tokens))

    def to(self, device: torch.device | str) -> VocabMap:
        """The map, with its indices on another device."""
        names = "student_M", "teacher_M", "student_rest", "teacher_rest"
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def _ids_of(tokens: Sequence[bytes | None]) -> dict[bytes, list[int]]:
    ids: dict[bytes, list[int]] = {}
    for number in reversed(range(len(tokens))):
        if text := tokens[number]:
            ids.setdefault(text, []).append(number)
    return ids


class Spans(NamedTuple):
    """Spans of one or more texts. A span begins where the one before it ends.

    student_ids_S, teacher_ids_T    the tokens, int64
    student_ends_P, teacher_ends_P  number of tokens up to the end of each span
    whole_P                         the pair whose token is the whole span; -1 if there is none
    weight_P                        fp32; 0 for a span before which the two sides have not read the same bytes
    """

    student_ids_S: Tensor
    teacher_ids_T: Tensor
    student_ends_P: Tensor
    teacher_ends_P: Tensor
    whole_P: Tensor
    weight_P: Tensor

    @staticmethod
    def cat(parts: Sequence[Spans]) -> Spans:
        """The spans of several texts, joined."""
        fields = [torch.cat(list(field)) for field in zip(*parts, strict=True)]
        for ids, ends in ((0, 2), (1, 3)):
            before = accumulate((len(part[ids]) for part in parts), initial=0)
            fields[ends] = torch.cat([part[ends] + count for part, count in zip(parts, before, strict=False)])
        return Spans(*fields)


def align(student_ids: Sequence[int], teacher_ids: Sequence[int], vocab: VocabMap) -> Spans:
    """Spans of one text that both tokenizers have tokenized.

    A space that only one tokenizer puts before the text is left out. The tokens of the first span then have different
    bytes on the two sides, so its weight is 0.

    Raises:
        ValueError: an id has no token, or the two sides have different bytes.
    """
    pieces = _spell(student_ids, vocab.student_tokens, "student"), _spell(teacher_ids, vocab.teacher_tokens, "teacher")
    student, teacher = (b"".join(side) for side in pieces)
    spaces = [0, 0]
    if student != teacher and b" " + student == teacher:
        spaces[1] = 1
    elif student != teacher and student == b" " + teacher:
        spaces[0] = 1
    text = student[spaces[0] :]
    if text != teacher[spaces[1] :]:
        place = next((i for i, (a, b) in enumerate(zip(student, teacher, strict=False)) if a != b), -1)
        place = min(len(student), len(teacher)) if place < 0 else place
        raise ValueError(
            f"the tokens of student and teacher differ from byte {place} on: "
            f"{student[place : place + 20]!r} and {teacher[place : place + 20]!r}. "
            "Tokenize the same whole text, and name special tokens that mean the same in `roles`."
        )
    ends = [
        {end - space: count for count, end in enumerate(accumulate(map(len, side)), start=1)}
        for side, space in zip(pieces, spaces, strict=True)
    ]
    cuts = sorted(cut for cut in ends[0].keys() & ends[1].keys() if cut > 0)
    counts = [[ends[side][cut] for cut in cuts] for side in (0, 1)]
    whole = []
    for (start, stop), (a, b), (c, d) in zip(*(pairwise([0, *x]) for x in (cuts, *counts)), strict=True):
        number = vocab.pairs.get((student_ids[a], teacher_ids[c])) if b - a == d - c == 1 else None
        whole.append(vocab.pair_of.get(text[start:stop], -1) if number is None else number)
    weight_P = torch.ones(len(cuts))
    if any(spaces):
        weight_P[:1] = 0.0
    numbers = student_ids, teacher_ids, *counts, whole
    return Spans._make([*(torch.as_tensor(x, dtype=torch.int64) for x in numbers), weight_P])


def _spell(ids: Sequence[int], tokens: Sequence[bytes | None], who: str) -> list[bytes]:
    pieces = []
    for number in ids:
        piece = tokens[number] if 0 <= number < len(tokens) else None
        if not piece:
            raise ValueError(f"the {who}'s vocabulary of {len(tokens)} has no token of id {number}")
        pieces.append(piece)
    return pieces
