"""Attention over rows of unequal length that lie one after another: each group of near-equal rows on its own.

A mask over a packed sequence would make every row pay for its neighbours: three rows of 85 tokens in a sequence of 256
cost three times what they need. Here groups of rows are cut out as views, so nothing is copied and no mask is built.

Rows that begin with the same tokens (a system prompt, a list of tools) have them once, before all groups: what causal
attention makes of a prefix is the same in every row, and so is the sum of the gradients that reach it.
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
    """How rows lie in one sequence of T places: first `prefix` places that all rows begin with, kept once; then groups.

    A group is (rows, length of each), the prefix not counted.
    """

    groups: tuple[tuple[int, int], ...]
    prefix: int = 0

    @property
    def sizes(self) -> list[int]:
        """Places of the prefix and of each group; their sum is T."""
        return [self.prefix, *(rows * length for rows, length in self.groups)]


_NAME = "potstill_grouped"
# On a CPU, up to this length, torch's fused attention in bf16 is several times slower than three plain products
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
    """transformers' attention interface: (1, heads, T, D) in, (1, T, heads, D) out; causal within each row."""
    assert layout is not None
    unsupported = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if unsupported or attention_mask is not None:
        raise StepError(f"This model's attention needs {unsupported or 'a mask'}, which training does not do yet.")
    repeats = query.shape[1] // key.shape[1]
    # one split, not a slice for each group: the backward pass of a slice fills a whole sequence with zeros
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
    """Attention of the last places (rows, heads, length, D) over all (rows, heads / repeats, keys, D) up to each.

    With `window`, over that many of them.
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


def _require_rows_apart(model: PreTrainedModel) -> None:
    """Raise StepError for a model whose layers would read packed rows as one text."""
    other = set(getattr(model.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if model.config._attn_implementation != _NAME or other:
        what = f"layers of kind {', '.join(sorted(other))}" if other else "attention of its own making"
        raise StepError(
            f"{type(model).__name__} has {what}, where rows that are packed together would read each other. Choose a "
            "model whose attention transformers lets others compute, such as Llama, Mistral, Qwen2 or Qwen3."
        )


@contextmanager
def grouped_attention(*models: PreTrainedModel | None) -> Iterator[None]:
    """Models whose forward takes a `layout`, until the block ends."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    before = [(model, model.config._attn_implementation) for model in models if model is not None]
    try:
        for model, _ in before:
            model.set_attn_implementation(_NAME)
            _require_rows_apart(model)
        yield
    finally:
        for model, implementation in before:
            model.set_attn_implementation(implementation)
