"""The recipe's section on gates: the thresholds that a student must reach."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from potstill.core.recipe.fields import Positive, Section, Share
from potstill.core.records import Behaviour

__all__ = ["Gates"]


class Gates(Section):
    """Thresholds of the verdict. A gate without a threshold is not judged."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Accepted probability of a wrong verdict of a gate. Every interval has the confidence 1 - 2 alpha, so each of its
    ends misses with a probability of at most alpha; default: 0.05, for 90 % intervals."""
    exact: Share | None = None
    """Minimum fraction of test rows answered exactly right; default: not judged."""
    behaviours: dict[Behaviour, Share] = Field(default_factory=dict)
    """Minimum fraction of rows answered right per behaviour, for example {refuse: 0.9}; default: not judged."""
    retention: Share | None = None
    """Minimum fraction of the teacher's right answers that the shipped file gets right too; default: not judged."""
    beats_control: bool = False
    """Whether the distilled student must be shown to answer more rows right than the control; default: no."""
    quantization_drop: Share | None = None
    """Largest accepted loss of exact match from the checkpoint to the shipped file, as a fraction of all rows; default:
    not judged."""
    kl_mean: Positive | None = None
    """Maximum mean KL divergence from the teacher, in nats per token; default: not judged."""
    top1_agreement: Share | None = None
    """Minimum fraction of tokens where teacher and student agree on the likeliest; default: not judged."""

    @property
    def confidence(self) -> float:
        """Confidence of every interval that is printed."""
        return 1 - 2 * self.alpha
