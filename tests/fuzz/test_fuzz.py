"""A few hostile inputs of every kind; `make fuzz` tries many more."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.harness import SENTINEL, Kind, run_inputs
from fuzz.kinds import KINDS
from potstill.core.errors import StepError

COUNT, FEW = 60, 8
"""Inputs of each kind, and of one whose inputs start a process each."""
ALWAYS_ACCEPTED = ("answer", "answers", "journal")
"""Kinds of which no input is an error: every answer of a model is judged, a damaged line of a store is dropped, and a
damaged step runs again."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_hostile_inputs_end_in_an_answer_or_in_one_paragraph(kind: Kind) -> None:
    count = COUNT if kind.share >= 0.5 else FEW
    results = list(run_inputs(kind, range(count)))
    assert len(results) == count
    assert [result for result in results if result.is_fault] == []
    outcomes = {result.outcome for result in results}
    assert outcomes == ({"accepted"} if kind.name in ALWAYS_ACCEPTED else {"accepted", "refused"})


def _raise(error: BaseException) -> None:
    raise error


FAULTS: dict[str, Callable[[Path], object]] = {
    "accepted": lambda folder: None,
    "refused": lambda folder: _raise(StepError("too bad")),
    "message": lambda folder: _raise(StepError("one\ntwo")),
    "traceback": lambda folder: _raise(KeyError("x")),
    "crash": lambda folder: os.abort(),
    "executed": lambda folder: (folder / SENTINEL).touch(),
    "hang": lambda folder: time.sleep(60),
    "memory": lambda folder: bytearray(8 << 30),
}


@pytest.mark.parametrize("outcome", FAULTS)
def test_the_harness_sees_each_fault(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.harness._SECONDS", 0.3)

    def make(r: random.Random, folder: Path) -> Callable[[], object]:
        return lambda: FAULTS[outcome](folder)

    results = list(run_inputs(Kind("planted", make), [0, 1]))
    assert [result.outcome for result in results] == [outcome] * 2
