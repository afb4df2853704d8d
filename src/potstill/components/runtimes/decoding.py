"""Decode a batch of prompts token by token, with the keys and values of what was computed.

`SharedPrefix` computes the tokens that all prompts begin with (a system prompt, a list of tools) once for the whole
batch, attends to them as one matrix product for all rows, and writes keys and values in place. It needs a model in
which every layer attends through the attention interface of transformers. `TransformersCache` serves all other models.
Both give the same answers.

    B  rows          P  tokens of the prefix            V  vocabulary
    N  new places    L  places of the rows' own tokens  S  places that are attended to, P + L
    H  heads         K  key-value heads                 R  heads per key-value head          D  size of a head
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Decoding", "SharedPrefix", "TransformersCache", "decoding"]

_NAME = "potstill_decoding"
_LEAST_SHARED = 16
"""A shorter prefix is not worth a forward pass of its own."""
_SPARE = 32
"""Places that are reserved for answers at first. When they are full, more are added."""
_PASS_TOKENS = {"cpu": 1024}
"""Tokens of prompts that are computed in one forward pass. A CPU's caches hold the activations of about this many."""
_ACCELERATOR_TOKENS = 16384


class Decoding(Protocol):
    """Rows that are being decoded.

    logits_BV   the logits of each row's next token
    """

    logits_BV: Tensor

    def feed(self, tokens: Sequence[int]) -> None:
        """Add one token to each row."""
        ...

    def keep(self, places: Sequence[int]) -> None:
        """Continue with these rows, in this order."""
        ...


class _NotServed(Exception):
    """`SharedPrefix` cannot run this model."""


@contextmanager
def decoding(model: PreTrainedModel, prompts: Sequence[Sequence[int]], padding: int) -> Iterator[Decoding]:
    """The prompts, ready to be continued. Within the block, the model may have another attention implementation.

    Args:
        model: in evaluation mode on its device.
        prompts: token ids, at least one in each.
        padding: any token id.
    """
    before, rows = model.config._attn_implementation, None
    try:
        if _may_share(model):
            model.set_attn_implementation(_NAME)
            try:
                rows = SharedPrefix(model, prompts, padding)
            except _NotServed:
                model.set_attn_implementation(before)
        yield rows or TransformersCache(model, prompts, padding)
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)


