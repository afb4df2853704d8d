"""Losses on hidden states: which teacher layer teaches which student layer, how far they are apart, what that weighs.

Shapes: N tokens, H student's hidden size, G teacher's hidden size, L student's layers, K teacher's layers.

Sources: Sanh et al. 2019, DistilBERT (cosine); Jiao et al. 2020, TinyBERT (MSE through a learned
projection); Kornblith et al. 2019 (linear CKA: a similarity of layers of any widths); Muralidharan et al. 2024,
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
    """The teacher's layer for each of a student's that was cut out of its `teacher` layers: these, in rising order.

    What a kept layer puts out goes into the next kept one, which was made for what the teacher's layer before that one
    puts out. So each stands for all up to the next, and the last for all to the end: of 13 layers, 0, 4, 8, 12 learn
    from 3, 7, 11, 12. Layers count from 0 and are those of the model: entry 0 of Hugging Face's `hidden_states` is the
    embedding, layer i is entry i + 1, and the last entry has been through the final norm.

    Raises:
        ValueError: layers that the teacher has not, or not in rising order.
    """
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= teacher:
        raise ValueError(f"layers {list(kept)} kept of {teacher}: some that are there, in rising order")
    return (*(layer - 1 for layer in kept[1:]), teacher - 1)


def linear_cka(a_NH: Tensor, b_NG: Tensor) -> float:
    """Similarity of two layers, in [0, 1]; blind to rotation, scale and shift, so widths may differ.

    With fewer tokens than dimensions any two layers look alike: give at least as many as the wider one has.

    Raises:
        ValueError: not the same tokens, or fewer than two.
    """
    return _cka(_centred(a_NH), _centred(b_NG))


def _centred(x_NH: Tensor) -> tuple[Tensor, Tensor]:
    """A layer less its mean, in float64, and the norm of its Gram matrix."""
    centred_NH = x_NH.detach().double() - x_NH.detach().double().mean(dim=0)
    return centred_NH, torch.linalg.matrix_norm(centred_NH.T @ centred_NH)


def _cka(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """`linear_cka` of two layers that are `_centred`."""
    if len(a[0]) != len(b[0]) or len(a[0]) < 2:
        raise ValueError(f"similarity of layers: {len(a[0])} tokens and {len(b[0])}; the same, and at least 2")
    own, shared = a[1] * b[1], torch.linalg.matrix_norm(a[0].T @ b[0]).square()
    # a constant layer is like no other
    return min(1.0, float(shared / own)) if float(own) > 0 else 0.0


def similar_layers(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[int, ...]:
    """The teacher's layer for each of the student's: the map in depth order of the greatest summed `linear_cka`.

    In order: a later student layer never learns from an earlier teacher layer; nor from the same one, unless the
    student has more layers than the teacher. Equal sums: the earlier layers.

    Args:
        student: (N, H) of each of L layers, on some tokens of the workload.
        teacher: (N, G) of each of K layers, on the same tokens.

    Raises:
        ValueError: no layers, or not the same tokens.
    """
    if not student or not teacher:
        raise ValueError(f"{len(student)} student layers and {len(teacher)} teacher layers: each has at least 1")
    layers, step = len(teacher), 1 if len(student) <= len(teacher) else 0
    best, came_from = [0.0] * layers, []
    taught = [_centred(hidden_NG) for hidden_NG in teacher]
    for number, hidden_NH in enumerate(student):
        own, row, origins = _centred(hidden_NH), [], []
        for layer, theirs in enumerate(taught):
            earlier = best[: layer + 1 - step] if number else [0.0]
            origin = max(range(len(earlier)), key=earlier.__getitem__) if earlier else -1
            row.append(earlier[origin] + _cka(own, theirs) if earlier else -math.inf)
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
    """Sums over tokens: `loss`, the mean over mapped layers, has gradients; `layers_L`, each layer's own, has none."""

    loss: Tensor
    layers_L: Tensor


