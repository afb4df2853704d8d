"""The time that a calibration may take."""

from __future__ import annotations

import itertools

import pytest

from potstill.components.hardware import calibrate
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import UsageError


def test_a_calibration_ends_in_time_and_names_the_slow_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model takes ten minutes by this clock, so the second one is not measured."""
    measured: list[str] = []
    clock = itertools.count(0, 600)

    def measure(spec: ModelSpec, *_: object) -> calibrate.Sample:
        measured.append(spec.name)
        return calibrate.Sample(1, {"Q8_0": 1.0}, 1.0, prompt=1.0)

    own = calibrate._own_models()
    monkeypatch.setattr(calibrate, "_measure", measure)
    monkeypatch.setattr(calibrate, "_runs", lambda _, folder: ((spec, folder.parent / "kept.gguf") for spec in own))
    monkeypatch.setattr(calibrate, "time", type("Clock", (), {"monotonic": staticmethod(lambda: next(clock))}))
    with pytest.raises(UsageError, match=r"after 15 minutes, with 1 model measured; the last one was wide Q4_K"):
        calibrate.calibrate([], 1, measured.append)
    assert measured[0] == "wide Q4_K"
