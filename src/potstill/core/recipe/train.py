"""The recipe's section on the student's training."""

from __future__ import annotations

from typing import Literal

from potstill.core.recipe.objective import ForwardKL, Objective
from potstill.core.recipe.schedule import LoraOptimization

__all__ = ["Train"]


class Train(LoraOptimization):
    """The training of the student, and of a control that learns without the teacher's distributions."""

    objective: Objective = ForwardKL(name="forward_kl")
    """What the student learns: a divergence from the teacher, or the teacher's text alone; default: forward_kl."""
    control: Literal["sft", "none"] | None = None
    """Control that shows whether distillation paid: `sft` (the same student, by plain fine-tuning) or `none`; default:
    sft, and none where the objective is sft already."""

    @property
    def has_control(self) -> bool:
        """Whether a control is trained."""
        return (self.control or ("none" if self.objective.name == "sft" else "sft")) == "sft"
