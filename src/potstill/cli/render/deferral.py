"""What `potstill calibrate` and `potstill drift` print."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from potstill.cli.render.tables import aligned
from potstill.components.deferral.thresholds import fewest_served
from potstill.core.artifacts.drift import DriftCounts
from potstill.core.artifacts.policy import Policy
from potstill.core.format import format_count, format_number, format_percent

__all__ = ["render_drift", "render_policy"]


def render_policy(policy: Policy) -> Group:
    """Feasibility first, then the scores, then the threshold and what it promises."""
    rows = [("score", "excess AURC", "")]
    rows += [
        (name, format_number(value), "chosen" if name == policy.score else "")
        for name, value in sorted(policy.excess_aurc.items(), key=lambda pair: pair[1])
    ]
    parts = [*_feasibility(policy), "", *aligned(rows, left=(0, 2)), "", *_outcome(policy)]
    return Group(*map(Text, parts))


def _feasibility(policy: Policy) -> list[str]:
    promised = f"{format_percent(policy.alpha)} of the answers that are given may be wrong"
    if policy.promise == "marginal":
        promised = f"{format_percent(policy.alpha)} of all requests may get a wrong answer"
    lines = [
        f"{format_percent(policy.risk)} of all answers are wrong, and {promised}.",
        f"Any rule must withhold at least {format_percent(policy.abstain)} of the answers.",
    ]
    if policy.promise == "selective":
        fewest = fewest_served(policy.alpha, policy.delta)
        lines.append(
            f"To be certified, at least {format_count(fewest, 'answer')} must be given, without a mistake among them; "
            f"{format_count(policy.tested_on, 'row')} test the threshold."
        )
    return lines


def _outcome(policy: Policy) -> list[str]:
    if policy.threshold is None:
        return [
            "No threshold keeps this promise, so no answer is given: every request is passed on. Allow a larger "
            "--alpha, add rows, or train a better student."
        ]
    given = policy.served / policy.tested_on
    found = f"{format_percent(given)} of the test rows are answered, and {policy.wrong} of {policy.served} are wrong"
    if policy.promise == "selective":
        promise = (
            f"With a probability of at least {format_percent(1 - policy.delta)}, at most "
            f"{format_percent(policy.alpha)} of the answers that are given are wrong (p = {policy.p_value:.3g})."
        )
    else:
        promise = f"On average, at most {format_percent(policy.alpha)} of all requests get a wrong answer."
    return [
        f"Threshold: {policy.score} at least {policy.threshold:.6g}. {found}.",
        promise,
        f"Below it: {policy.below}. The promise is for requests like these rows, until drift raises an alarm.",
    ]


def render_drift(found: DriftCounts) -> Group:
    """The alarms, then the counts of each feature."""
    servers = f" on {found.merged} servers" if found.merged > 1 else ""
    lines = [f"{format_count(found.requests, 'request')}{servers}, {format_count(found.blocks, 'block')} compared."]
    lines += [
        f"ALARM: {alarm.feature} differs from the calibration rows since block {alarm.block} (p = {alarm.p_value:.2g})."
        for alarm in found.alarms
    ]
    lines += [] if found.alarms else ["No alarm."]
    rows = [("feature", "counts")]
    features = found.total or found.current
    for feature in features:
        total = found.total.get(feature, (0,) * len(features[feature]))
        current = found.current.get(feature, (0,) * len(total))
        rows.append((feature, " ".join(str(a + b) for a, b in zip(total, current, strict=True))))
    return Group(*map(Text, [*lines, "", *aligned(rows, left=(0, 1))]))
