"""What is done with an answer: decided by the policy alone, before anybody sees the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from potstill.core.artifacts.policy import Policy, ScoreName, WithheldAction

__all__ = ["Action", "Decision", "Problem", "PromiseState", "Reason", "Rules", "decide"]

Action = Literal["answer"] | WithheldAction
Problem = Literal["unreadable", "invalid_call", "invalid_json"]
"""What is wrong with an answer, whatever its confidence: its calls cannot be read, a call does not fit the request's
tools, or its text does not fit the request's schema."""
Reason = Literal[
    "no_policy", "confident", "low_confidence", "no_threshold", "policy_void", "drift", "offline", "unreadable",
    "invalid_call", "invalid_json",
]  # fmt: skip
PromiseState = Literal["holds", "void", "none"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy as it stands.

    policy             None where the package was not calibrated
    void               what differs from what the policy was made for; see `policy.void_reasons`
    drifted            features whose counts raised an alarm
    withhold_on_drift  no answer is given after an alarm
    """

    policy: Policy | None = None
    void: tuple[str, ...] = ()
    drifted: tuple[str, ...] = ()
    withhold_on_drift: bool = False

    @property
    def promise(self) -> PromiseState:
        """Whether the policy's promise holds for the next answer."""
        if self.policy is None or self.policy.threshold is None:
            return "none"
        return "void" if self.void or self.drifted else "holds"


@dataclass(frozen=True, slots=True)
class Decision:
    """An action and its reason.

    score     the policy's score of the answer; None without a policy
    promise   whether the policy's promise holds for this answer
    """

    action: Action
    reason: Reason
    score: float | None = None
    promise: PromiseState = "none"


def decide(rules: Rules, problem: Problem | None, scores: Mapping[ScoreName, float]) -> Decision:
    """What to do with an answer.

    Without a policy every answer is given that can be read and fits the request. With a policy that is void, no answer
    is given: its threshold says nothing about this file.

    Args:
        rules: the policy as it stands.
        problem: what is wrong with the answer; None for one that fits the request.
        scores: see `scores.score_answer`.
    """
    policy = rules.policy
    if policy is None:
        return Decision("defer", problem) if problem else Decision("answer", "no_policy")
    score = scores.get(policy.score)
    reason: Reason
    if problem:
        reason = problem
    elif rules.void:
        reason = "policy_void"
    elif policy.threshold is None:
        reason = "no_threshold"
    elif rules.drifted and rules.withhold_on_drift:
        reason = "drift"
    elif score is None or score < policy.threshold:
        reason = "low_confidence"
    else:
        return Decision("answer", "confident", score, rules.promise)
    return Decision(policy.below, reason, score, rules.promise)
