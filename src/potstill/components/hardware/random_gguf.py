"""GGUF files with random weights: memory and speed are those of a real model.

For `potstill calibrate-device`, the benchmark and the tests. llama.cpp loads a file only if it has every tensor in the
shape that it expects, so a file that loads proves its spec.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.components.models.gguf_types import BLOCKS
from potstill.components.models.spec import ModelSpec

__all__ = ["random_metadata", "write_random_gguf"]

# offsets of a block's 16-bit scales; MXFP4 has a power of two in one byte instead
_SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "MXFP4": (),
}  # fmt: skip
_SCALE = np.float16(0.002)
_POWER = 127 - 9
_BLOCKS_AT_ONCE = 1 << 14


def random_metadata(spec: ModelSpec) -> dict[str, Any]:
    """The keys of such a file: the sizes, a vocabulary of bytes and numbers, and a minimal chat template."""
    arch, first, tensors = spec.architecture, spec.attention[0], spec.tensors
    latent = "blk.0.attn_kv_a_mqa.weight" in tensors
    heads = tensors["blk.0.attn_k_b.weight"][0] if latent else first.queries // first.key
    sizes: dict[str, Any] = {
        "block_count": spec.layers,
        "context_length": spec.context or 32768,
        "embedding_length": spec.hidden,
        "feed_forward_length": _dense_width(spec),
        "attention.head_count": heads,
        "attention.head_count_kv": first.kv_heads,
        "attention.key_length": first.key,
        "attention.value_length": first.key if not latent else tensors["blk.0.attn_v_b.weight"][2],
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": spec.vocab,
        "rope.dimension_count": first.key,
        "rope.freq_base": 10000.0,
    }
    windows = [layer.window for layer in spec.attention if layer.window]
    if windows:
        sizes["attention.sliding_window"] = windows[0]
    if latent:
        sizes |= _latent_sizes(spec)
    if spec.experts:
        sizes |= _expert_sizes(spec)
    if "rope_factors_long.weight" in tensors:
        sizes["rope.dimension_count"] = 2 * tensors["rope_factors_long.weight"][0]
    if arch == "qwen2vl":  # parts of a head that encode time, height and width of an image
        sizes["rope.dimension_sections"] = [first.key // 2 - 2 * (first.key // 6), first.key // 6, first.key // 6, 0]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *(f"t{i}" for i in range(spec.vocab - 259))]
    return {
        "general.architecture": arch,
        **{f"{arch}.{key}": value for key, value in sizes.items()},
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * spec.vocab,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (spec.vocab - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }


def _dense_width(spec: ModelSpec) -> int:
    for i in range(spec.layers):
        dims = spec.tensors.get(f"blk.{i}.ffn_down.weight")
        if dims:
            return dims[1]
    return spec.tensors["blk.0.ffn_down_exps.weight"][2]


def _latent_sizes(spec: ModelSpec) -> dict[str, Any]:
    tensors = spec.tensors
    _, rank, key = tensors["blk.0.attn_k_b.weight"]
    rope = tensors["blk.0.attn_kv_a_mqa.weight"][0] - rank
    query_rank = tensors.get("blk.0.attn_q_a.weight", (0,))[0]
    return {
        "attention.kv_lora_rank": rank,
        **({"attention.q_lora_rank": query_rank} if query_rank else {}),
        "attention.key_length_mla": key + rope,
        "attention.value_length_mla": tensors["blk.0.attn_v_b.weight"][1],
        "rope.dimension_count": rope,
    }


def _expert_sizes(spec: ModelSpec) -> dict[str, Any]:
    tensors = spec.tensors
    mixed = [i for i in range(spec.layers) if f"blk.{i}.ffn_up_exps.weight" in tensors]
    width = tensors[f"blk.{mixed[0]}.ffn_up_exps.weight"][1]
    shared = tensors.get(f"blk.{mixed[0]}.ffn_up_shexp.weight", (0,))[0]
    sizes: dict[str, Any] = {
        "expert_count": spec.experts,
        "expert_used_count": spec.experts_used,
        "expert_feed_forward_length": width,
    }
    if shared:
        sizes |= {"expert_shared_count": shared // width, "expert_shared_feed_forward_length": shared}
    if "blk.0.attn_kv_a_mqa.weight" in tensors:
        dense = sum(f"blk.{i}.ffn_up.weight" in tensors for i in range(spec.layers))
        sizes |= {"leading_dense_block_count": dense, "expert_weights_scale": 1.0, "expert_gating_func": 2}
    if spec.architecture == "llama4":
        sizes["interleave_moe_layer_step"] = mixed[0] + 1
    return sizes


def write_random_gguf(spec: ModelSpec, path: Path, metadata: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Write the file.

    Args:
        spec: the model, with types.
        path: the file to write.
        metadata: its keys; `random_metadata` where None.
        seed: of the weights.
    """
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, spec.architecture)
    keys = metadata or random_metadata(spec)
    for key, value in keys.items():
        if key != "general.architecture":
            _add(writer, key, value)
    sizes = spec.tensor_bytes()
    for name, dims in spec.tensors.items():
        kind = GGMLQuantizationType[spec.types[name]]
        writer.add_tensor_info(name, dims, np.dtype(np.float32), sizes[name], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(seed)
    for name, dims in spec.tensors.items():
        writer.write_tensor_data(_random(rng, name, dims, spec.types[name], sizes[name]))
    writer.close()


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def _random(rng: np.random.Generator, name: str, dims: tuple[int, ...], kind: str, nbytes: int) -> NDArray[np.uint8]:
    """The tensor's bytes: norms of 1, small normal random numbers, or blocks of random bits with small scales."""
    count = math.prod(dims)
    if "norm.weight" in name or name.startswith("rope_"):
        return np.ones(count, np.float32).view(np.uint8)
    if kind in ("F32", "F16"):
        dtype = np.float32 if kind == "F32" else np.float16
        some = (rng.standard_normal(min(count, 1 << 20)) * 0.02).astype(dtype)
        return np.resize(some, count).view(np.uint8)
    if kind == "BF16":
        some32 = (rng.standard_normal(min(count, 1 << 20)) * 0.02).astype(np.float32)
        return np.resize((some32.view(np.uint32) >> 16).astype(np.uint16), count).view(np.uint8)
    size = BLOCKS[kind][1]
    blocks = rng.integers(0, 256, (min(nbytes // size, _BLOCKS_AT_ONCE), size), dtype=np.uint8)
    for at in _SCALES[kind]:
        blocks[:, at : at + 2] = np.frombuffer(_SCALE.tobytes(), np.uint8)
    if kind == "MXFP4":
        blocks[:, 0] = _POWER
    return np.resize(blocks, nbytes)
