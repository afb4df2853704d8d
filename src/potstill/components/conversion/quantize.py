"""Quantize tensors, each to the type that `potstill.components.models.gguf_types` chooses.

The work is done by `ggml_quantize_chunk`, a C function of the llama.cpp library in the xllamacpp wheel, so the bytes
are llama.cpp's own. Where the library does not export it, gguf-py's numpy code produces the same bytes for some types.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from numpy.typing import NDArray

from potstill.components.models import gguf_types
from potstill.core.errors import StepError

__all__ = ["QUANTIZATIONS", "file_type", "quantize", "quantized_nbytes", "stored_values", "tensor_type"]

_Type = GGMLQuantizationType

# Name in a recipe -> file type in GGUF.
QUANTIZATIONS: dict[str, LlamaFileType] = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q6_K": LlamaFileType.MOSTLY_Q6_K,
    "Q5_K_M": LlamaFileType.MOSTLY_Q5_K_M,
    "Q4_K_M": LlamaFileType.MOSTLY_Q4_K_M,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}

# Types whose C code ignores the importance matrix, so numpy gives the same bytes with and without one.
_IGNORE_IMPORTANCE = (_Type.Q8_0,)
# Largest relative root-mean-square error of a correct quantizer on normal noise (measured: 0.005 to 0.08).
_MAX_ERROR = {_Type.Q4_K: 0.12, _Type.Q5_K: 0.06, _Type.Q6_K: 0.04}
_F16_MAX = 65504.0
_CHUNK_WEIGHTS = 1 << 20


def file_type(quantization: str) -> LlamaFileType:
    """The value of `general.file_type` of a file in this quantization.

    Raises:
        StepError: the quantization is not known.
    """
    if quantization not in QUANTIZATIONS:
        raise StepError(
            f"Quantization {quantization!r} is not known. Use one of {', '.join(QUANTIZATIONS)}, or export F16 and run "
            "llama.cpp's `llama-quantize` on it yourself."
        )
    return QUANTIZATIONS[quantization]


def tensor_type(
    name: str,
    shape: Sequence[int],
    n_layers: int,
    quantization: str,
    *,
    tied: bool,
    importance: bool = False,
    large: bool = False,
) -> GGMLQuantizationType:
    """The type of one tensor of a dense model's file; the rules are `potstill.components.models.gguf_types`'.

    Args:
        name: the tensor's GGUF name (`blk.3.ffn_down.weight`).
        shape: rows first, as numpy has it; the last axis is the row that is quantized.
        n_layers: transformer blocks of the model.
        quantization: a key of `QUANTIZATIONS`.
        tied: the file has no `output.weight`, so the token embedding is the output matrix too.
        importance: an importance matrix is used.
        large: llama.cpp treats the model as one of 70B parameters.

    Raises:
        StepError: the quantization is not known.
    """
    file_type(quantization)  # raises for an unknown one
    kind = gguf_types.tensor_type(
        name, tuple(shape), quantization, layers=n_layers, tied=tied, importance=importance, large=large
    )
    return GGMLQuantizationType[kind]


def _block(qtype: GGMLQuantizationType) -> tuple[int, int]:
    """Weights and bytes of one block."""
    weights, nbytes = gguf.GGML_QUANT_SIZES[qtype]
    return int(weights), int(nbytes)


def quantized_nbytes(shape: Sequence[int], qtype: GGMLQuantizationType) -> int:
    """Bytes of a tensor in a type; ValueError when the type's block does not divide the last axis."""
    weights, nbytes = _block(qtype)
    if shape[-1] % weights:
        raise ValueError(f"a row of {shape[-1]} weights is not a multiple of {qtype.name}'s block of {weights}")
    return math.prod(shape) // weights * nbytes


