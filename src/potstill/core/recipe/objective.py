"""The recipe's section on what a student learns: a divergence from the teacher, or the teacher's text alone.

A divergence has its own class, with the parameters of its loss as fields; `potstill.components.losses` has the loss of
the same name. A new one is a class here and its entry in `DIVERGENCES`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from potstill.core.recipe.fields import Count, Positive, Section, Share, shorthand
from potstill.core.recipe.targets import OnlineTargets, StoredTargets, Targets

__all__ = [
    "DIVERGENCES",
    "Contrastive",
    "Divergence",
    "ForwardKL",
    "Hidden",
    "JensenShannon",
    "Objective",
    "OnPolicy",
    "OnPolicyWithLoss",
    "ReverseKL",
    "Sft",
    "SkewKL",
    "SkewReverseKL",
    "TotalVariation",
]

_Fraction = Annotated[float, Field(gt=0, lt=1)]


class Hidden(Section):
    """A second loss: the student's layers learn from the teacher's, at every token of prompt and answer."""

    balance: Positive = 1.0
    """Size of this loss relative to that of the logits; its weight follows both, smoothed over steps; default: 1."""
    distance: Literal["cosine", "mse"] = "cosine"
    """Distance of hidden states: `cosine` (1 - cos) or `mse` (mean squared difference); where widths differ, learnt
    projections stand between them, which are dropped at the end; default: cosine."""
    layers: Literal["even", "similarity"] = "even"
    """Which of the teacher's layers each of the student's learns from: `even` (at the same fraction of the depth) or
    `similarity` (the most similar one before training, by CKA); default: even."""


class OnPolicy(Section):
    """Answers that the student samples itself for some rows of each step, and that the teacher scores (GKD)."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Fraction of rows that get a sampled answer, and weight of the loss on them (GKD's lambda); default: 0.5."""
    temperature: Positive = 1.0
    """Sampling temperature; default: 1."""
    refresh: Count = 1
    """Number of steps for which answers are sampled at once: more is faster, with older answers; default: 1."""


class OnPolicyWithLoss(OnPolicy):
    """Answers that the student samples itself for some rows of each step, and that the teacher scores (GKD)."""

    loss: Literal["objective", "sampled_reverse_kl"] = "objective"
    """Loss on sampled answers: `objective` (the same divergence as on the teacher's text) or `sampled_reverse_kl`
    (reverse KL from the sampled tokens alone, with importance weights); default: objective."""


class Sft(Section):
    """Plain fine-tuning on the teacher's text."""

    name: Literal["sft"]
    """Objective by name; default: forward_kl."""

    stored_targets: ClassVar[None] = None
    hidden: ClassVar[None] = None
    on_policy: ClassVar[None] = None
    temperature: ClassVar[float] = 1.0


class Divergence(Section):
    """A divergence between the distributions of teacher and student over the next token."""

    name: str
    """Objective by name; default: forward_kl."""
    temperature: Positive = 1.0
    """Softmax temperature of teacher and student; the divergence is multiplied by its square; default: 1."""
    hard_label_weight: Share = 0.0
    """Weight of the cross-entropy on the teacher's text, where the divergence has the rest; default: 0."""
    hidden: Hidden | None = None
    """Loss on hidden states; default: none."""
    on_policy: OnPolicyWithLoss | None = None
    """Learning from answers that the student samples itself; default: none."""

    @property
    def stored_targets(self) -> StoredTargets | None:
        """What is stored of the teacher's distributions before the training; None where the teacher runs along."""
        return None

    @property
    def on_text(self) -> Objective:
        """This divergence on the teacher's text alone: without hidden states and the student's samples."""
        return cast("Objective", self.model_copy(update={"hidden": None, "on_policy": None}))

    @property
    def losses(self) -> tuple[str, str]:
        """Names of the losses on the teacher's text and on the student's samples."""
        sampled = self.on_policy.loss if self.on_policy else "objective"
        return self.name, self.name if sampled == "objective" else sampled

    @property
    def parameters(self) -> dict[str, float]:
        """Parameters of this divergence alone, as keyword arguments of its loss."""
        own = set(type(self).model_fields) - set(Divergence.model_fields) - {"targets"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in own}


