"""Attention over packed rows of unequal length, computed per group of rows of near-equal length.

With a mask over the packed sequence, every row would pay for its neighbours: three rows of 85 tokens in a sequence of
256 would cost three times as much as needed. Here groups of rows are views of the sequence, so nothing is copied and no
mask is built.

Tokens that all rows begin with (a system prompt, a list of tools) are stored once, before all groups. The result of
causal attention over such a prefix is the same in every row, and the gradients that reach it are summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from potstill.core.errors import StepError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Layout", "grouped_attention"]


@dataclass(frozen=True)
class Layout:
    """How rows are packed into one sequence of T places: the prefix that all rows share, then groups of rows.

    groups   (number of rows, length of each row without the prefix)
    prefix   length of the shared prefix
    """

    groups: tuple[tuple[int, int], ...]
    prefix: int = 0

    @property
    def sizes(self) -> list[int]:
        """Number of places of the prefix and of each group; their sum is T."""
        return [self.prefix, *(rows * length for rows, length in self.groups)]


_NAME = "potstill_grouped"
# On a CPU, up to this length, torch's fused attention in bf16 is several times slower than plain matrix products
# (docs/decisions.md).
_SHORT = 256


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: (1, heads, T, D) to (1, T, heads, D), causal within each row."""
    assert layout is not None
    unsupported = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if unsupported or attention_mask is not None:
        needed = ", ".join(unsupported) or "a mask"
        raise StepError(f"This model's attention needs {needed}, which training does not support yet.")
    repeats = query.shape[1] // key.shape[1]
    # one split instead of a slice per group: the backward pass of a slice fills a whole sequence with zeros
    pieces = zip(*(x[0].split(layout.sizes, dim=1) for x in (query, key, value)), strict=True)
    before = next(pieces)
    parts = []
    for (rows, length), group in zip(layout.groups, pieces, strict=True):
        # (heads, rows * length, D) -> (rows, heads, length, D), a view
        q, k, v = (x.unflatten(1, (rows, length)).transpose(0, 1) for x in group)
        if layout.prefix:
            k, v = (torch.cat([x.expand(rows, -1, -1, -1), y], 2) for x, y in zip(before[1:], (k, v), strict=True))
        parts.append(_causal(q, k, v, repeats, dropout, scaling, sliding_window).transpose(1, 2).flatten(0, 1))
    if layout.prefix:
        q, k, v = (x[None] for x in before)
        parts.insert(0, _causal(q, k, v, repeats, dropout, scaling, sliding_window)[0].transpose(0, 1))
    return (torch.cat(parts) if len(parts) > 1 else parts[0])[None], None


def _causal(
    q: Tensor, k: Tensor, v: Tensor, repeats: int, dropout: float, scaling: float | None, window: int | None
) -> Tensor:
    """Causal attention of the last `length` places (rows, heads, length, D) over (rows, heads / repeats, keys, D).

    With `window`, each place attends to that many keys only.
    """
    length, keys = q.shape[2], k.shape[2]
    if repeats > 1:
        k, v = (x.repeat_interleave(repeats, dim=1) for x in (k, v))
    windowed = window is not None and keys > window
    short = v.device.type == "cpu" and v.dtype == torch.bfloat16 and keys <= _SHORT
    if length == keys and not windowed and not short:
        return scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling)
    seen = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril(keys - length)
    if windowed:
        assert window is not None
        seen = seen.triu(keys - length + 1 - window)
    if not short or windowed or dropout:
        return scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout, scale=scaling)
    scores = (q.to(v.dtype) * (q.shape[-1] ** -0.5 if scaling is None else scaling)) @ k.to(v.dtype).transpose(-1, -2)
    return scores.masked_fill_(~seen, -torch.inf).softmax(-1, dtype=v.dtype) @ v


def _require_separate_rows(model: PreTrainedModel) -> None:
    """Raise StepError for a model in which packed rows would attend to each other."""
    other = set(getattr(model.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if model.config._attn_implementation != _NAME or other:
        what = f"layers of kind {', '.join(sorted(other))}" if other else "its own attention code"
        raise StepError(
            f"{type(model).__name__} has {what}, in which packed rows would attend to each other. "
            "Choose a model that uses the attention interface of transformers, such as Llama, Mistral, Qwen2 or Qwen3."
        )


@contextmanager
def grouped_attention(*models: PreTrainedModel | None) -> Iterator[None]:
    """Within the block, the forward pass of these models takes a `layout`."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    before = [(model, model.config._attn_implementation) for model in models if model is not None]
    try:
        for model, _ in before:
            model.set_attn_implementation(_NAME)
            _require_separate_rows(model)
        yield
    finally:
        for model, implementation in before:
            model.set_attn_implementation(implementation)
