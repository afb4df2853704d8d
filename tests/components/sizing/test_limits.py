"""A student that cannot meet its target is refused before anything is paid for; what may miss it is a warning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from potstill.components.hardware.fit import Serving, fit
from potstill.components.hardware.speed import Speed
from potstill.components.models.recipe_models import load_models
from potstill.components.sizing.limits import Limits
from potstill.stages.check.check import check_recipe

if TYPE_CHECKING:
    from workshop import Workshop

PI = "Raspberry Pi 5"
RATE = Speed(decode=(10.0, 20.0), prefill=(100.0, 200.0), bound="bandwidth", prefill_bound="compute", load_seconds=1.0)


def predicted(workshop: Workshop) -> Speed:
    from potstill.components.hardware.devices import find_device

    recipe = workshop.recipe()
    found = fit(load_models(recipe).student_spec, "Q8_0", find_device(PI), Serving(recipe.chat.context))
    assert found.speed
    return found.speed


@pytest.mark.parametrize(
    ("limits", "slow", "fast"),
    [
        (Limits(), [], []),
        (Limits(decode=15.0), ["decode_tokens_per_s"], []),
        (Limits(decode=21.0), ["decode_tokens_per_s"], ["decode_tokens_per_s"]),
        (Limits(ttft=3.0, prompt=400), ["ttft_ms"], []),
        (Limits(ttft=1.9, prompt=400), ["ttft_ms"], ["ttft_ms"]),
        (Limits(file_bytes=99, peak_bytes=199), ["file_mb", "memory_mb"], ["file_mb", "memory_mb"]),
        (Limits(file_bytes=100, peak_bytes=200), [], []),
    ],
)
def test_what_is_missed_at_each_end(limits: Limits, slow: list[str], fast: list[str]) -> None:
    assert limits.missed(100, 200, RATE) == slow
    assert limits.missed(100, 200, RATE, best=True) == fast


def test_a_speed_that_the_device_cannot_reach_is_refused(workshop: Workshop) -> None:
    high = predicted(workshop).decode[1]
    message = workshop.refused(workshop.recipe(target={"device": PI, "decode_tokens_per_s": 1.01 * high}))
    assert message.startswith("target.decode_tokens_per_s: on Raspberry Pi 5 the student's Q8_0 file is predicted")
    assert "`potstill search RECIPE`" in message
    message = workshop.refused(workshop.recipe(target={"device": "pi 5", "ttft_ms": 0.001}))
    assert "target.ttft_ms" in message and "ms to the first token" in message


def test_a_speed_that_it_may_miss_is_reported(workshop: Workshop) -> None:
    low, high = predicted(workshop).decode

    def warnings(**target: Any) -> list[str]:
        found = check_recipe(workshop.recipe(target=target)).warnings
        return [text for text in found if text.startswith("target.")]

    asked = warnings(device=PI, decode_tokens_per_s=(low + high) / 2)
    assert len(asked) == 1 and asked[0].endswith("it may miss that.")
    assert not warnings(device=PI, decode_tokens_per_s=0.9 * low)
    # words that name no device are not judged, and the check says so; a misspelt device is reported with the nearest
    (message,) = warnings(device="a board of ours", decode_tokens_per_s=100 * high)
    assert "target.decode_tokens_per_s cannot be predicted" in message
    (message,) = warnings(device="Raspbery Pi 5")
    assert "Did you mean Raspberry Pi 5 or" in message
    assert not warnings(device="a board of ours")


def test_a_device_without_room_is_refused(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.components.hardware.devices import find_device
    from potstill.components.sizing import limits

    monkeypatch.setattr(limits, "known_device", lambda name: find_device(name).with_memory(1e6))
    message = workshop.refused(workshop.recipe(target={"device": PI}))
    assert message.startswith("target.device: Raspberry Pi 5 has 1.00 MB for a model")
