"""How fast training goes: tokens a second, and the share of the machine's rate that useful work makes of it (MFU).

Useful are the products that a step cannot do without (PaLM, arXiv:2204.02311, appendix B): a token and a weight of the
layers' matrices take 2 operations forward, and so does a supervised token and a weight of the head; a causal pair of
places takes 4 for each channel of each layer's queries. The backward pass takes twice as many, or as many where weights
are frozen. Each row counts whole, also what rows that begin alike share; padding and recomputation count nothing.
Of an encoder's pairs half are counted.
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
from potstill.core.recipe import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Size", "Speed", "matmul_rate", "pass_flops"]


@dataclass(frozen=True)
class Size:
    """What a model's operations are counted from.

    matrices  weights in its layers' matrices
    queries   channels of its queries, over all layers
    head      weights of its output head
    """

    matrices: int
    queries: int
    head: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Size:
        """Of the layers that the model has now."""
        config, head = model.config, model.get_output_embeddings()
        layers: Any = getattr(model.base_model, "layers", None) or model.get_submodule(layer_list(model))
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            sum(p.numel() for layer in layers for p in layer.parameters() if p.ndim == 2),
            len(layers) * config.num_attention_heads * head_dim,
            head.weight.numel() if head is not None else 0,
        )


def pass_flops(size: Size, lengths: Sequence[int], supervised: int) -> int:
    """Operations of one forward pass over rows of `lengths` tokens, `supervised` of them in all."""
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return 2 * size.matrices * sum(lengths) + 4 * size.queries * pairs + 2 * size.head * supervised


@lru_cache
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of one large matrix product on this machine: the best of five, measured once a process."""
    side = 1024 if device.type == "cpu" else 8192
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        float((a @ a)[0, 0])  # a number asked for is a product that has been done
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


class Speed:
    """Times steps of a student, beside its teacher if there is one, on `processes` machines like this."""

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, schedule: Schedule, processes: int
    ) -> None:
        self._student, self._teacher = student, teacher
        self._passes = 2 if schedule.lora_rank else 3
        dtype = torch.bfloat16 if schedule.precision == "bf16" else torch.float32
        self._rate = processes * matmul_rate(student.device, dtype)

    @contextmanager
    def of(self, group: Sequence[Sequence[Any]]) -> Iterator[dict[str, float]]:
        """Time the block as one step over `group`; what it yields has `tokens_per_s` and `mfu` afterwards."""
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
