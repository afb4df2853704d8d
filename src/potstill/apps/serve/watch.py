"""Counts of live traffic against the policy's reference, kept on disk between runs of the server."""

from __future__ import annotations

from pathlib import Path

from potstill.apps.serve.exchange import Exchange
from potstill.components.deferral.drift import Observation, add_observation, script_of
from potstill.core.artifacts.drift import DriftAlarm, DriftCounts
from potstill.core.artifacts.policy import Policy

__all__ = ["DriftWatch"]

_SAVE_EVERY = 50


class DriftWatch:
    """Compares what is served with what the policy was calibrated on.

    Args:
        folder: where the counts are kept.
        policy: the policy; None: nothing is counted.
    """

    def __init__(self, folder: Path, policy: Policy | None) -> None:
        self._folder, self._policy = folder, policy
        self.counts = DriftCounts(policy_sha256=policy.sha256 if policy else "")
        path = folder / DriftCounts.FILE
        if policy and path.is_file():
            kept = DriftCounts.read_file(path, "delete it to count anew")
            # counts of another policy have other bins
            self.counts = kept if kept.policy_sha256 == self.counts.policy_sha256 else self.counts

    @property
    def drifted(self) -> tuple[str, ...]:
        """Features that raised an alarm."""
        return tuple(alarm.feature for alarm in self.counts.alarms)

    def add(self, exchange: Exchange) -> tuple[DriftAlarm, ...]:
        """Count an answered request; returns new alarms."""
        decision = exchange.decision
        if self._policy is None or decision is None:
            return ()
        before = self.counts
        new = Observation(
            score=decision.score,
            length=exchange.input_tokens,
            deferred=decision.action != "answer",
            invalid=exchange.invalid,
            truncated=exchange.finish_reason == "length",
            script=script_of(exchange.prompt),
        )
        self.counts = add_observation(before, self._policy.reference, new)
        if self.counts.blocks > before.blocks or self.counts.requests % _SAVE_EVERY == 0:
            self.save()
        return self.counts.alarms[len(before.alarms) :]

    def save(self) -> None:
        """Write the counts."""
        if self._policy:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.counts.write(self._folder)
