"""Limits of memory and speed are judged on the device that they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finished_run import speed
from potstill.components.hardware.random_gguf import write_random_gguf
from potstill.components.models.configs import from_config
from potstill.core.artifacts.speed import MeasuredSpeed, SpeedTiming
from potstill.core.artifacts.verdict import GateResult
from potstill.core.errors import StepError
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Target
from potstill.stages.gate.budgets import budget_gates

LIMITS = {"memory_mb": 60, "ttft_ms": 50, "decode_tokens_per_s": 200}
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> HashedPath:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_random_gguf(from_config(CONFIG).quantized("Q8_0"), path)
    return HashedPath.of_file(path)


def judged(gguf: HashedPath, here: MeasuredSpeed, measured: Path | None = None, **target: Any) -> list[GateResult]:
    limits = Target(**{"device": "this machine", **LIMITS, **target})
    return list(budget_gates(limits, gguf, here, HashedPath.of_file(measured) if measured else None))


def timed(low: float, median: float, high: float) -> SpeedTiming:
    return SpeedTiming(median=median, low=low, high=high, tail=high, tail_low=high, tail_high=high)


@pytest.mark.parametrize("device", ["unnamed", "this", "This machine"])
def test_this_machine_is_judged_by_what_was_measured_here(gguf: HashedPath, device: str) -> None:
    gates = judged(gguf, speed(), device=device)
    assert [(gate.key, gate.verdict) for gate in gates] == [(f"target.{key}", "PASS") for key in LIMITS]
    assert "90 % interval over 3 loads of the server" in gates[1].detail


@pytest.mark.parametrize(
    ("timing", "verdict"), [(timed(51, 55, 60), "FAIL"), (timed(40, 45, 60), "INCONCLUSIVE"), (timed(1, 2, 3), "PASS")]
)
@pytest.mark.parametrize("busy", [False, True])
def test_a_busy_machine_shows_no_failure(gguf: HashedPath, timing: SpeedTiming, verdict: str, busy: bool) -> None:
    machine = speed().machine.model_copy(update={"load_others": 3.1 if busy else 0.1})
    (gate,) = judged(gguf, speed(ttft_ms=timing, machine=machine), memory_mb=None, decode_tokens_per_s=None)
    assert gate.verdict == ("INCONCLUSIVE" if busy and verdict == "FAIL" else verdict)
    assert ("other processes used 3.1 of its 4 cores" in gate.detail) == (busy and verdict != "PASS")
    assert "more measurements" not in gate.detail


def test_another_device_is_predicted_and_left_open(gguf: HashedPath) -> None:
    gates = judged(gguf, speed(), device="Raspberry Pi 5")
    assert [gate.verdict for gate in gates] == ["INCONCLUSIVE"] * 3
    assert all(gate.value is None and gate.low and gate.high and gate.low <= gate.high for gate in gates)
    assert gates[1].high is not None and gates[1].high < 50  # the limit is met by far, and still not proven
    for gate, bound in zip(gates, ("maximum 60 MB", "maximum 50 ms", "minimum 200 tokens/s"), strict=True):
        assert "Predicted for Raspberry Pi 5: " in gate.detail and bound in gate.detail
        assert "`potstill bench PACKAGE --json FILE` on Raspberry Pi 5" in gate.detail
    assert "after a prompt of 140 tokens" in gates[1].detail


def test_a_device_that_nobody_knows_is_left_open(gguf: HashedPath) -> None:
    gates = judged(gguf, speed(), device="my board")
    assert [(gate.verdict, gate.low) for gate in gates] == [("INCONCLUSIVE", None)] * 3
    assert all("Nothing is predicted for my board" in gate.detail for gate in gates)


def test_what_was_measured_on_the_device_decides(gguf: HashedPath, tmp_path: Path) -> None:
    loads = [load.model_copy(update={"ttft_ms": 9 * load.ttft_ms}) for load in speed().loads]
    slow = speed(model_sha256=gguf.sha256, loads=tuple(loads), peak_rss_mb=50.0)
    slow.write(tmp_path)
    gates = judged(gguf, speed(), tmp_path / "speed.json", device="Raspberry Pi 5")
    assert [gate.verdict for gate in gates] == ["PASS", "FAIL", "PASS"]
    assert gates[0].value == 50 and gates[1].value == pytest.approx(9 * 11.3)


@pytest.mark.parametrize("device", ["Raspberry Pi 5", "unnamed"])
def test_what_was_measured_of_another_file_decides_nothing(gguf: HashedPath, tmp_path: Path, device: str) -> None:
    speed(model_sha256="0" * 64).write(tmp_path)
    gates = judged(gguf, speed(), tmp_path / "speed.json", device=device)
    assert [gate.verdict for gate in gates] == ["INCONCLUSIVE"] * 3
    assert all("target.measured: speed.json measures another GGUF file." in gate.detail for gate in gates)


def test_a_file_that_bench_did_not_write(gguf: HashedPath, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"format": 1, "speed": 3}')
    with pytest.raises(StepError, match=r"b\.json: not a valid MeasuredSpeed.*Run `potstill bench"):
        judged(gguf, speed(), tmp_path / "b.json")
