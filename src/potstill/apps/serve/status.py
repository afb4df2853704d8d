"""What the status page shows: health, decisions, latency, drift and versions, and what to do where a light is red."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from potstill.apps.serve.service import Service
from potstill.components.deferral.decisions import Rules
from potstill.core.artifacts.drift import DriftAlarm, DriftCounts
from potstill.core.artifacts.policy import Bound, Policy
from potstill.core.stats.quantiles import quantile
from potstill.core.tools import Tool

__all__ = ["Light", "Status", "status_of"]


@dataclass(frozen=True)
class Light:
    """One thing that is well or not; `text` says what it means, and what to do where it is not well."""

    name: str
    state: Literal["green", "yellow", "red"]
    text: str


@dataclass(frozen=True)
class Latency:
    """Seconds of the last answers, waiting included."""

    answers: int
    median: float | None
    p95: float | None


@dataclass(frozen=True)
class PolicyStatus:
    """The policy's threshold and its promise."""

    score: str
    threshold: float | None
    promise: str
    alpha: float
    delta: float
    tested_on: int
    below: str


@dataclass(frozen=True)
class DriftFeature:
    """Counts of one feature: of the calibration rows, and of live requests."""

    name: str
    reference: tuple[int, ...]
    live: tuple[int, ...]


@dataclass(frozen=True)
class Status:
    """All that the page shows; no word of any request."""

    name: str
    uptime: float
    lights: tuple[Light, ...]
    decisions: dict[str, int]
    errors: dict[str, int]
    audits: dict[str, int]
    latency: Latency
    active: int
    waiting: int
    restarts: int
    policy: PolicyStatus | None
    drift: tuple[DriftFeature, ...]
    alarms: tuple[DriftAlarm, ...]
    bound: Bound
    tools: tuple[Tool, ...]


def status_of(service: Service) -> Status:
    """The server's status now."""
    metrics, policy, counts = service.metrics, service.policy, service.watch.counts
    seconds = list(service.recent)
    return Status(
        name=service.package.name,
        uptime=time.time() - service.begun,
        lights=tuple(_lights(service)),
        decisions=metrics.sums("decisions", "action"),
        errors={status: n for status, n in metrics.sums("requests", "status").items() if status != "200"},
        audits=metrics.sums("audits", "result"),
        latency=Latency(
            answers=len(seconds),
            median=quantile(seconds, 0.5) if seconds else None,
            p95=quantile(seconds, 0.95) if seconds else None,
        ),
        active=service.slots.active,
        waiting=service.slots.waiting,
        restarts=service.engine.restarts,
        policy=_policy(policy) if policy else None,
        drift=_drift(policy, counts) if policy else (),
        alarms=counts.alarms,
        bound=service.bound,
        tools=service.package.tools,
    )


def _policy(policy: Policy) -> PolicyStatus:
    return PolicyStatus(
        policy.score, policy.threshold, policy.promise, policy.alpha, policy.delta, policy.tested_on, policy.below
    )


def _drift(policy: Policy, counts: DriftCounts) -> tuple[DriftFeature, ...]:
    out = []
    for name, reference in policy.reference.counts.items():
        none = (0,) * len(reference)
        parts = counts.total.get(name, none), counts.current.get(name, none)
        out.append(DriftFeature(name, reference, tuple(map(sum, zip(*parts, strict=True)))))
    return tuple(out)


def _lights(service: Service) -> list[Light]:
    package = f"{service.problem} Copy the package again; it is loaded as soon as it is whole."
    engine = "llama.cpp does not run, and is being started. If this stays, read the server's log."
    queue = "Requests wait. If this stays, add slots with --parallel, threads, or another server."
    return [
        Light("package", "red", package)
        if service.problem
        else Light("package", "green", "Every file is as its manifest says."),
        Light("model", "green", "llama.cpp runs.") if service.engine.address else Light("model", "red", engine),
        Light("queue", "yellow", queue) if service.slots.waiting else Light("queue", "green", "No request waits."),
        _promise(service.rules),
    ]


def _promise(rules: Rules) -> Light:
    state: Literal["green", "yellow", "red"] = "red"
    if rules.policy is None:
        state, text = "yellow", "There is no policy, so nothing is promised. Calibrate the package."
    elif rules.policy.threshold is None:
        state = "yellow"
        text = "No threshold keeps the promise, so no answer is given. Allow a larger alpha, or train a better student."
    elif rules.void:
        text = f"The policy is void: {', '.join(rules.void)} differ from what it was made for. Calibrate again."
    elif rules.drifted:
        text = f"Requests have drifted ({', '.join(rules.drifted)}), so the promise is gone. Calibrate on newer rows."
    else:
        state, text = "green", "The policy's promise holds."
    return Light("promise", state, text)
