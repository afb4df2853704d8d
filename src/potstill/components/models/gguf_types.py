"""GGUF's tensor types, and llama.cpp's rules for the type of each tensor in a quantized file.

Predictions and the exporter use the same rules: those of llama.cpp's `llama-quant.cpp`, with experts and 80-layer
models. A tensor has its GGUF name (`blk.3.ffn_down.weight`), and its dimensions are rows first; the last one is the row
that is cut into blocks.
"""

from __future__ import annotations

import math

__all__ = [
    "BLOCKS", "QUANTIZATIONS", "TYPE_NAMES", "bytes_per_element", "is_large", "stored_bytes", "tensor_type",
    "usual_quantization",
]  # fmt: skip

BLOCKS: dict[str, tuple[int, int]] = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "F64": (1, 8), "I8": (1, 1), "I16": (1, 2), "I32": (1, 4),
    "I64": (1, 8), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "Q8_1": (32, 40), "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176),
    "Q6_K": (256, 210), "Q8_K": (256, 292), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74), "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50), "IQ4_NL": (32, 18), "IQ3_S": (256, 110), "IQ2_S": (256, 82), "IQ4_XS": (256, 136),
    "IQ1_M": (256, 56), "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17),
}  # fmt: skip
"""Weights and bytes of one block (ggml-common.h)."""

TYPE_NAMES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""Number of a type in a GGUF file (ggml.h) -> its name, for the types that files hold."""

QUANTIZATIONS: dict[str, str] = {
    "F32": "F32", "F16": "F16", "BF16": "BF16", "Q8_0": "Q8_0", "Q6_K": "Q6_K", "Q5_K_M": "Q5_K", "Q5_K_S": "Q5_K",
    "Q4_K_M": "Q4_K", "Q4_K_S": "Q4_K", "Q4_0": "Q4_0", "Q3_K_L": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_S": "Q3_K",
    "Q2_K": "Q2_K", "MXFP4_MOE": "MXFP4",
}  # fmt: skip
"""Name that a user gives -> type of an ordinary matrix. MXFP4_MOE has everything but the experts in Q8_0."""

_PUBLISHED = {"gpt-oss": "MXFP4_MOE"}
"""Architectures whose weights were published in a quantization."""
_FLOATS = ("F32", "F16", "BF16")
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
# small or sensitive matrices that are not quantized; the converter stores them in F32
_NEVER = ("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "ssm_conv1d", "rope_freqs")


def usual_quantization(architecture: str) -> str:
    """The quantization in which a model is planned where none is chosen: that of its publisher, or Q4_K_M."""
    return _PUBLISHED.get(architecture, "Q4_K_M")


def stored_bytes(dims: tuple[int, ...], kind: str) -> int:
    """Bytes of a tensor in a type, without the padding after it."""
    weights, nbytes = BLOCKS[kind]
    return math.prod(dims) // weights * nbytes


def bytes_per_element(kind: str) -> float:
    """Bytes of one element of a type (F16 2, Q8_0 34/32)."""
    weights, nbytes = BLOCKS[kind]
    return nbytes / weights


def _more_bits(layer: int, layers: int) -> bool:
    """Whether a medium mixture gives attn_v and ffn_down more bits: in an eighth of the layers at each end, in a third
    of those between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _fitting(kind: str, row: int) -> str:
    """The type, or its replacement where its block does not divide a row."""
    for candidate in (kind, _FALLBACK.get(kind, "F16")):
        if row % BLOCKS[candidate][0] == 0:
            return candidate
    return "F16"


def _value_type(ordinary: str, quantization: str, layer: int, layers: int, gqa: int) -> str:
    """Type of attn_v, or of the fused attn_qkv, which the quantizer treats in the same way."""
    if quantization == "Q2_K":
        return "Q4_K" if gqa >= 4 else "Q3_K"
    if quantization == "Q3_K_M":
        return "Q5_K" if layer < 2 else "Q4_K"
    if quantization == "Q3_K_L":
        return "Q5_K"
    if quantization in ("Q4_K_M", "Q5_K_M") and _more_bits(layer, layers):
        return "Q6_K"
    return "Q5_K" if quantization == "Q4_K_S" and layer < 4 else ordinary


def _down_type(ordinary: str, quantization: str, layer: int, layers: int) -> str:
    if quantization in ("Q2_K", "Q3_K_L"):
        return {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K"}[quantization]
    if quantization == "Q3_K_M":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if quantization in ("Q4_K_M", "Q5_K_M"):
        return "Q6_K" if _more_bits(layer, layers) else ordinary
    return "Q5_K" if quantization == "Q4_K_S" and layer < layers // 8 else ordinary


def _output_projection_type(ordinary: str, quantization: str, experts: int) -> str:
    if experts == 8:
        small = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M")
        return "Q5_K" if quantization in small else ordinary
    return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(quantization, ordinary)


def tensor_type(
    name: str,
    dims: tuple[int, ...],
    quantization: str,
    *,
    layers: int,
    tied: bool,
    gqa: int = 1,
    experts: int = 0,
    large: bool = False,
    importance: bool = False,
) -> str:
    """Type of one tensor of a file.

    Args:
        name: GGUF name.
        dims: dimensions, rows first.
        quantization: a key of `QUANTIZATIONS`.
        layers: number of layers.
        tied: whether the token embedding is the output matrix too.
        gqa: query heads per key-value head.
        experts: experts in each expert layer; 0 for a dense model.
        large: llama.cpp treats the model as a 70B (see `is_large`), and attn_v keeps five bits.
        importance: there is an importance matrix, with which Q4_0 keeps the first ffn_down matrices in Q4_1.

    Raises:
        KeyError: the quantization is not known.
    """
    ordinary = QUANTIZATIONS[quantization]
    if len(dims) < 2 or not name.endswith(".weight") or any(part in name for part in _NEVER):
        return "F32"
    if ordinary in _FLOATS:
        return ordinary
    layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
    kind = ordinary
    if quantization == "MXFP4_MOE":
        kind = "MXFP4" if len(dims) == 3 else "Q8_0"
    elif name == ("token_embd.weight" if tied else "output.weight"):
        kind = "Q8_0" if ordinary == "Q8_0" or dims[-1] % BLOCKS[ordinary][0] else "Q6_K"
    elif name.endswith((".attn_v.weight", ".attn_qkv.weight")):
        kind = _value_type(ordinary, quantization, layer, layers, gqa)
        kind = "Q5_K" if large and kind in ("Q3_K", "Q4_K") else kind
        kind = "Q8_0" if experts == 8 else kind
    elif name.endswith(".attn_k.weight"):
        kind = "Q8_0" if experts == 8 else ordinary
    elif "ffn_down" in name:
        kind = _down_type(ordinary, quantization, layer, layers)
        kind = "Q4_1" if importance and quantization == "Q4_0" and layer < layers // 8 else kind
    elif name.endswith(".attn_output.weight"):
        kind = _output_projection_type(ordinary, quantization, experts)
    return _fitting(kind, dims[-1])


def is_large(architecture: str, layers: int, gqa: int) -> bool:
    """Whether llama.cpp treats a model as a 70B."""
    return layers == 80 and (architecture in ("qwen2", "qwen2vl") or (architecture == "llama" and gqa > 1))
