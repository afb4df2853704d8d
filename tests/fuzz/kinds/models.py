"""Hostile files of models: config, tokenizer, weights, and GGUF, also inside llama.cpp."""

from __future__ import annotations

import json
import random
import struct
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from fixtures import CONFIGS, TEMPLATE, TOOLS
from fuzz.harness import SENTINEL, Make
from fuzz.kinds.texts import ASKED, PIECES, byte_tokenizer
from fuzz.mutate import damaged_bytes, damaged_json, written
from potstill.components.chat.format import load_chat
from potstill.components.hardware.calibrate import serve_once
from potstill.components.models.configs import from_config
from potstill.components.models.folder import resolve_model
from potstill.components.models.gguf_header import from_gguf
from potstill.components.models.safetensors import safetensors_format, safetensors_shapes
from potstill.components.models.source import load_spec
from potstill.components.runtimes import gguf
from potstill.core.errors import StepError

__all__ = ["MODEL_KINDS"]


# ---- files of models ----


@cache
def _configs() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*.json"))]


def _config(r: random.Random, folder: Path) -> Callable[[], object]:
    path = written(folder / "config.json", damaged_json(r, r.choice(_configs())))
    return lambda: load_spec(str(path))


_TOKENIZER_CONFIG = {
    "bos_token": None,
    "eos_token": {"content": "<|im_end|>", "special": True},
    "chat_template": TEMPLATE,
    "unk_token": "x",
    "additional_special_tokens": ["<|im_start|>"],
    "model_max_length": 512,
    "tokenizer_class": "PreTrainedTokenizerFast",
}


def _tokenizer_files(r: random.Random, folder: Path) -> Callable[[], object]:
    files: dict[str, Any] = {
        "tokenizer_config.json": _TOKENIZER_CONFIG,
        "generation_config.json": {"eos_token_id": [257, 258], "temperature": 0.7},
        "tokenizer.json": json.loads(byte_tokenizer().to_str()),
    }
    spoilt = r.choice(list(files))
    for name, value in files.items():
        written(folder / name, damaged_json(r, value) if name == spoilt else json.dumps(value).encode())

    def call() -> None:
        chat = load_chat(folder)
        try:
            chat.render(ASKED.messages, tuple(TOOLS), generate=True)
        except ValueError as error:
            raise StepError(str(error)) from None

    return call


def _safetensors(r: random.Random, folder: Path) -> Callable[[], object]:
    header = {
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "__metadata__": {"format": "pt"},
    }
    text = damaged_json(r, header)
    size = r.choice([len(text), len(text), len(text) + 1, 0, 2**63 - 1, 2**64 - 1, 1 << 30])
    data = struct.pack("<Q", size) + text + bytes(32)
    written(folder / "model.safetensors", damaged_bytes(r, data) if r.random() < 0.2 else data)

    def call() -> None:
        safetensors_shapes(folder)
        safetensors_format(folder)

    return call


_FOLDER: dict[str, dict[str, Any]] = {
    "config.json": {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "text_config": {"vocab_size": 300, "vision": [{"hidden_size": 64}], "_attn_implementation": "eager"},
        "attn_implementation": {"": "sdpa", "text_config": "eager"},
        "_experts_implementation": "grouped_mm",
    },
    "tokenizer_config.json": {"tokenizer_class": "T", "eos_token": "x"},
    "generation_config.json": {"eos_token_id": 2, "custom_generate": "own"},
    "model.safetensors.index.json": {"metadata": {"total_size": 1}, "weight_map": {"a.weight": "m-1.safetensors"}},
}
_CODE: dict[str, Any] = {
    "auto_map": {"AutoConfig": "own.C", "AutoTokenizer": ["own.T", None]},
    "attn_implementation": "someone/kernels",
    "transformers_weights": "pytorch_model.bin",
    "num_layers": 2**31,
}


