"""The recipe's section on the worth ladder: the same student, trained with less of the teacher."""

from __future__ import annotations

from typing import Literal, get_args

from potstill.core.recipe.fields import Count, Section

__all__ = ["RUNGS", "Rung", "RungName", "Worth"]

Rung = Literal["start", "labels", "text", "distributions"]
RungName = Literal["baseline", "start", "labels", "text", "distributions", "recipe"]
"""All rungs: those that a recipe may ask for, the simplest classifier, and all that a recipe adds."""
RUNGS: tuple[Rung, ...] = get_args(Rung)


class Worth(Section):
    """What the teacher was worth: the same student, trained with less of the teacher or without it."""

    rungs: tuple[Rung, ...] = RUNGS
    """Models that the student is compared with: `start` (the student before training), `labels` (trained on right
    answers, without a teacher), `text` (trained on the teacher's text; this is the control) and `distributions`
    (trained on the teacher's distributions, without hidden states and on-policy answers); default: all that the recipe
    has rows and settings for."""
    budget: Literal["steps", "seconds"] = "steps"
    """What all rungs have in common: the number of optimizer steps, or the seconds of training; default: steps."""
    ship: Literal["text", "distributions"] | None = None
    """Rung that is exported, judged and packaged in place of the student, where the ladder shows no gain above it;
    default: none, and the student ships."""
    seeds: Count = 1
    """Number of training seeds. With several, each rung is trained as often, and intervals are over seeds; default:
    1, with intervals over test rows."""
