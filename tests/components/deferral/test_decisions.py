"""What is done with an answer, and when a policy is void."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from potstill.components.deferral.decisions import Decision, Problem, Rules, decide
from potstill.components.deferral.policy import read_policy, void_reasons
from potstill.core.artifacts.policy import Bound, DriftReference, Policy, ScoreName
from potstill.core.errors import StepError

BOUND = Bound(model_sha256="a" * 64, quantization="Q8_0", template_sha256="b" * 64, runtime="llama.cpp of x 1")
SURE: dict[ScoreName, float] = {"mean": -0.1}


def policy(**changes: Any) -> Policy:
    value = Policy(
        package="lights", bound=BOUND, score="mean", excess_aurc={"mean": 0.1}, threshold=-0.5, promise="selective",
        alpha=0.05, delta=0.05, chosen_on=100, tested_on=200, served=150, wrong=2, p_value=0.02, risk=0.1, abstain=0.05,
        below="escalate", offline="defer", reference=DriftReference(score_edges=(), length_edges=(), counts={}),
    )  # fmt: skip
    return value.model_copy(update=changes)


@pytest.mark.parametrize(
    ("rules", "problem", "scores", "expected"),
    [
        (Rules(), None, {}, Decision("answer", "no_policy")),
        (Rules(), "invalid_call", {}, Decision("defer", "invalid_call")),
        (Rules(policy()), None, SURE, Decision("answer", "confident", -0.1, "holds")),
        (Rules(policy()), None, {"mean": -0.5}, Decision("answer", "confident", -0.5, "holds")),
        (Rules(policy()), None, {"mean": -0.6}, Decision("escalate", "low_confidence", -0.6, "holds")),
        (Rules(policy()), None, {}, Decision("escalate", "low_confidence", None, "holds")),
        (Rules(policy()), "unreadable", SURE, Decision("escalate", "unreadable", -0.1, "holds")),
        (Rules(policy(below="clarify")), None, {"mean": -9.0}, Decision("clarify", "low_confidence", -9.0, "holds")),
        (Rules(policy(threshold=None)), None, SURE, Decision("escalate", "no_threshold", -0.1, "none")),
        (Rules(policy(), void=("model",)), None, SURE, Decision("escalate", "policy_void", -0.1, "void")),
        (Rules(policy(), drifted=("score",)), None, SURE, Decision("answer", "confident", -0.1, "void")),
        (Rules(policy(), (), ("score",), True), None, SURE, Decision("escalate", "drift", -0.1, "void")),
    ],
)
def test_decisions(rules: Rules, problem: Problem | None, scores: dict[ScoreName, float], expected: Decision) -> None:
    assert decide(rules, problem, scores) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"model_sha256": "c" * 64}, "model"), ({"template_sha256": "c" * 64}, "template"),
     ({"quantization": "Q4_0"}, "quantization"), ({"runtime": "llama.cpp of x 2"}, "runtime")],
)  # fmt: skip
def test_whatever_changes_makes_the_policy_void(change: dict[str, str], reason: str) -> None:
    assert void_reasons(policy(), BOUND) == ()
    assert void_reasons(policy(), BOUND.model_copy(update=change)) == (reason,)


def test_one_changed_byte_of_the_policy_is_found(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(policy().to_json()))
    assert read_policy(path).model_copy(update={"sha256": ""}) == policy()
    path.write_text(path.read_text().replace('"threshold": -0.5', '"threshold": -0.6'))
    with pytest.raises(StepError, match="has changed since it was written"):
        read_policy(path)
    path.write_text(path.read_text().replace('"risk": 0.1', '"risk": NaN'))
    with pytest.raises(StepError, match="has changed since it was written"):
        read_policy(path)
    path.write_text("{}")
    with pytest.raises(StepError, match="calibrate the package again"):
        read_policy(path)
