"""Pruning: a smaller model from the weights of a larger one, by the importance of its parts on the workload's rows.

Width is pruned by the size of activations (Minitron, Muralidharan et al., 2024): FFN channels and key-value groups by
what they add to the residual stream, and hidden channels by their size after each norm. Layers are chosen by block
influence (ShortGPT, Men et al., 2024), 1 - cos(input, output), or spaced evenly.

Shapes: T places, H hidden, F FFN channels, K key-value heads, G query heads per key-value head, D head dimension, L
layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from potstill.components.chat.format import Example
from potstill.components.models.architectures import not_prunable
from potstill.components.training.attention import grouped_attention
from potstill.components.training.batches import pack, token_batches
from potstill.core.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Importance", "cut_width", "influential_layers", "measure_importance"]

_BATCH_TOKENS = 4096


@dataclass
class Importance:
    """Sums over the tokens of some rows; a larger value is more important.

    hidden     (H,) squared activations after all norms
    ffn        L x (F,) squared activations into down_proj, times the squared norm of its column
    groups     L x (K,) squared norm of what each key-value group adds through o_proj
    influence  (L,) 1 - cos between a layer's input and output
    """

    hidden: Tensor
    ffn: list[Tensor]
    groups: list[Tensor]
    influence: Tensor
    handles: list[Any] = field(default_factory=list, repr=False)


def _add_hooks(model: PreTrainedModel, seen: Importance, real: list[Tensor]) -> None:
    """Add hooks to `model` that update `seen`; `real[0]` is True for the places that are not padding."""
    config = model.config

    def norm_out(_: nn.Module, __: Any, out: Tensor) -> None:
        seen.hidden += out[0, real[0]].float().square().sum(0)

    layers: Any = model.base_model.layers
    for index, layer in enumerate(layers):
        attention, mlp = layer.self_attn, layer.mlp

        def ffn_in(module: nn.Module, args: tuple[Tensor, ...], index: int = index) -> None:
            weight: Any = module.weight
            columns_F = weight.float().square().sum(0)
            seen.ffn[index] += args[0][0, real[0]].float().square().sum(0) * columns_F

        def groups_in(module: nn.Module, args: tuple[Tensor, ...], index: int = index) -> None:
            kv_heads = config.num_key_value_heads
            weight: Any = module.weight
            into = args[0][0, real[0]].float().unflatten(-1, (kv_heads, -1))
            out_of = weight.float().unflatten(-1, (kv_heads, -1))
            for group in range(kv_heads):
                seen.groups[index][group] += (into[:, group] @ out_of[:, group].T).square().sum()

        def layer_out(_: nn.Module, args: Any, kwargs: Any, out: Any, index: int = index) -> None:
            before = (args[0] if args else kwargs["hidden_states"])[0, real[0]].float()
            after = (out[0] if isinstance(out, tuple) else out)[0, real[0]].float()
            seen.influence[index] += (1 - torch.cosine_similarity(before, after, dim=-1)).sum()

        seen.handles += [
            layer.input_layernorm.register_forward_hook(norm_out),
            layer.post_attention_layernorm.register_forward_hook(norm_out),
            mlp.down_proj.register_forward_pre_hook(ffn_in),
            attention.o_proj.register_forward_pre_hook(groups_in),
            layer.register_forward_hook(layer_out, with_kwargs=True),
        ]


@torch.no_grad()
def measure_importance(model: PreTrainedModel, examples: Sequence[Example]) -> Importance:
    """Measure the importance of each part of a decoder of the Llama family on rows.

    Args:
        model: a model whose layers have `self_attn.o_proj`, `mlp.down_proj` and two norms.
        examples: rows of the workload; a few hundred are enough.
    """
    config = model.config
    layers = config.num_hidden_layers
    seen = Importance(
        torch.zeros(config.hidden_size),
        [torch.zeros(config.intermediate_size) for _ in range(layers)],
        [torch.zeros(config.num_key_value_heads) for _ in range(layers)],
        torch.zeros(layers),
    )
    real: list[Tensor] = [torch.empty(0)]
    _add_hooks(model, seen, real)
    try:
        with grouped_attention(model):
            for rows in token_batches([len(e.ids) for e in examples], _BATCH_TOKENS):
                chosen = sorted((examples[i] for i in rows), key=lambda e: -len(e.ids))
                batch = pack(chosen, 0, share_prefix=False)
                widths = [width for count, width in batch.layout.groups for _ in range(count)]
                lengths = [len(e.ids) for e in chosen] + [0] * (len(widths) - len(chosen))
                real[0] = torch.cat([torch.arange(w) < n for w, n in zip(widths, lengths, strict=True)])
                model.base_model(
                    input_ids=batch.input_ids,
                    position_ids=batch.position_ids,
                    layout=batch.layout,
                    use_cache=False,
                )
    finally:
        for handle in seen.handles:
            handle.remove()
    return seen


def influential_layers(importance: Importance, keep: int) -> list[int]:
    """The `keep` layers with the largest block influence, in ascending order."""
    order = torch.argsort(importance.influence, descending=True, stable=True)
    return sorted(order[:keep].tolist())


def _largest(scores: Tensor, keep: int, what: str) -> Tensor:
    """Indices of the `keep` largest scores, in ascending order."""
    if keep > len(scores):
        raise RecipeError(f"student.{what}: {keep} is more than the teacher's {len(scores)}.")
    return torch.argsort(scores, descending=True, stable=True)[:keep].sort().values


def cut_width(
    model: PreTrainedModel,
    importance: Importance,
    *,
    hidden: int | None = None,
    ffn: int | None = None,
    kv_heads: int | None = None,
) -> PreTrainedModel:
    """A narrower copy of a model. A size that is None is not changed.

    Query heads are pruned with the key-value head that they share. head_dim is not changed.

    Raises:
        RecipeError: a size is larger than the model's, or models of this class cannot be pruned.
    """
    from transformers import AutoModelForCausalLM

    if problem := not_prunable(type(model).__name__):
        raise RecipeError(f"student.init: teacher_layers: {problem}")
    config = type(model.config).from_dict(model.config.to_dict())
    old_kv, old_heads = config.num_key_value_heads, config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // old_heads
    kept_H = _largest(importance.hidden, hidden or config.hidden_size, "hidden")
    kept_F = [_largest(scores, ffn or config.intermediate_size, "ffn") for scores in importance.ffn]
    kept_K = [_largest(scores, kv_heads or old_kv, "kv_heads") for scores in importance.groups]
    config.hidden_size, config.intermediate_size = len(kept_H), len(kept_F[0])
    config.num_key_value_heads = len(kept_K[0])
    config.num_attention_heads = len(kept_K[0]) * (old_heads // old_kv)
    config.head_dim = head_dim
    narrow: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    source = model.state_dict()
    state = {}
    for name, weight in narrow.state_dict().items():
        kept = source[name].float()
        for axis, indices in enumerate(_axes(name, kept_H, kept_F, kept_K, head_dim, old_heads // old_kv)):
            if indices is not None:
                kept = kept.index_select(axis, indices)
        assert kept.shape == weight.shape, name
        state[name] = kept.contiguous()
    narrow.load_state_dict(state)
    return narrow


def _axes(
    name: str, kept_H: Tensor, kept_F: list[Tensor], kept_K: list[Tensor], head_dim: int, group: int
) -> tuple[Tensor | None, ...]:
    """The indices to keep on each axis of a parameter; None keeps all. A bias has the first axis only."""
    parts = name.split(".")
    if "layers" not in parts:
        return (kept_H,) if parts[-2] == "norm" else (None, kept_H)
    index, owner = int(parts[parts.index("layers") + 1]), parts[-2]

    def places(heads: Tensor, width: int) -> Tensor:
        return (heads[:, None] * width + torch.arange(width)).flatten()

    queries, keys = places(kept_K[index], group * head_dim), places(kept_K[index], head_dim)
    axes: dict[str, tuple[Tensor | None, ...]] = {
        "q_proj": (queries, kept_H), "k_proj": (keys, kept_H), "v_proj": (keys, kept_H), "o_proj": (kept_H, queries),
        "gate_proj": (kept_F[index], kept_H), "up_proj": (kept_F[index], kept_H), "down_proj": (kept_H, kept_F[index]),
        "q_norm": (None,), "k_norm": (None,),
    }  # fmt: skip
    found = axes.get(owner, (kept_H,))
    return found[:1] if parts[-1] == "bias" else found
