"""Row kernels, which compute the loss of a chunk of logits: plain torch, torch.compile or Triton."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from potstill.components.losses.compiled import CompiledRows
from potstill.components.losses.divergences import DIVERGENCES
from potstill.components.losses.rows import RowSpec, TorchRows

__all__ = ["KERNELS", "Kernel", "RowKernel", "row_kernel"]

Kernel = Literal["auto", "torch", "compile", "triton"]

# arguments: logits z_NV (overwritten with their gradient), the teacher's logits t_NV (may be overwritten) or None,
# labels_N, weights_N or None, and values_KN to fill; see `chunks.Work`
RowKernel = Callable[[Tensor, Tensor | None, Tensor, Tensor | None, Tensor], None]


def _triton(spec: RowSpec) -> RowKernel:
    if importlib.util.find_spec("triton") is None:
        raise ValueError('kernel is "triton", but Triton is not installed: run `pip install triton`, or set "torch"')
    from potstill.components.losses.triton_rows import TritonRows

    return TritonRows(spec)


KERNELS: dict[Kernel, Callable[[RowSpec], RowKernel]] = {
    "torch": TorchRows,
    "compile": CompiledRows,
    "triton": _triton,
}


def row_kernel(kernel: Kernel, spec: RowSpec, device: torch.device) -> RowKernel:
    """The row kernel of that name; "auto" is Triton on a CUDA device if it is installed, and plain torch otherwise.

    A divergence that Triton does not have is computed in plain torch.

    Raises:
        ValueError: the kernel is not known, or Triton is not installed.
    """
    if kernel == "auto":
        kernel = "triton" if device.type == "cuda" and importlib.util.find_spec("triton") else "torch"
    if kernel == "triton" and DIVERGENCES[spec.objective].triton is None:
        kernel = "torch"
    if kernel not in KERNELS:
        raise ValueError(f"no kernel {kernel!r}; there are auto, {', '.join(KERNELS)}")
    return KERNELS[kernel](spec)
