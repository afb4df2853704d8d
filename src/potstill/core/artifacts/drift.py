"""Counts of live traffic, which say whether it is still like the calibration rows. No request can be read from them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from potstill.core.artifacts.base import Artifact, Part

__all__ = ["DriftAlarm", "DriftCounts"]


class DriftAlarm(Part):
    """A feature whose counts in one block of requests differ from the reference."""

    feature: str
    block: int
    p_value: float


class DriftCounts(Artifact):
    """Counts since a policy came into force.

    policy_sha256   the policy whose reference they are compared with
    blocks          whole blocks that were compared
    requests        requests of all counts, those of the unfinished block included
    total           counts of each feature's classes, without the unfinished block
    current         those of the unfinished block
    alarms          each feature's first alarm
    merged          number of files that were added up
    """

    FILE: ClassVar[str] = "drift.json"

    policy_sha256: str
    blocks: int = 0
    requests: int = 0
    total: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    current: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    alarms: tuple[DriftAlarm, ...] = ()
    merged: int = 1
