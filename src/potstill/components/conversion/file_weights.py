"""The weights in a GGUF file, compared with those of the checkpoint that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFReader
from numpy.typing import NDArray

from potstill.components.conversion.architecture import read_hyperparameters
from potstill.components.conversion.weights import Weights, in_file_order, plan_tensors

__all__ = ["largest_difference"]


def largest_difference(file: Path, checkpoint: Path, values: Mapping[str, NDArray[np.float32]]) -> float:
    """Largest absolute difference between a weight of the file and the value that it should have.

    Args:
        file: a GGUF file, whose quantized tensors are read back.
        checkpoint: the folder that it was made from.
        values: what the file should have, by the checkpoint's name of the tensor, rows in the checkpoint's order.
    """
    planned = {tensor.name: tensor for tensor in plan_tensors(Weights(checkpoint), read_hyperparameters(checkpoint))}
    found = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    largest = 0.0
    for name, tensor in planned.items():
        stored = gguf.dequantize(found[name].data, found[name].tensor_type).reshape(tensor.shape)
        expected = in_file_order(tensor, values[tensor.source])
        largest = max(largest, float(np.abs(stored - expected).max()))
    return largest
