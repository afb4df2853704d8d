"""Small stores of targets, and shards with right checksums and wrong content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from potstill.components.targets import TargetsMeta, TargetsWriter, sequence_key
from potstill.components.targets import shards as shard_file

V = 40
KEYS = [sequence_key(list(range(start, start + 12)), 4) for start in range(3)]
Change = Callable[[dict[str, Any], dict[str, bytes]], None]


def meta_of(kind: str) -> TargetsMeta:
    of_kind: dict[str, Any] = {"counts": {"draws": 20, "seed": 1}, "top_k": {"k": 5}}[kind]
    names = {"teacher_hash": "a", "tokenizer_hash": "b", "template_hash": "c", "dtype": "float32"}
    return TargetsMeta.model_validate({"kind": kind, "vocab_size": V, **of_kind, **names})


def write_store(folder: Path, kind: str) -> Path:
    rng = np.random.default_rng(0)
    with TargetsWriter(folder, meta_of(kind)) as writer:
        for key in KEYS:
            writer.add(key, (rng.normal(size=(key.tokens, V)) * 3).astype(np.float32))
    return folder / "shard-000000.targets"


def forge(path: Path, change: Change, change_footer: Callable[[dict[str, Any]], bytes] | None = None) -> None:
    """Change footer and sections of a shard, and make all places and checksums right again."""
    data, magic, tail = path.read_bytes(), shard_file._MAGIC, shard_file._TAIL
    end = len(data) - tail.size - len(magic)
    _, length = tail.unpack(data[end : end + tail.size])
    footer = json.loads(data[end - length : end])
    sections = {name: data[start : start + size] for name, (start, size, _) in footer["sections"].items()}
    footer["sections"] = {}
    change(footer, sections)
    offset = len(magic)
    for name, section in sections.items():
        footer["sections"].setdefault(name, [offset, len(section), shard_file._digest(section).hex()])
        offset += len(section)
    packed = (change_footer or _packed)(footer)
    mark = tail.pack(shard_file._digest(packed), len(packed))
    path.write_bytes(b"".join([magic, *sections.values(), packed, mark, magic]))


def _packed(footer: dict[str, Any]) -> bytes:
    return json.dumps(footer).encode()
