"""Training speed: tokens per second, and model FLOPs utilization (MFU), the useful share of the machine's rate.

Useful operations are those that a step cannot avoid (PaLM, arXiv:2204.02311, appendix B). The forward pass takes 2
operations per token and weight of the layers' matrices, 2 per supervised token and weight of the head, and 4 per causal
pair of places and query channel of each layer. The backward pass takes twice as many, or as many where weights are
frozen. Each row counts in full, including a prefix that it shares; padding and recomputation do not count. Of an
encoder's pairs of places, half are counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from potstill.components.runtimes.load import layer_list
from potstill.components.training.precision import product_seconds
from potstill.core.recipe import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Size", "Speed", "matmul_rate", "pass_flops"]


@dataclass(frozen=True)
class Size:
    """The sizes from which a model's operations are counted.

    matrices  number of weights in the layers' matrices
    queries   number of query channels, over all layers
    head      number of weights in the output head
    """

    matrices: int
    queries: int
    head: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Size:
        """Sizes of a model with the layers that it has now."""
        config, head = model.config, model.get_output_embeddings()
        layers: Any = getattr(model.base_model, "layers", None) or model.get_submodule(layer_list(model))
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            sum(p.numel() for layer in layers for p in layer.parameters() if p.ndim == 2),
            len(layers) * config.num_attention_heads * head_dim,
            head.weight.numel() if head is not None else 0,
        )


def pass_flops(size: Size, lengths: Sequence[int], supervised: int) -> int:
    """Operations of one forward pass over rows of these lengths, with `supervised` supervised tokens in total."""
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return 2 * size.matrices * sum(lengths) + 4 * size.queries * pairs + 2 * size.head * supervised


@lru_cache
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product on this machine: the best of five, measured once per process."""
    side = 1024 if device.type == "cpu" else 8192
    return 2 * side**3 / product_seconds(device, dtype, side, rounds=5)


class Speed:
    """Measures the steps of a student, and of the teacher that runs with it, on `processes` machines like this one."""

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, schedule: Schedule, processes: int
    ) -> None:
        self._student, self._teacher = student, teacher
        self._passes = 2 if schedule.lora_rank else 3
        dtype = torch.bfloat16 if schedule.precision == "bf16" else torch.float32
        self._rate = processes * matmul_rate(student.device, dtype)

    @contextmanager
    def of(self, group: Sequence[Sequence[Any]]) -> Iterator[dict[str, float]]:
        """Time the block as one step over `group`. The yielded dict has `tokens_per_s` and `mfu` after the block."""
        rows = [example for part in group for example in part]
        lengths, supervised = [len(e.ids) for e in rows], sum(e.n_supervised for e in rows)
        values: dict[str, float] = {}
        started = time.perf_counter()
        yield values
        seconds = time.perf_counter() - started
        flops = self._passes * pass_flops(Size.of(self._student), lengths, supervised)
        if self._teacher is not None:
            flops += pass_flops(Size.of(self._teacher), lengths, supervised)
        values |= {"tokens_per_s": sum(lengths) / seconds, "mfu": flops / seconds / self._rate}
