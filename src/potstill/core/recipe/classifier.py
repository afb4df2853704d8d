"""Sections of a recipe with `task: classify`: an encoder with a classification head (`potstill.core.recipe.recipe`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from potstill.core.recipe.fields import Count, LocalPath, ModelName, Positive, Section, Share
from potstill.core.recipe.sections import Schedule

__all__ = [
    "ClassifierEvaluate",
    "ClassifierGates",
    "ClassifierStudent",
    "ClassifierTeacher",
    "ClassifierTrain",
    "LabelledData",
]


class LabelledData(Section):
    """Rows of `{"text": "...", "label": "..."}`. The classes are the labels of `train`."""

    train: LocalPath
    """Rows that teacher, student and control learn from."""
    validation: LocalPath | None = None
    """Rows for the validation curve."""
    test: LocalPath
    """Rows that are judged."""
    out_of_scope: str | None = None
    """A label that stands for none of the classes. It counts as one; its rows are told apart as well."""
    context: Count = 128
    """Most tokens of a text; a longer one is cut."""
    license: str = "unknown"
    """SPDX identifier of the data's licence."""


class ClassifierTeacher(Section):
    """The model that is distilled."""

    model: ModelName
    """Folder beside the recipe, or hub id: an encoder such as BERT."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    finetune: Schedule | None = None
    """Train it on data.train first, with a new head; left out, it must have these classes already."""
    license: str = "unknown"
    """SPDX identifier, or the hub's licence tag."""


class ClassifierStudent(Section):
    """A model of the teacher's own width."""

    layers: Count
    """How many of the teacher's layers to keep, evenly spaced, first and last among them."""
    vocabulary: Count | None = None
    """Tokens to keep: those of data.train and single characters always, then the lowest ids (BERT's frequent words)."""
    license: str = "unknown"
    """SPDX identifier of the student's licence."""


class ClassifierTrain(Schedule):
    """The student's training, and its matched control."""

    temperature: Positive = 2.0
    """Softens both sides of the divergence, which is multiplied by its square."""
    hard_label_share: Share = 0.3
    """Weight of the cross-entropy on the right class; the divergence has the rest."""
    cosine_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the mean over a row's tokens of 1 - cos between last hidden states."""
    control: Literal["sft", "none"] = "sft"
    """Train the same student on the right classes alone too, to see whether distillation paid."""
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where the curves go."""


class ClassifierEvaluate(Section):
    """How speed is measured: single texts, teacher and student in turn."""

    threads: Count = 2
    """torch's threads."""
    latency_requests: Count = 200
    """Timed texts."""


class ClassifierGates(Section):
    """Thresholds; a gate left out is not judged."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """One-sided level of every test."""
    exact: Share | None = None
    """Floor of accuracy."""
    retention: Share | None = None
    """Floor of accuracy relative to the teacher's."""
    beats_control: bool = False
    """The student must get significantly more rows right than the control."""
    parameters: Share | None = None
    """Largest share of the teacher's parameters."""
    speedup: Positive | None = None
    """Floor of the teacher's time for one text over the student's."""
