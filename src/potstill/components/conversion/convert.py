"""Convert a Hugging Face checkpoint to a GGUF file with the same weights, tokenizer and chat template.

Tensors are read and quantized in blocks of rows and written one at a time, so peak memory is about the stored size of
the largest tensor. The file appears under its name only when it is complete. A model that llama.cpp would run or
tokenize differently is refused; smaller differences are listed in `notes`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from numpy.typing import NDArray

from potstill.components.chat.template import Templates, own_templates
from potstill.components.conversion.architecture import Hyperparameters, read_hyperparameters
from potstill.components.conversion.quantize import file_type, quantize, quantized_nbytes, tensor_type
from potstill.components.conversion.tokenizer import read_tokenizer
from potstill.components.conversion.weights import Tensor, Weights, plan_tensors
from potstill.components.models.gguf_types import is_large
from potstill.core.errors import StepError
from potstill.core.files import replacing

__all__ = ["ConversionSummary", "convert_checkpoint", "file_types"]

_ROPE_FREQS = "rope_freqs.weight"
# Keys that say how to read the file. They come from the checkpoint, never from the caller.
_OWN_KEYS = ("general.architecture", "general.file_type", "general.quantization_version", "general.alignment")


@dataclass(frozen=True)
class ConversionSummary:
    """What was written. `tensor_types` counts tensors by GGUF type; `notes` are differences that a user should know."""

    architecture: str
    quantization: str
    n_parameters: int
    file_bytes: int
    bits_per_weight: float
    tensor_types: dict[str, int]
    tokenizer_model: str
    tokenizer_pre: str
    chat_template: bool
    notes: tuple[str, ...]


def convert_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    quantization: str = "F16",
    metadata: dict[str, str] | None = None,
    chat_template: Templates | str | None = None,
    adds_bos: bool = False,
    spoken: Collection[int] = (),
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    threads: int | None = None,
) -> ConversionSummary:
    """Write a Hugging Face folder as a GGUF file.

    Args:
        checkpoint: folder with config.json, safetensors and tokenizer.json, and optionally tokenizer_config.json,
            generation_config.json and chat_template.jinja.
        out: the file to write; replaced when it exists.
        quantization: a key of `potstill.components.conversion.quantize.QUANTIZATIONS`.
        metadata: extra text for the file under its GGUF key (`general.name`, `general.license`,
            `general.base_model.0.name` and so on); `general.base_model.count` is counted from these.
        chat_template: used instead of the checkpoint's own; a text is for all requests. llama.cpp uses `tool_use` for
            requests with tools.
        adds_bos: whether the text of that template begins with the BOS token; see `read_tokenizer`.
        spoken: ids of special tokens that answers contain; see `read_tokenizer`.
        importance: mean of the squared inputs of a matrix by its GGUF name, float32, one value per column.
        threads: threads for quantization; None: one per processor.

    Raises:
        StepError: the checkpoint is incomplete, or llama.cpp would run it differently; the message says what to do.
        ValueError: `metadata` holds a key that is not one of `general.*`, or one that the file needs for itself.
    """
    weights = Weights(checkpoint)
    parameters = read_hyperparameters(checkpoint)
    tensors = plan_tensors(weights, parameters)
    given = Templates(chat_template) if isinstance(chat_template, str) else chat_template
    template = given or own_templates(checkpoint)
    general = {"general.name": checkpoint.resolve().name} | (metadata or {})
    name, size = general["general.name"], parameters.vocab_size
    tokenizer = read_tokenizer(checkpoint, size, chat=bool(template), name=name, adds_bos=adds_bos, spoken=spoken)
    types = _types(tensors, parameters, quantization, importance is not None)
    n_parameters = sum(math.prod(t.shape) for t in tensors)
    writer = GGUFWriter(None, parameters.architecture)
    _write_general(writer, general, n_parameters, quantization)
    parameters.write(writer)
    tokenizer.write(writer, template)
    _write_file(writer, out, weights, parameters, tensors, types, importance or {}, threads)
    return ConversionSummary(
        architecture=parameters.architecture,
        quantization=quantization,
        n_parameters=n_parameters,
        file_bytes=out.stat().st_size,
        bits_per_weight=8 * sum(quantized_nbytes(t.shape, types[t.name]) for t in tensors) / n_parameters,
        tensor_types=dict(Counter(qtype.name for qtype in types.values()).most_common()),
        tokenizer_model=tokenizer.model,
        tokenizer_pre=tokenizer.pre,
        chat_template=bool(template),
        notes=(*tokenizer.notes, *_shape_notes(tensors, types, quantization)),
    )


def file_types(checkpoint: Path, quantization: str) -> dict[str, GGMLQuantizationType]:
    """Type of each of a checkpoint's tensors in a file of this quantization, by the checkpoint's name of the tensor.

    Raises:
        StepError: as `convert_checkpoint`.
    """
    parameters = read_hyperparameters(checkpoint)
    tensors = plan_tensors(Weights(checkpoint), parameters)
    types = _types(tensors, parameters, quantization, importance=False)
    return {tensor.source: types[tensor.name] for tensor in tensors}


def _types(
    tensors: list[Tensor], parameters: Hyperparameters, quantization: str, importance: bool
) -> dict[str, GGMLQuantizationType]:
    """Type of each tensor by its name."""
    large = is_large(parameters.architecture, parameters.n_layers, parameters.n_heads // parameters.n_kv_heads)
    how = {"tied": parameters.tied, "importance": importance, "large": large}
    return {t.name: tensor_type(t.name, t.shape, parameters.n_layers, quantization, **how) for t in tensors}


def _write_general(writer: GGUFWriter, metadata: Mapping[str, str], n_parameters: int, quantization: str) -> None:
    """Write the caller's metadata, the counts that llama.cpp's tools expect for numbered entries, and the file type."""
    writer.add_type("model")
    for key, value in metadata.items():
        if not key.startswith("general.") or key in _OWN_KEYS:
            raise ValueError(f"metadata key {key!r}: only general.* keys that describe the model can be given")
        writer.add_string(key, str(value))
    for kind in ("base_model", "dataset"):
        numbers = {key.split(".")[2] for key in metadata if key.startswith(f"general.{kind}.")}
        if numbers:
            writer.add_uint32(f"general.{kind}.count", len(numbers))
    writer.add_size_label(gguf.size_label(n_parameters, n_parameters, 0, 0))
    writer.add_file_type(file_type(quantization))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_file(
    writer: GGUFWriter,
    out: Path,
    weights: Weights,
    parameters: Hyperparameters,
    tensors: list[Tensor],
    types: Mapping[str, GGMLQuantizationType],
    importance: Mapping[str, NDArray[np.float32]],
    threads: int | None,
) -> None:
    """Write the header, then each tensor as it is ready; the file gets its name last."""
    divisors = parameters.rope.divisors
    if divisors is not None:
        writer.add_tensor_info(_ROPE_FREQS, divisors.shape, divisors.dtype, divisors.nbytes)
    for tensor in tensors:
        qtype = types[tensor.name]
        nbytes = quantized_nbytes(tensor.shape, qtype)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), nbytes, raw_dtype=qtype)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary, closing(writer):
        writer.write_header_to_file(temporary)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if divisors is not None:
            writer.write_tensor_data(divisors)
        for tensor in tensors:
            writer.write_tensor_data(_stored(weights, tensor, types[tensor.name], importance.get(tensor.name), threads))


def _stored(
    weights: Weights,
    tensor: Tensor,
    qtype: GGMLQuantizationType,
    importance: NDArray[np.float32] | None,
    threads: int | None,
) -> NDArray[np.uint8]:
    """The bytes of a tensor as stored in the file; the whole tensor is never in memory as float32."""
    out = np.empty(quantized_nbytes(tensor.shape, qtype), dtype=np.uint8)
    filled = 0
    for block in weights.read(tensor):
        try:
            data = quantize(block, qtype, importance, threads=threads).reshape(-1).view(np.uint8)
        except StepError as error:
            raise StepError(f"Tensor {tensor.source}: {error}") from None
        out[filled : filled + data.size] = data
        filled += data.size
    assert filled == out.size, tensor
    return out


def _shape_notes(
    tensors: list[Tensor],
    types: Mapping[str, GGMLQuantizationType],
    quantization: str,
) -> list[str]:
    """A note where rows that are not a multiple of 256 weights need more bits."""
    if not quantization.endswith(("_K", "_K_M")):
        return []
    odd = [t for t in tensors if len(t.shape) > 1 and t.shape[-1] % 256]
    if not odd:
        return []
    rows = sorted({t.shape[-1] for t in odd})
    used = sorted({types[t.name].name for t in odd})
    return [
        f"{len(odd)} matrices have rows of {', '.join(map(str, rows))} weights, not a multiple of 256, and are stored "
        f"as {', '.join(used)}: the file is larger than usual for {quantization}"
    ]