class HiddenLoss(nn.Module):
    """Distance of the student's hidden states from those of the teacher's layers that it is mapped to.

    Where widths differ, the student's states go through a learned projection for each layer, which is trained with the
    student and thrown away after: give `parameters()` to the optimizer. It is the student's side that is projected:
    a learned projection of the teacher could make its target 0.
    """

    def __init__(self, layers: Sequence[int], student_size: int, teacher_size: int, distance: Distance) -> None:
        """
        Args:
            layers: the teacher layer for each student layer (see `similar_layers`, `cut_layers`); -1 leaves
                a student layer free.
            student_size: H.
            teacher_size: G.
            distance: a key of `DISTANCES`: "cosine" is 1 - cos, "mse" the mean over G of the squared difference.

        Raises:
            ValueError: an unknown distance, no layer mapped, or sizes below 1.
        """
        super().__init__()
        if distance not in DISTANCES:
            raise ValueError(f"no distance {distance!r} of hidden states; there are {', '.join(DISTANCES)}")
        if min(student_size, teacher_size) < 1:
            raise ValueError(f"hidden sizes {student_size} and {teacher_size}: each is at least 1")
        self.pairs = [(own, taught) for own, taught in enumerate(layers) if taught != -1]
        if not self.pairs or min(taught for _, taught in self.pairs) < 0:
            raise ValueError(f"layer map {tuple(layers)}: it has at least one teacher layer, from 0, or -1 for none")
        self.distance, self.sizes = distance, (student_size, teacher_size)
        self.projections = nn.ModuleList()
        if student_size != teacher_size:
            self.projections.extend(nn.Linear(student_size, teacher_size, bias=False) for _ in self.pairs)
            for projection in self.projections:
                # angles and lengths of the student's states survive the start
                nn.init.orthogonal_(projection.weight)  # type: ignore[arg-type]

    def forward(self, student: States, teacher: States, weights_N: Tensor | None = None) -> HiddenSums:
        """Sum over tokens of w times the distance, the mean over mapped layers.

        Args:
            student: (N, H) of each of the student's layers, or by number of those that are mapped; any leading shape in
                place of N.
            teacher: (N, G) of the teacher's layers likewise; no gradient goes there.
            weights_N: a weight for each token; those of weight 0 cost nothing, whatever their states hold.

        Returns:
            Sums. Divide by the number of tokens of the whole global batch, once, as the logit loss is.

        Raises:
            ValueError: layers that are not there, or shapes that do not fit.
        """
        self._require(student, teacher, weights_N)
        kept = None if weights_N is None else weights_N.reshape(-1).nonzero()[:, 0]
        weight_N = None if weights_N is None or kept is None else weights_N.reshape(-1)[kept]
        values = []
        for number, (own, taught) in enumerate(self.pairs):
            states_NH, target_NG = student[own].flatten(0, -2), teacher[taught].detach().flatten(0, -2)
            if kept is not None:
                states_NH, target_NG = states_NH[kept], target_NG[kept]
            if len(self.projections):
                states_NH = self.projections[number](states_NH)
            # squares and norms of half precision overflow, or lose what is left when the two come close
            kind = torch.promote_types(torch.promote_types(states_NH.dtype, target_NG.dtype), torch.float32)
            with torch.autocast(states_NH.device.type, enabled=False):
                distance_N = DISTANCES[self.distance](states_NH.to(kind), target_NG.to(kind))
                values.append((distance_N if weight_N is None else distance_N * weight_N.to(kind)).sum())
        layers_L = torch.stack(values)
        return HiddenSums(layers_L.mean(), layers_L.detach())

    def _require(self, student: States, teacher: States, weights_N: Tensor | None) -> None:
        for own, taught in self.pairs:
            if own not in _numbers(student) or taught not in _numbers(teacher):
                raise ValueError(
                    f"the layer map has student layer {own} and teacher layer {taught}, but there are "
                    f"{len(student)} and {len(teacher)}, counted from 0. Hugging Face's hidden_states begin with the "
                    "embedding: leave it out."
                )
        for own, taught in self.pairs:
            shapes = student[own].shape, teacher[taught].shape
            if (shapes[0][-1], shapes[1][-1]) != self.sizes or shapes[0][:-1] != shapes[1][:-1]:
                raise ValueError(
                    f"student layer {own} is {tuple(shapes[0])} and teacher layer {taught} {tuple(shapes[1])}: they "
                    f"have the same tokens, and hidden sizes {self.sizes[0]} and {self.sizes[1]}"
                )
            if weights_N is not None and weights_N.shape != shapes[0][:-1]:
                raise ValueError(f"weights {tuple(weights_N.shape)} for hidden states of {tuple(shapes[0][:-1])}")


@dataclass
class Balance:
    """The weight that makes the hidden-state loss `share` times as large as the logit loss, as in Minitron.

    Both losses are smoothed over steps first, by `momentum`: the ratio of one noisy step is no weight. As the logit
    loss goes to 0, so does the weight; `limit` bounds it where the hidden-state loss goes first.
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
            ValueError: a number outside its range.
        """
        if not (0.0 <= self.share < math.inf and 0.0 <= self.momentum < 1.0 and 0.0 < self.limit < math.inf):
            raise ValueError(
                f"share {self.share}, momentum {self.momentum}, limit {self.limit}: share is 0 or more, momentum in "
                "[0, 1), limit above 0"
            )

    def weight(self, logit: float, hidden: float) -> float:
        """The weight of the hidden-state loss in this step, a constant of the step: no gradient goes through it.

        Args:
            logit: logit loss of the whole global batch, so that all ranks take the same weight.
            hidden: hidden-state loss of the same tokens.

        Raises:
            ValueError: a loss that is negative or not finite.
        """
        if not (0.0 <= logit < math.inf and 0.0 <= hidden < math.inf):
            raise ValueError(f"logit loss {logit} and hidden-state loss {hidden}: each is finite and not negative")
        self.logit = self.momentum * self.logit + (1.0 - self.momentum) * logit
        self.hidden = self.momentum * self.hidden + (1.0 - self.momentum) * hidden
        self.steps += 1
        return self.current

    @property
    def current(self) -> float:
        """The weight that all steps so far give; 0 before the first."""
        # what the first steps lack of the average is the same factor in both, and drops out
        return min(self.limit, self.share * self.logit / self.hidden) if self.hidden > 0 else 0.0

    def state_dict(self) -> dict[str, float]:
        """What an exact resume needs."""
        return {"logit": self.logit, "hidden": self.hidden, "steps": self.steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from `state_dict`."""
        self.logit, self.hidden, self.steps = state["logit"], state["hidden"], int(state["steps"])
