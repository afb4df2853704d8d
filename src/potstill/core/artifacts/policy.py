"""When a package may answer: the frozen policy that `potstill calibrate` writes and `potstill serve` obeys."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from potstill.core.artifacts.base import Artifact, Part
from potstill.core.hashing import fingerprint

__all__ = ["Bound", "DriftReference", "Policy", "PromiseKind", "ScoreName", "WithheldAction", "policy_digest"]

ScoreName = Literal["mean", "total", "minimum", "margin"]
PromiseKind = Literal["selective", "marginal"]
WithheldAction = Literal["clarify", "defer", "escalate", "abstain"]
"""What is done in place of an answer: ask the user to say it in another way, hand over to a person or another system,
ask a larger model, or say nothing."""

_Sha = Field(pattern="^[0-9a-f]{64}$")


class Bound(Part):
    """What the policy is bound to; where any of it differs, the policy is void.

    model_sha256      SHA-256 (hex) of the GGUF file
    quantization      type of its weights
    template_sha256   SHA-256 (hex) of the chat template in the file
    runtime           the runtime and its version
    """

    model_sha256: str = _Sha
    quantization: str
    template_sha256: str = _Sha
    runtime: str


class DriftReference(Part):
    """What the calibration answers looked like, as counts; live traffic is compared with it.

    score_edges    upper edges of the bins of the score, all but the last
    length_edges   upper edges of the bins of the prompt's tokens, all but the last
    counts         counts of each feature's classes
    """

    score_edges: tuple[float, ...]
    length_edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


class Policy(Artifact):
    """A threshold with its promise.

    package         name of the package
    bound           what it holds for
    score           name of the score, chosen for the smallest excess AURC
    excess_aurc     excess AURC of each score, on the answers that the score was chosen on
    threshold       score from which on an answer is given; None: no threshold keeps the promise, so none is given
    promise         selective: the share of wrong answers among those given is at most alpha, with a probability of at
                    least 1 - delta; marginal: an answer is given and wrong with a probability of at most alpha
    chosen_on       number of answers on which score and candidates for the threshold were chosen
    tested_on       number of other answers on which the threshold was found
    served, wrong   of these, those at or above the threshold, and the wrong ones among them
    p_value         of the promise, or the corrected risk where the promise is marginal; None without a threshold
    risk            share of wrong answers if all were given
    abstain         share of answers that any rule must withhold to keep the promise
    below           what is done with an answer below the threshold
    offline         what is done where `below` is escalate and the larger model cannot be reached
    reference       what live traffic is compared with
    sha256          of all other values (see `policy_digest`)
    """

    FILE: ClassVar[str] = "policy.json"

    package: str
    bound: Bound
    score: ScoreName
    excess_aurc: dict[ScoreName, float]
    threshold: float | None
    promise: PromiseKind
    alpha: float = Field(gt=0, lt=1)
    delta: float = Field(gt=0, lt=1)
    chosen_on: int
    tested_on: int
    served: int
    wrong: int
    p_value: float | None
    risk: float
    abstain: float
    below: WithheldAction
    offline: Literal["clarify", "defer", "abstain"]
    reference: DriftReference
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values, with the hash of all others."""
        value = super().to_json()
        return value | {"sha256": policy_digest(value)}


def policy_digest(value: dict[str, Any]) -> str:
    """SHA-256 (hex) of a policy's JSON object without its `sha256`."""
    return fingerprint({key: item for key, item in value.items() if key != "sha256"})