class ForwardKL(Divergence):
    """KL(teacher || student). The only divergence that can learn from stored targets."""

    name: Literal["forward_kl"]
    """Objective by name; default: forward_kl."""
    targets: Targets = OnlineTargets(kind="online")
    """Source of the teacher's distributions; default: online."""

    @property
    def stored_targets(self) -> StoredTargets | None:
        """What is stored of the teacher's distributions before the training; None where the teacher runs along."""
        return None if isinstance(self.targets, OnlineTargets) else self.targets

    @model_validator(mode="after")
    def _samples_are_scored(self) -> Self:
        if self.on_policy and self.stored_targets:
            raise ValueError("on_policy needs the teacher to score each sampled answer: set targets: online")
        return self


class ReverseKL(Divergence):
    """KL(student || teacher)."""

    name: Literal["reverse_kl"]
    """Objective by name; default: forward_kl."""


class JensenShannon(Divergence):
    """The generalized Jensen-Shannon divergence (GKD)."""

    name: Literal["jsd"]
    """Objective by name; default: forward_kl."""
    beta: _Fraction = 0.5
    """Weight of the teacher in the mixture; default: 0.5."""


class SkewKL(Divergence):
    """KL(teacher || mixture), with a little of the teacher mixed into the student (DistiLLM)."""

    name: Literal["skew_kl"]
    """Objective by name; default: forward_kl."""
    alpha: _Fraction = 0.1
    """Weight of the teacher in the mixture; default: 0.1."""


class SkewReverseKL(Divergence):
    """KL(student || mixture), with a little of the student mixed into the teacher (DistiLLM)."""

    name: Literal["skew_reverse_kl"]
    """Objective by name; default: forward_kl."""
    alpha: _Fraction = 0.1
    """Weight of the student in the mixture; default: 0.1."""


class TotalVariation(Divergence):
    """Half of the summed absolute differences of probabilities."""

    name: Literal["total_variation"]
    """Objective by name; default: forward_kl."""


class Contrastive(Divergence):
    """skew_kl on the teacher's text, and skew_reverse_kl with a constant mixture on the student's samples
    (DistiLLM-2)."""

    name: Literal["contrastive"]
    """Objective by name; default: forward_kl."""
    alpha: _Fraction = 0.1
    """Weight of the side that is mixed in, as in skew_kl and skew_reverse_kl; default: 0.1."""
    on_policy: OnPolicy = OnPolicy()  # type: ignore[assignment]
    """Learning from answers that the student samples itself; default: with the defaults of its keys."""

    @property
    def losses(self) -> tuple[str, str]:
        """Names of the losses on the teacher's text and on the student's samples."""
        return "skew_kl", "skew_reverse_kl_detached"

    @property
    def on_text(self) -> Objective:
        """The half of this objective that needs no samples."""
        common = {key: getattr(self, key) for key in ("alpha", "temperature", "hard_label_weight")}
        return SkewKL(name="skew_kl", **common)


DIVERGENCES: dict[str, type[Divergence]] = {
    "forward_kl": ForwardKL,
    "reverse_kl": ReverseKL,
    "jsd": JensenShannon,
    "skew_kl": SkewKL,
    "skew_reverse_kl": SkewReverseKL,
    "total_variation": TotalVariation,
    "contrastive": Contrastive,
}

Objective = Annotated[
    ForwardKL | ReverseKL | JensenShannon | SkewKL | SkewReverseKL | TotalVariation | Contrastive | Sft,
    Field(discriminator="name"),
    shorthand("name", default="forward_kl"),
]