def _model_folder(r: random.Random, folder: Path) -> Callable[[], object]:
    files = deepcopy(_FOLDER)
    for key in r.sample(sorted(_CODE), r.choice([0, 0, 0, 1, 2])):
        name = r.choice(list(files))
        # at the top of a config.json, auto_map loads transformers, which takes as long as a hang on a busy machine
        inner = key == "auto_map" and name == "config.json"
        (files[name]["text_config"] if inner else files[name])[key] = _CODE[key]
    spoilt = r.choice(list(files))
    for name, value in files.items():
        written(folder / name, damaged_json(r, value) if name == spoilt else json.dumps(value).encode())
    header = json.dumps({"a.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    written(folder / "m-1.safetensors", struct.pack("<Q", len(header)) + header + bytes(8))
    written(folder / "own.py", f"open({str(folder / SENTINEL)!r}, 'w')".encode())
    if r.random() < 0.1:
        written(folder / r.choice(["adapter_model.bin", "adapter_config.json", "pytorch_model.bin"]), b"{}")
    return lambda: resolve_model(str(folder))


_BLOCK = {
    "attn_norm": (64,),
    "attn_q": (64, 64),
    "attn_k": (64, 32),
    "attn_v": (64, 32),
    "attn_output": (64, 64),
    "ffn_norm": (64,),
    "ffn_gate": (64, 128),
    "ffn_up": (64, 128),
    "ffn_down": (128, 64),
}


@cache
def _gguf_header() -> bytes:
    keys: list[tuple[str, int, bytes]] = [
        ("general.architecture", 8, _gguf_text("llama")),
        ("general.name", 8, _gguf_text("m")),
    ]
    numbers = {
        "block_count": 2,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "context_length": 256,
        "vocab_size": 300,
    }
    keys += [(f"llama.{name}", 4, struct.pack("<I", value)) for name, value in numbers.items()]
    keys.append(("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + b"".join(map(_gguf_text, "abc"))))
    tensors: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (64, 300)), ("output_norm.weight", (64,))]
    tensors += [(f"blk.{n}.{name}.weight", shape) for n in range(2) for name, shape in _BLOCK.items()]
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    out += b"".join(_gguf_text(key) + struct.pack("<I", kind) + value for key, kind, value in keys)
    for name, shape in tensors:
        out += _gguf_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, 0)
    return out


def _gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _gguf(r: random.Random, folder: Path) -> Callable[[], object]:
    data = bytearray(damaged_bytes(r, _gguf_header()) if r.random() < 0.5 else _gguf_header())
    if r.random() < 0.7:  # one count or length is another
        at = r.randrange(4, max(len(data) - 8, 5))
        data[at : at + 8] = struct.pack("<Q", r.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1]))
    path = written(folder / "m.gguf", bytes(data))
    with path.open("r+b") as file:
        file.truncate(len(data) + 1_000_000)  # room for the tensors
    if r.random() < 0.2:  # a sparse file, whose size makes any length plausible
        with path.open("r+b") as file:
            file.truncate(1 << 40)
    return lambda: load_spec(str(path))


@cache
def _served_gguf() -> bytes:
    """A small model that llama.cpp loads in milliseconds."""
    from potstill.components.hardware.random_gguf import random_metadata, write_random_gguf

    spec = from_config(_TINY).quantized("F32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        write_random_gguf(spec, path, random_metadata(spec) | {"tokenizer.chat_template": _MARK})
        return path.read_bytes()


_TINY = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 1400,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}
_MARK = "{# a template #}" * 10


def _llama(r: random.Random, folder: Path) -> Callable[[], object]:
    """A file that llama.cpp itself opens, as `potstill calibrate-device` runs it."""
    whole = _served_gguf()
    data = bytearray(whole)
    change = r.randrange(4)
    if change == 0:
        text = "".join(r.choice(PIECES) for _ in range(r.randrange(1, 6))).encode()
        data = bytearray(whole.replace(_MARK.encode(), text[: len(_MARK)].ljust(len(_MARK))))
    elif change == 1:
        at = r.randrange(24, len(whole) // 8)
        data[at] = r.randrange(256)
    elif change == 2:
        for _ in range(2000):
            data[r.randrange(len(whole) // 2, len(whole))] = r.randrange(256)
    path = written(folder / "m.gguf", bytes(data))

    def call() -> None:
        gguf._LOAD_SECONDS = 0.9  # the harness waits for ten seconds
        from_gguf(path)
        serve_once(path, context=128, prompt=8, decode=2)

    return call


MODEL_KINDS: list[tuple[str, Make, float]] = [
    ("config", _config, 2.0),
    ("tokenizer", _tokenizer_files, 1.0),
    ("folder", _model_folder, 1.0),
    ("safetensors", _safetensors, 2.0),
    ("gguf", _gguf, 2.0),
    ("llama", _llama, 0.05),  # each starts a process
]
