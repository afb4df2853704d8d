"""Attention over rows of unequal length that lie one after another: each group of near-equal rows on its own.

A mask over a packed sequence would make every row pay for its neighbours: three rows of 85 tokens in a sequence of 256
cost three times what they need. Here groups of rows are cut out as views, so nothing is copied and no mask is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from potstill.errors import StepError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Groups", "grouped_attention"]

# (rows, length of each) of every group, in the order in which they lie in the sequence
Groups = tuple[tuple[int, int], ...]

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
    row_groups: Groups = (),
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (1, heads, T, D) in, (1, T, heads, D) out; causal within each row."""
    unsupported = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if unsupported or attention_mask is not None:
        raise StepError(f"This model's attention needs {unsupported or 'a mask'}, which training does not do yet.")
    heads = query.shape[1]
    # one split, not a slice for each group: the backward pass of a slice fills a whole sequence with zeros
    pieces = (x[0].split([rows * length for rows, length in row_groups], dim=1) for x in (query, key, value))
    parts = []
    for (rows, length), group in zip(row_groups, zip(*pieces, strict=True), strict=True):
        # (heads, rows * length, D) -> (rows, heads, length, D), a view
        q, k, v = (x.unflatten(1, (rows, length)).transpose(0, 1) for x in group)
        if k.shape[1] != heads:
            k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
        out = _causal(q, k, v, dropout, scaling, sliding_window if sliding_window and length > sliding_window else None)
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)[None], None


def _causal(q: Tensor, k: Tensor, v: Tensor, dropout: float, scaling: float | None, window: int | None) -> Tensor:
    """Causal attention (rows, heads, length, D), over the last `window` keys if given."""
    length = q.shape[2]
    if window is None and not (v.device.type == "cpu" and v.dtype == torch.bfloat16 and length <= _SHORT):
        return scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling)
    seen = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()
    seen = seen if window is None else seen.triu(1 - window)
    if window is not None or dropout:
        return scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout, scale=scaling)
    scores = (q.to(v.dtype) * (q.shape[-1] ** -0.5 if scaling is None else scaling)) @ k.to(v.dtype).transpose(-1, -2)
    return scores.masked_fill_(~seen, -torch.inf).softmax(-1, dtype=v.dtype) @ v


@contextmanager
def grouped_attention(*models: PreTrainedModel | None) -> Iterator[None]:
    """Models whose forward takes `row_groups` (see `Batch`), until the block ends."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    before = [(model, model.config._attn_implementation) for model in models if model is not None]
    for model, _ in before:
        model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        for model, implementation in before:
            model.set_attn_implementation(implementation)
