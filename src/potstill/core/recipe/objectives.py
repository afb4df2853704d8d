"""The recipe's section on what a student learns from: its training, and the parts of that."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from potstill.core.recipe.fields import Count, Positive, Section, Share
from potstill.core.recipe.sections import Schedule

__all__ = ["MOST_SERVED", "Hidden", "OnPolicy", "Targets", "Train"]

MOST_SERVED = 20
"""Most tokens whose log-probabilities OpenAI's API gives at a position; vLLM too, unless it is started otherwise."""


class Targets(Section):
    """Where the teacher's distributions come from while the student trains."""

    kind: Literal["online", "counts", "top_k"] = "online"
    """The teacher runs beside the student; or its distributions are stored, for every student to read (api: top_k)."""
    draws: Annotated[int, Field(ge=1, le=255)] = 50
    """counts: tokens drawn from the teacher at each position; unbiased."""
    k: Annotated[int, Field(ge=1, le=1024)] = 32
    """top_k: likeliest tokens kept at each position, with the mass of all others. At most 20 from an api teacher."""

    @model_validator(mode="after")
    def _kind_reads(self) -> Self:
        for key, kind in {"draws": "counts", "k": "top_k"}.items():
            if key in self.model_fields_set and self.kind != kind:
                raise ValueError(f"{key} is read only with kind {kind}, not {self.kind}")
        return self


class Hidden(Section):
    """The student's layers learn from the teacher's too, at every token of a row: of its prompt as of its answer."""

    balance: Positive = 1.0
    """How large this loss is beside that of the logits; its weight follows both, smoothed over steps."""
    distance: Literal["cosine", "mse"] = "cosine"
    """1 - cos, or mean squared difference; where widths differ, behind projections that are learnt and then dropped."""
    layers: Literal["even", "similarity"] = "even"
    """Which of the teacher's layers teaches each of the student's: at the same share of the depth, or the most similar
    before training (CKA)."""


class OnPolicy(Section):
    """Some rows of each step get an answer that the student draws itself; the teacher scores its tokens (GKD)."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of the rows, and of the loss: lambda."""
    loss: Literal["objective", "sampled_reverse_kl"] = "objective"
    """train.objective over the whole vocabulary; or reverse KL by the drawn tokens alone, with importance weights."""
    max_new_tokens: Count = 128
    """Longest answer drawn. A batch grows with its answers, over batch_tokens if the student writes more than the
    teacher."""
    temperature: Positive = 1.0
    """Of the drawing."""
    refresh: Count = 1
    """Steps for which answers are drawn at once: more are faster, and staler."""


class Train(Schedule):
    """The student's training, and its matched control."""

    objective: Literal[
        "forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "total_variation", "contrastive", "sft"
    ] = "forward_kl"
    """Divergence between teacher and student; contrastive: skew_kl on the teacher's text and skew_reverse_kl on the
    student's own, its share of the mixture held fixed (DistiLLM-2); sft: plain fine-tuning on the teacher's text."""
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """jsd: the teacher's share of the mixture."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """skew_kl, skew_reverse_kl, contrastive: the share that is mixed in."""
    targets: Targets = Targets()
    temperature: Positive = 1.0
    """Softens both sides; the loss is multiplied by its square."""
    hard_label_share: Share = 0.0
    """Weight of the cross-entropy on the teacher's text; the divergence has the rest."""
    hidden: Hidden | None = None
    on_policy: OnPolicy | None = None
    kernel: Literal["auto", "torch", "compile", "triton"] = "auto"
    """Who computes the loss: plain torch; torch.compile, which needs a C++ compiler on a CPU; Triton, on a GPU. auto:
    Triton where it is there, else plain torch."""
    control: Literal["sft", "none"] = "sft"
    """Train the same student by plain fine-tuning too, to see whether distillation paid."""
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where the curves go."""

    @model_validator(mode="after")
    def _objective_fits(self) -> Self:
        readers = {"beta": ("jsd",), "alpha": ("skew_kl", "skew_reverse_kl", "contrastive")}
        for key, objectives in readers.items():
            if key in self.model_fields_set and self.objective not in objectives:
                raise ValueError(f"{key} is read only with objective {' or '.join(objectives)}, not {self.objective}")
        for key in ("temperature", "hard_label_share"):
            if key in self.model_fields_set and self.objective == "sft":
                raise ValueError(f"{key} is of a divergence from the teacher, and objective sft has none: leave it out")
        for key in ("hidden", "on_policy"):
            if getattr(self, key) is not None and self.objective == "sft":
                raise ValueError(f"{key} needs the teacher beside the student: choose another objective than sft")
        if self.on_policy is None and self.objective == "contrastive":
            raise ValueError("contrastive learns from the student's own answers too: give on_policy, {} for defaults")
        if self.on_policy is not None and self.on_policy.loss != "objective" and self.objective == "contrastive":
            raise ValueError("contrastive has a loss on the student's answers: leave out on_policy.loss")
        if self.on_policy is not None and self.targets.kind != "online":
            raise ValueError("on_policy scores answers that no store can hold yet: set targets.kind: online")
        if self.targets.kind != "online" and self.objective != "forward_kl":
            raise ValueError(f"stored targets hold what forward_kl needs; {self.objective} needs targets.kind: online")
        if self.targets.kind != "online" and self.kernel not in ("auto", "torch"):
            raise ValueError(f"kernel {self.kernel} is for targets.kind: online; stored ones are scored in plain torch")
        return self