def quantize(
    array: NDArray[np.float32],
    qtype: GGMLQuantizationType,
    importance: NDArray[np.float32] | None = None,
    *,
    threads: int | None = None,
) -> NDArray[Any]:
    """A tensor in a GGUF type: F32 and F16 as numpy has them, other types as uint8 with rows of whole blocks.

    Args:
        array: float32, any shape; quantized along the last axis.
        qtype: a type that `tensor_type` gives.
        importance: weight of each column (mean of its squared inputs), float32, one value per column.
        threads: number of threads; None: one per processor.

    Raises:
        StepError: a value is not finite or too large for F16, or this machine cannot write the type.
        ValueError: the shapes do not fit.
    """
    array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise StepError(
            "the weights contain a NaN or an infinity: the training diverged, or the file is damaged. "
            "Export an earlier checkpoint."
        )
    if qtype is _Type.F32:
        return array
    if qtype is _Type.F16:
        largest = float(np.abs(array).max(initial=0.0))
        if largest > _F16_MAX:
            raise StepError(f"the largest weight, {largest:.4g}, does not fit F16 (65504 at most). Export BF16 or F32.")
        return array.astype(np.float16)
    nbytes = quantized_nbytes(array.shape, qtype)
    if importance is not None:
        importance = _checked_importance(importance, array.shape[-1])
    if qtype is not _Type.BF16 and _is_trusted(qtype):
        chunk = _native()
        assert chunk is not None
        return _run_native(chunk, array, qtype, importance, nbytes, threads or os.cpu_count() or 1)
    if not _numpy_knows(qtype) or (importance is not None and qtype not in _IGNORE_IMPORTANCE):
        raise StepError(
            f"{qtype.name} cannot be written here: the llama.cpp library of this machine's xllamacpp exports no usable "
            "`ggml_quantize_chunk`. Use Q8_0 or Q4_0 without an importance matrix, or export F16 and run llama.cpp's "
            "`llama-quantize` on it."
        )
    out: NDArray[Any] = gguf.quantize(array, qtype)
    return out


def stored_values(array: NDArray[np.float32], qtype: GGMLQuantizationType) -> NDArray[np.float32]:
    """The values that a file in this type has for a tensor: quantized, and read back.

    Raises:
        StepError: as `quantize`.
    """
    if qtype is _Type.F32:
        return np.ascontiguousarray(array, dtype=np.float32)
    with np.errstate(all="ignore"):  # huge weights give NaN, as they do in llama.cpp
        values: NDArray[np.float32] = gguf.dequantize(quantize(array, qtype), qtype)
    return values


def _checked_importance(importance: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    importance = np.ascontiguousarray(importance, dtype=np.float32)
    if importance.shape != (columns,):
        raise ValueError(
            f"importance has shape {importance.shape}, but a tensor of {columns} columns needs ({columns},)"
        )
    if not np.isfinite(importance).all() or (importance < 0).any():
        raise ValueError("importance must be finite and not negative")
    return importance


@cache
def _native() -> Callable[..., int] | None:
    """llama.cpp's `ggml_quantize_chunk(type, src, dst, start, rows, columns, importance)`, or None without one."""
    try:
        from xllamacpp import xllamacpp as library

        chunk = ctypes.CDLL(library.__file__).ggml_quantize_chunk
    except (ImportError, OSError, AttributeError):  # the Windows build exports no C symbols
        return None
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return chunk


def _run_native(
    chunk: Callable[..., int],
    array: NDArray[np.float32],
    qtype: GGMLQuantizationType,
    importance: NDArray[np.float32] | None,
    nbytes: int,
    threads: int,
) -> NDArray[np.uint8]:
    """Quantize blocks of rows in several threads: ctypes releases Python's lock while the C code runs."""
    columns = array.shape[-1]
    rows = array.size // columns
    out = np.empty(nbytes, dtype=np.uint8)
    weights = None if importance is None else importance.ctypes.data
    step = max(1, min(_CHUNK_WEIGHTS // columns, -(-rows // threads)))

    def work(first: int) -> int:
        count = min(step, rows - first)
        return chunk(int(qtype), array.ctypes.data, out.ctypes.data, first * columns, count, columns, weights)

    starts = range(0, rows, step)
    if threads == 1 or len(starts) == 1:
        written = sum(map(work, starts))
    else:
        with ThreadPoolExecutor(threads) as pool:
            written = sum(pool.map(work, starts))
    assert written == nbytes, f"{qtype.name}: {written} bytes written, {nbytes} expected"
    return out.reshape(*array.shape[:-1], nbytes // rows)


def _numpy_knows(qtype: GGMLQuantizationType) -> bool:
    try:
        gguf.quantize(np.zeros((1, _block(qtype)[0]), dtype=np.float32), qtype)
    except NotImplementedError:
        return False
    return True


@cache
def _is_trusted(qtype: GGMLQuantizationType) -> bool:
    """Whether the C function is right for this type: gguf-py's bytes, or a small error where gguf-py lacks the type.

    This is tested once per type: a library with other type numbers or arguments would silently write wrong bytes.
    """
    chunk = _native()
    if chunk is None:
        return False
    sample = np.random.default_rng(0).standard_normal((8, 512)).astype(np.float32)
    got = _run_native(chunk, sample, qtype, None, quantized_nbytes(sample.shape, qtype), threads=1)
    if _numpy_knows(qtype):
        return bool(np.array_equal(got, gguf.quantize(sample, qtype)))
    error = np.sqrt(np.mean((gguf.dequantize(got, qtype) - sample) ** 2))
    return bool(error < _MAX_ERROR.get(qtype, 0.0))
