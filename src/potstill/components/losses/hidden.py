"""Losses on hidden states: the teacher layer for each student layer, the distance of both, and the weight of the loss.

Shapes: N tokens, H student's hidden size, G teacher's hidden size, L student's layers, K teacher's layers.

Sources: Sanh et al. 2019, DistilBERT (cosine); Jiao et al. 2020, TinyBERT (MSE through a learned
projection); Kornblith et al. 2019 (linear CKA: a similarity of layers of any width); Muralidharan et al. 2024,
Minitron (a weight that makes the hidden-state loss as large as the logit loss).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "DISTANCES",
    "Balance",
    "Distance",
    "HiddenLoss",
    "HiddenSums",
    "cut_layers",
    "linear_cka",
    "similar_layers",
]

Distance = Literal["cosine", "mse"]


def cut_layers(kept: Sequence[int], teacher: int) -> tuple[int, ...]:
    """The teacher layer for each layer of a student that kept the layers `kept` of the teacher's `teacher` layers.

    The output of a kept layer is the input of the next kept layer, which was trained on the output of the teacher layer
    before it. So each kept layer replaces all layers up to the next kept one, and the last replaces all to the end: of
    13 layers, 0, 4, 8, 12 learn from 3, 7, 11, 12.

    Layers count from 0. In Hugging Face's `hidden_states`, entry 0 is the embedding, layer i is entry i + 1, and the
    last entry has been through the final norm.

    Raises:
        ValueError: the teacher does not have these layers, or they are not in ascending order.
    """
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= teacher:
        raise ValueError(f"layers {list(kept)} of {teacher}: they must exist and be in ascending order")
    return (*(layer - 1 for layer in kept[1:]), teacher - 1)


def linear_cka(a_NH: Tensor, b_NG: Tensor) -> float:
    """Similarity of two layers, in [0, 1]; it ignores rotation, scale and shift, so the widths may differ.

    With fewer tokens than dimensions any two layers look similar, so give at least as many as the wider layer has.

    Raises:
        ValueError: the layers have different tokens, or fewer than two.
    """
    return _cka(_centred(a_NH), _centred(b_NG))


def _centred(x_NH: Tensor) -> tuple[Tensor, Tensor]:
    """A layer minus its mean, in float64, and the norm of its Gram matrix."""
    centred_NH = x_NH.detach().double() - x_NH.detach().double().mean(dim=0)
    return centred_NH, torch.linalg.matrix_norm(centred_NH.T @ centred_NH)


def _cka(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """`linear_cka` of two layers that are `_centred`."""
    if len(a[0]) != len(b[0]) or len(a[0]) < 2:
        raise ValueError(f"layers of {len(a[0])} and {len(b[0])} tokens: they need the same number, at least 2")
    norms, shared = a[1] * b[1], torch.linalg.matrix_norm(a[0].T @ b[0]).square()
    # a constant layer is similar to no other
    return min(1.0, float(shared / norms)) if float(norms) > 0 else 0.0


def similar_layers(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[int, ...]:
    """The teacher layer for each student layer: the map in depth order with the largest sum of `linear_cka`.

    In depth order means that a later student layer never learns from an earlier teacher layer, nor from the same one
    unless the student has more layers than the teacher. Of equal sums, the map with the earlier layers is taken.

    Args:
        student: (N, H) for each of L layers, on some tokens of the workload.
        teacher: (N, G) for each of K layers, on the same tokens.

    Raises:
        ValueError: there are no layers, or the tokens differ.
    """
    if not student or not teacher:
        raise ValueError(f"{len(student)} student layers and {len(teacher)} teacher layers: each needs at least 1")
    layers, step = len(teacher), 1 if len(student) <= len(teacher) else 0
    best, came_from = [0.0] * layers, []
    targets = [_centred(hidden_NG) for hidden_NG in teacher]
    for number, hidden_NH in enumerate(student):
        ours, row, origins = _centred(hidden_NH), [], []
        for layer, theirs in enumerate(targets):
            earlier = best[: layer + 1 - step] if number else [0.0]
            origin = max(range(len(earlier)), key=earlier.__getitem__) if earlier else -1
            row.append(earlier[origin] + _cka(ours, theirs) if earlier else -math.inf)
            origins.append(origin)
        best = row
        came_from.append(origins)
    layer = max(range(layers), key=best.__getitem__)
    chosen = [layer]
    for origins in reversed(came_from[1:]):
        layer = origins[layer]
        chosen.append(layer)
    return tuple(reversed(chosen))


def _cosine(student_NG: Tensor, teacher_NG: Tensor) -> Tensor:
    return 1.0 - F.cosine_similarity(student_NG, teacher_NG, dim=-1)


def _mse(student_NG: Tensor, teacher_NG: Tensor) -> Tensor:
    return (student_NG - teacher_NG).square().mean(dim=-1)


DISTANCES: dict[Distance, Callable[[Tensor, Tensor], Tensor]] = {"cosine": _cosine, "mse": _mse}


States = Sequence[Tensor] | Mapping[int, Tensor]


def _numbers(states: States) -> Container[int]:
    return states if isinstance(states, Mapping) else range(len(states))


class HiddenSums(NamedTuple):
    """Sums over tokens: `loss`, the mean over mapped layers, has a gradient; `layers_L`, one per layer, has none."""

    loss: Tensor
    layers_L: Tensor


class HiddenLoss(nn.Module):
    """Distance between the student's hidden states and those of the teacher layers that they are mapped to.

    If the widths differ, the student's states go through a learned projection per layer, which is trained with the
    student (give `parameters()` to the optimizer) and dropped at the end. The student's side is projected because a
    learned projection of the teacher could make its target 0.
    """

    def __init__(self, layers: Sequence[int], student_size: int, teacher_size: int, distance: Distance) -> None:
        """
        Args:
            layers: the teacher layer for each student layer (see `similar_layers`, `cut_layers`), or -1 for none.
            student_size: H.
            teacher_size: G.
            distance: a key of `DISTANCES`: "cosine" is 1 - cos, "mse" the mean over G of the squared difference.

        Raises:
            ValueError: the distance is not known, no layer is mapped, or a size is below 1.
        """
        super().__init__()
        if distance not in DISTANCES:
            raise ValueError(f"no distance {distance!r} of hidden states; there are {', '.join(DISTANCES)}")
        if min(student_size, teacher_size) < 1:
            raise ValueError(f"hidden sizes {student_size} and {teacher_size}: each must be at least 1")
        self.pairs = [(ours, theirs) for ours, theirs in enumerate(layers) if theirs != -1]
        if not self.pairs or min(theirs for _, theirs in self.pairs) < 0:
            raise ValueError(f"layer map {tuple(layers)}: it needs a teacher layer, counted from 0; -1 means none")
        self.distance, self.sizes = distance, (student_size, teacher_size)
        self.projections = nn.ModuleList()
        if student_size != teacher_size:
            self.projections.extend(nn.Linear(student_size, teacher_size, bias=False) for _ in self.pairs)
            for projection in self.projections:
                # an orthogonal projection keeps angles and lengths of the student's states
                nn.init.orthogonal_(projection.weight)  # type: ignore[arg-type]

    def forward(self, student: States, teacher: States, weights_N: Tensor | None = None) -> HiddenSums:
        """Sum over tokens of w times the distance, averaged over mapped layers.

        Args:
            student: (N, H) for each of the student's layers, or by layer number for those that are mapped; N may be any
                leading shape.
            teacher: (N, G) for the teacher's layers, in the same form; they get no gradient.
            weights_N: a weight per token; tokens of weight 0 do not count, whatever their states are.

        Returns:
            Sums. Divide them once by the number of tokens of the global batch, as the logit loss is.

        Raises:
            ValueError: a mapped layer is missing, or shapes do not match.
        """
        self._require(student, teacher, weights_N)
        kept = None if weights_N is None else weights_N.reshape(-1).nonzero()[:, 0]
        weight_N = None if weights_N is None or kept is None else weights_N.reshape(-1)[kept]
        values = []
        for number, (ours, theirs) in enumerate(self.pairs):
            states_NH, target_NG = student[ours].flatten(0, -2), teacher[theirs].detach().flatten(0, -2)
            if kept is not None:
                states_NH, target_NG = states_NH[kept], target_NG[kept]
            if len(self.projections):
                states_NH = self.projections[number](states_NH)
            # in half precision, squares and norms overflow, and small differences are lost
            kind = torch.promote_types(torch.promote_types(states_NH.dtype, target_NG.dtype), torch.float32)
            with torch.autocast(states_NH.device.type, enabled=False):
                distance_N = DISTANCES[self.distance](states_NH.to(kind), target_NG.to(kind))
                values.append((distance_N if weight_N is None else distance_N * weight_N.to(kind)).sum())
        layers_L = torch.stack(values)
        return HiddenSums(layers_L.mean(), layers_L.detach())

    def _require(self, student: States, teacher: States, weights_N: Tensor | None) -> None:
        for ours, theirs in self.pairs:
            if ours not in _numbers(student) or theirs not in _numbers(teacher):
                raise ValueError(
                    f"the layer map has student layer {ours} and teacher layer {theirs}, but there are "
                    f"{len(student)} and {len(teacher)}, counted from 0. "
                    "Leave out the first entry of Hugging Face's hidden_states, which is the embedding."
                )
        for ours, theirs in self.pairs:
            shapes = student[ours].shape, teacher[theirs].shape
            if (shapes[0][-1], shapes[1][-1]) != self.sizes or shapes[0][:-1] != shapes[1][:-1]:
                raise ValueError(
                    f"student layer {ours} has shape {tuple(shapes[0])} and teacher layer {theirs} {tuple(shapes[1])}: "
                    f"they need the same tokens, and hidden sizes {self.sizes[0]} and {self.sizes[1]}"
                )
            if weights_N is not None and weights_N.shape != shapes[0][:-1]:
                raise ValueError(f"weights {tuple(weights_N.shape)} for hidden states of {tuple(shapes[0][:-1])}")


@dataclass
class Balance:
    """The weight that makes the hidden-state loss `share` times as large as the logit loss, as in Minitron.

    Both losses are first smoothed over steps by `momentum`, because a single step is noisy. When the logit loss goes to
    0, so does the weight; `limit` bounds the weight when the hidden-state loss goes to 0 first.
    """

    share: float = 1.0
    momentum: float = 0.9
    limit: float = 1e3
    logit: float = 0.0
    hidden: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a number is outside its range.
        """
        if not (0.0 <= self.share < math.inf and 0.0 <= self.momentum < 1.0 and 0.0 < self.limit < math.inf):
            raise ValueError(
                f"share {self.share}, momentum {self.momentum}, limit {self.limit}: "
                "share must be 0 or more, momentum in [0, 1), and limit above 0"
            )

    def weight(self, logit: float, hidden: float) -> float:
        """The weight of the hidden-state loss after this step's losses, as a constant without a gradient.

        Args:
            logit: logit loss of the whole global batch, so that all ranks get the same weight.
            hidden: hidden-state loss of the same tokens.

        Raises:
            ValueError: a loss is negative or not finite.
        """
        if not (0.0 <= logit < math.inf and 0.0 <= hidden < math.inf):
            raise ValueError(f"logit loss {logit} and hidden-state loss {hidden}: each must be finite and not negative")
        self.logit = self.momentum * self.logit + (1.0 - self.momentum) * logit
        self.hidden = self.momentum * self.hidden + (1.0 - self.momentum) * hidden
        self.steps += 1
        return self.current

    @property
    def current(self) -> float:
        """The weight from all steps so far; 0 before the first step."""
        # both averages start at 0, which is the same factor in both and cancels
        return min(self.limit, self.share * self.logit / self.hidden) if self.hidden > 0 else 0.0

    def state_dict(self) -> dict[str, float]:
        """What an exact resume needs."""
        return {"logit": self.logit, "hidden": self.hidden, "steps": self.steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from `state_dict`."""
        self.logit, self.hidden, self.steps = state["logit"], state["hidden"], int(state["steps"])
