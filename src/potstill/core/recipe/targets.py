"""The recipe's section on the teacher's distributions: computed while the student trains, or stored before."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from potstill.core.recipe.fields import Section, shorthand

__all__ = ["MAX_SERVED_LOGPROBS", "CountTargets", "OnlineTargets", "StoredTargets", "Targets", "TopKTargets"]

MAX_SERVED_LOGPROBS = 20
"""Maximum number of log-probabilities per token that OpenAI's API gives; vLLM too, unless it is started otherwise."""


class OnlineTargets(Section):
    """The teacher runs while the student trains, and its whole distributions are used."""

    kind: Literal["online"]
    """Source of the distributions: `online`, `counts` or `top_k`; default: online."""


class CountTargets(Section):
    """Tokens are sampled from the teacher's distributions and stored once, for every student to read. Unbiased."""

    kind: Literal["counts"]
    """Source of the distributions: `online`, `counts` or `top_k`; default: online."""
    k: Annotated[int, Field(ge=1, le=255)] = 50
    """Number of tokens stored per position: with `counts` the sampled ones (default: 50, at most 255), with `top_k` the
    likeliest (default: 32, at most 1024, and 20 from an api teacher)."""


class TopKTargets(Section):
    """The likeliest tokens are stored once, for every student to read, with the mass of all others as one number."""

    kind: Literal["top_k"]
    """Source of the distributions: `online`, `counts` or `top_k`; default: online."""
    k: Annotated[int, Field(ge=1, le=1024)] = 32
    """Number of tokens stored per position: with `counts` the sampled ones (default: 50, at most 255), with `top_k` the
    likeliest (default: 32, at most 1024, and 20 from an api teacher)."""


StoredTargets = CountTargets | TopKTargets
Targets = Annotated[
    OnlineTargets | CountTargets | TopKTargets, Field(discriminator="kind"), shorthand("kind", default="online")
]
