"""The recipe's sections on what a student learns from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from potstill.fields import Count, Positive, Section

__all__ = ["Hidden", "OnPolicy", "Targets"]


class Targets(Section):
    """Where the teacher's distributions come from while the student trains."""

    kind: Literal["online", "counts", "top_k"] = "online"
    """The teacher runs beside the student; or its distributions are stored once and read by every student."""
    draws: Annotated[int, Field(ge=1, le=255)] = 50
    """counts: tokens drawn from the teacher at each position; unbiased."""
    k: Annotated[int, Field(ge=1, le=1024)] = 32
    """top_k: likeliest tokens kept at each position, with the mass of all others."""

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