class TransformersCache:
    """Any model, with the cache of transformers. Prompts are padded on the left."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], padding: int) -> None:
        from transformers import DynamicCache

        self._model = model
        self._cache = DynamicCache()
        width = max(map(len, prompts))
        seen = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        self._mask_BL = torch.tensor(seen, device=model.device)
        self._positions_BN = (self._mask_BL.cumsum(1) - 1).clamp_min(0)
        self._run(_padded(prompts, width, padding, model.device))

    def feed(self, tokens: Sequence[int]) -> None:
        """See `Decoding`."""
        self._mask_BL = pad(self._mask_BL, (0, 1), value=1)
        self._positions_BN = self._positions_BN[:, -1:] + 1
        self._run(torch.tensor(tokens, device=self._model.device)[:, None])

    def keep(self, places: Sequence[int]) -> None:
        """See `Decoding`."""
        rows = torch.tensor(places, device=self._model.device)
        self._cache.batch_select_indices(rows)
        self._mask_BL, self._positions_BN = self._mask_BL[rows], self._positions_BN[rows]

    def _run(self, ids_BN: Tensor) -> None:
        self.logits_BV = self._model(
            input_ids=ids_BN,
            attention_mask=self._mask_BL,
            position_ids=self._positions_BN,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]


# ---- a shared prefix ----


class SharedPrefix:
    """A model in which every layer attends through the attention interface of transformers.

    All rows end at the same place, so new keys and values are written as one slice; rows begin at different places.

    Raises:
        _NotServed: the model's attention needs more than keys, values, causality and a sliding window.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], padding: int) -> None:
        self._model = model
        self._layers: dict[int, _Layer] = {}
        self._prefix = 0
        shared = _shared_length(prompts)
        if shared:
            ids_BN = torch.tensor([prompts[0][:shared]], device=model.device)
            self._run(ids_BN, _Pass(self._layers, 1, slice(0, 1), 0, shared, 0, torch.zeros_like(ids_BN[0, :1]), False))
            for layer in self._layers.values():
                layer.end_prefix()
            self._prefix = shared
        own = [ids[shared:] for ids in prompts]
        self._end = max(map(len, own))
        self._starts = [self._end - len(ids) for ids in own]
        step = max(1, _PASS_TOKENS.get(model.device.type, _ACCELERATOR_TOKENS) // self._end)
        logits = []
        for begin in range(0, len(own), step):
            rows = slice(begin, min(begin + step, len(own)))
            width = max(map(len, own[rows]))
            ids_BN = _padded(own[rows], width, padding, model.device)
            logits.append(self._run(ids_BN, self._pass(rows, self._end - width)))
        self.logits_BV = torch.cat(logits)
        if len(self._layers) != model.config.num_hidden_layers:
            raise _NotServed

    def feed(self, tokens: Sequence[int]) -> None:
        """See `Decoding`."""
        self._end += 1
        ids_BN = torch.tensor(tokens, device=self._model.device)[:, None]
        self.logits_BV = self._run(ids_BN, self._pass(slice(0, len(tokens)), min(self._starts)))

    def keep(self, places: Sequence[int]) -> None:
        """See `Decoding`. Only the rows that change their place are copied."""
        self._starts = [self._starts[place] for place in places]
        to = [new for new, place in enumerate(places) if new != place]
        if to:
            moved = torch.tensor([to, [places[new] for new in to]], device=self._model.device)
            for layer in self._layers.values():
                layer.move(moved[0], moved[1], self._end)

    def _pass(self, rows: slice, first: int) -> _Pass:
        starts = self._starts[rows]
        starts_B = torch.tensor(starts, device=self._model.device)
        total, padded = len(self._starts), max(starts) > first
        return _Pass(self._layers, total, rows, first, self._end, self._prefix, starts_B, padded)

    def _run(self, ids_BN: Tensor, new: _Pass) -> Tensor:
        places_N = torch.arange(new.end - ids_BN.shape[1], new.end, device=ids_BN.device)
        positions_BN = (places_N - new.starts_B[:, None]).clamp_min(0) + new.prefix
        logits: Tensor = self._model(
            input_ids=ids_BN, position_ids=positions_BN, use_cache=False, logits_to_keep=1, decoding=new
        ).logits[:, -1]
        return logits


class _Layer:
    """Keys and values of a layer: (K, P, D) of the prefix, (B, K, places, D) of the rows' own tokens.

    On a CPU they are in float32, because attention in bfloat16 is slower there and less exact.
    """

    def __init__(self) -> None:
        self.prefix: list[Tensor] = []
        self.own: list[Tensor] = []

    def store(self, new: Sequence[Tensor], total: int, rows: slice, end: int) -> list[Tensor]:
        """Write keys and values (B, K, N, D) of these rows before the place `end`; those of all rows."""
        places = self.own[0].shape[2] if self.own else 0
        if end > places:
            more = max(_SPARE, places // 4)
            dtype = torch.float32 if new[0].device.type == "cpu" else new[0].dtype
            # zeros, because a place before a row's beginning is multiplied with a weight of 0, and may not be NaN
            grown = [x.new_zeros((total, x.shape[1], end + more, x.shape[3]), dtype=dtype) for x in new]
            for larger, smaller in zip(grown, self.own, strict=False):
                larger[:, :, :places] = smaller[:total]
            self.own = grown
        for stored, x in zip(self.own, new, strict=True):
            stored[rows, :, end - x.shape[2] : end] = x
        return self.own

    def move(self, to: Tensor, place: Tensor, end: int) -> None:
        """Copy rows to other places."""
        for stored in self.own:
            stored[to, :, :end] = stored[place, :, :end]

    def end_prefix(self) -> None:
        """What was stored so far, of one row, is the prefix of all rows."""
        self.prefix, self.own = [x[0, :, :-_SPARE].contiguous() for x in self.own], []


@dataclass
class _Pass:
    """A forward pass over new places of some rows.

    layers     of the model, by index
    total      number of all rows
    rows       those of this pass
    first      the first place that is attended to
    end        the place after the last
    prefix     length of the prefix
    starts_B   the place at which each row of this pass begins
    padded     whether one of them begins after `first`
    masks      which places are attended to, (B, 1, N, S) by sliding window; None: all before each place
    """

    layers: dict[int, _Layer]
    total: int
    rows: slice
    first: int
    end: int
    prefix: int
    starts_B: Tensor
    padded: bool
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    def attend(self, index: int, q_BHND: Tensor, new: Sequence[Tensor], scale: float, window: int | None) -> Tensor:
        """Store new keys and values (B, K, N, D), and attend to them and to all before them: (B, H, N, D)."""
        count = q_BHND.shape[2]
        if window not in self.masks:
            self.masks[window] = self._mask(count, window)
        mask = self.masks[window]
        layer = self.layers.setdefault(index, _Layer())
        own = layer.store(new, self.total, self.rows, self.end)
        k, v = (stored[self.rows, :, self.first : self.end] for stored in own)
        q_BHND = q_BHND.to(k.dtype)
        if count == 1:
            return _one_token(q_BHND, k, v, layer.prefix, mask, scale)
        if layer.prefix:
            shared = (x.expand(len(q_BHND), -1, -1, -1) for x in layer.prefix)
            k, v = (torch.cat([before, x], 2) for before, x in zip(shared, (k, v), strict=True))
        repeats = q_BHND.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(repeats, 1) if repeats > 1 else x for x in (k, v))
        return scaled_dot_product_attention(q_BHND, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)

    def _mask(self, count: int, window: int | None) -> Tensor | None:
        places_L = torch.arange(self.first, self.end, device=self.starts_B.device)
        width = len(places_L)
        whole = window is None or window >= self.prefix + width
        if whole and not self.padded and (count == 1 or (not self.prefix and count == width)):
            return None
        places_N = places_L[-count:]
        apart_NL = places_N[:, None] - places_L
        seen_NL = (apart_NL >= 0) & (apart_NL < (window or width))
        # a place before the beginning of its row attends to itself: the softmax of nothing is not a number
        seen_BNL = seen_NL & ((places_L >= self.starts_B[:, None])[:, None] | (apart_NL == 0))
        positions_BN = places_N - self.starts_B[:, None] + self.prefix
        apart_BNP = positions_BN[:, :, None] - torch.arange(self.prefix, device=places_L.device)
        return torch.cat([apart_BNP < (window or self.prefix + width), seen_BNL], 2)[:, None]


def _one_token(
    q_BH1D: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, prefix: Sequence[Tensor], mask_B11S: Tensor | None, scale: float
) -> Tensor:
    """Attention of one new place per row; over the prefix, the queries of all rows are one matrix."""
    rows, heads, _, size = q_BH1D.shape
    groups = k_BKLD.shape[1]
    q_BKRD = (q_BH1D * scale).view(rows, groups, heads // groups, size)
    scores_BKRS = q_BKRD @ k_BKLD.transpose(-1, -2)
    if prefix:
        k_KPD, v_KPD = prefix
        q_KXD = q_BKRD.transpose(0, 1).reshape(groups, -1, size)
        before_KBRP = (q_KXD @ k_KPD.transpose(-1, -2)).view(groups, rows, heads // groups, -1)
        scores_BKRS = torch.cat([before_KBRP.transpose(0, 1), scores_BKRS], -1)
    if mask_B11S is not None:
        scores_BKRS = scores_BKRS.masked_fill_(~mask_B11S, -torch.inf)
    weights_BKRS = scores_BKRS.softmax(-1, dtype=torch.float32).to(v_BKLD.dtype)
    if not prefix:
        return (weights_BKRS @ v_BKLD).reshape(q_BH1D.shape[:3] + v_BKLD.shape[3:])
    length = k_KPD.shape[1]
    out_BKRD = weights_BKRS[..., length:] @ v_BKLD
    first_KXP = weights_BKRS[..., :length].transpose(0, 1).reshape(groups, -1, length)
    out_BKRD += (first_KXP @ v_KPD).view(groups, rows, heads // groups, -1).transpose(0, 1)
    return out_BKRD.reshape(q_BH1D.shape[:3] + v_BKLD.shape[3:])


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    decoding: _Pass | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: (B, H, N, D) to (B, N, H, D)."""
    unsupported = any(others.get(name) is not None for name in ("softcap", "s_aux", "position_bias"))
    if decoding is None or attention_mask is not None or unsupported:
        raise _NotServed
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = decoding.attend(int(module.layer_idx), query, (key, value), scale, sliding_window)
    return out.transpose(1, 2).to(value.dtype), None


def _may_share(model: PreTrainedModel) -> bool:
    """Whether the model's code uses the attention interface, and all its layers attend to all tokens or to a window."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    kinds = set(getattr(model.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    return model._can_set_attn_implementation() and not kinds


def _shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """Number of tokens that are computed once for all prompts. At least one token of each prompt is its own."""
    first, last = min(map(list, prompts)), max(map(list, prompts))  # what these two have in common, all have
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    length = min(common, min(map(len, prompts)) - 1)
    return length if len(prompts) > 1 and length >= _LEAST_SHARED else 0


def _padded(rows: Sequence[Sequence[int]], width: int, padding: int, device: torch.device) -> Tensor:
    """Token ids, padded on the left."""
    return torch.tensor([[padding] * (width - len(ids)) + list(ids) for ids in rows], device=device)
