"""Verdicts, splits, contexts and speeds: what must hold for every model and device, and the numbers people repeat."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.cli import main
from potstill.errors import UsageError
from potstill.plan import devices as devices_module
from potstill.plan.calibrate import Sample, fit_rates
from potstill.plan.devices import Device, calibration_file, find_device, load_devices
from potstill.plan.fit import FITS, NO_FIT, OFFLOAD, Fit, Wish, fit
from potstill.plan.memory import KV_TYPES, kv_bytes
from potstill.plan.source import load_anatomy
from potstill.plan.speed import calibrated_seconds

CONFIGS = Path(__file__).parent / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.json"))
MODELS = {name: load_anatomy(str(CONFIGS / f"{name}.json")) for name in NAMES}
KEYS = [
    "weight_bytes", "bits_per_weight", "kv_bytes", "compute_bytes", "total_bytes", "decode_tokens_per_s",
    "max_context", "verdict",
]  # fmt: skip
HOST = find_device("ddr5")
ORDER = {NO_FIT: 0, OFFLOAD: 1, FITS: 2}

some_model = st.sampled_from([n for n in NAMES if n not in ("deepseek-v3", "llama-3.1-70b", "qwen2.5-72b")])
some_device = st.sampled_from(load_devices())
some_wish = st.builds(Wish, st.integers(1, 40_000), st.sampled_from(["f16", "q8_0"]), st.integers(1, 4))


def config(name: str) -> str:
    return str(CONFIGS / f"{name}.json")


def plan(name: str, device: str, quantization: str = "Q4_K_M", host: Device = HOST, **wish: Any) -> Fit:
    return fit(MODELS[name], quantization, find_device(device), Wish(**wish), host)


# ---- what must always hold ----


@given(some_model, some_device, some_wish, st.floats(1.0, 4.0))
@settings(max_examples=60, deadline=None)
def test_more_memory_never_removes_a_fit(name: str, device: Device, wish: Wish, factor: float) -> None:
    model = MODELS[name].quantized("Q4_K_M")
    small = fit(model, "Q4_K_M", device, wish, HOST)
    large = fit(model, "Q4_K_M", device.with_memory(device.usable_bytes * factor), wish, HOST)
    assert ORDER[large.verdict] >= ORDER[small.verdict]
    assert large.layers_on_device >= small.layers_on_device
    if small.verdict == FITS:
        assert large.max_context >= small.max_context


@given(some_model, st.integers(1, 100_000), st.integers(0, 100_000), st.sampled_from(KV_TYPES), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_longer_context_never_shrinks_the_cache(name: str, context: int, more: int, kv: str, parallel: int) -> None:
    short, long = (kv_bytes(MODELS[name], tokens, kv, parallel) for tokens in (context, context + more))
    assert 0 < short <= long
    assert kv_bytes(MODELS[name], context, kv, parallel + 1) > short


@given(some_model, some_device, some_wish)
@settings(max_examples=60, deadline=None)
def test_the_largest_context_fits_and_the_next_does_not(name: str, device: Device, wish: Wish) -> None:
    model = MODELS[name].quantized("Q4_K_M")
    longest = fit(model, "Q4_K_M", device, wish, None).max_context
    assert longest % 256 == 0
    if longest:
        assert fit(model, "Q4_K_M", device, replace(wish, context=longest), None).verdict == FITS
    if longest + 256 <= (model.context or 0):
        assert fit(model, "Q4_K_M", device, replace(wish, context=longest + 256), None).verdict == NO_FIT


@given(some_model, some_device, some_wish)
@settings(max_examples=40, deadline=None)
def test_parts_add_up_and_rates_are_ordered(name: str, device: Device, wish: Wish) -> None:
    found = fit(MODELS[name], "Q4_K_M", device, wish, HOST)
    held = found.memory
    assert held.total == held.weights + held.copies + held.kv + held.compute + held.overhead
    assert held.weights >= found.anatomy.weight_bytes
    assert (found.speed is None) == (found.verdict == NO_FIT)
    assert bool(found.advice) == (found.verdict != FITS)
    if found.speed:
        for low, high in (found.speed.decode, found.speed.prefill):
            assert 0 < low <= high
        assert found.speed.decode[0] <= found.speed.prefill[0]
    if found.verdict == OFFLOAD:
        assert 0 < found.layers_on_device <= found.anatomy.layers
        assert found.host_bytes <= HOST.usable_bytes


# ---- the numbers people repeat ----


def test_a_7b_in_6_gb_depends_on_its_heads() -> None:
    card = find_device("RTX 3060").with_memory(6e9)
    assert fit(MODELS["qwen2.5-7b"], "Q4_K_M", card, Wish(4096), HOST).verdict == FITS
    without = fit(MODELS["llama-2-7b"], "Q4_K_M", card, Wish(4096), HOST)
    assert without.verdict == OFFLOAD
    assert without.advice[0] == "a KV cache in q8_0 (--kv-type q8_0)"
    assert fit(MODELS["llama-2-7b"], "Q4_K_M", card, Wish(4096, "q8_0"), HOST).verdict == FITS


def test_a_70b_needs_more_than_40_gb() -> None:
    assert plan("llama-3.1-70b", "A100 40GB").verdict == OFFLOAD
    assert plan("llama-3.1-70b", "L40S").verdict == FITS


def test_published_rates_lie_in_the_range() -> None:
    # a 7B at Q4 on an RTX 3060 in 43 to 57, 70B with a 12 GB card in 1.1 (DDR4) and 1.8 (DDR5)
    low, high = plan("qwen2.5-7b", "RTX 3060").speed.decode  # type: ignore[union-attr]
    assert low < 43 < 57 < high
    for host, rate in (("ddr4", 1.1), ("ddr5", 1.8)):
        found = plan("llama-3.1-70b", "RTX 3060", host=find_device(host))
        assert found.speed and found.speed.bound == "offload"
        assert found.speed.decode[0] < rate < found.speed.decode[1]
    # experts: a token of a 30B that uses 3B is read as fast as of a 3B
    moe, dense = plan("qwen3-30b-a3b", "RTX 4090").speed, plan("qwen3-4b", "RTX 4090").speed
    assert moe and dense and moe.decode[1] > dense.decode[1]


def test_what_would_make_it_fit_does() -> None:
    found = plan("llama-3.1-8b", "RTX 3070", "Q8_0", context=8192)
    assert found.verdict == OFFLOAD
    quantization = next(text.split()[0] for text in found.advice if "--quantization" in text)
    assert plan("llama-3.1-8b", "RTX 3070", quantization, context=8192).verdict == FITS
    missing = float(found.advice[-1].split(" GB in all")[0].split()[-1])
    roomy = find_device("RTX 3070").with_memory((missing + 0.01) * 1e9)
    assert fit(MODELS["llama-3.1-8b"], "Q8_0", roomy, Wish(8192), HOST).verdict == FITS


# ---- devices ----


def test_devices_are_complete_and_found_by_every_name() -> None:
    devices = load_devices()
    assert len(devices) >= 40
    assert len({device.name for device in devices}) == len(devices)
    for device in devices:
        for name in (device.name, device.name.upper(), *device.aliases):
            assert find_device(name) == device
        assert 1e9 < device.bandwidth < 1e13 and 1e9 < device.compute < 1e16 and 0.3 <= device.usable <= 1
        assert device.source and device.date.startswith("20")
        assert device.kind in ("cpu", "unified", "gpu")
    backends = {device.backend for device in devices}
    assert backends >= {"x86", "arm", "metal", "cuda"}


def test_an_unknown_device_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Did you mean .*RTX 3060"):
        find_device("RTX 3660")
    with pytest.raises(UsageError, match=r"Did you mean .*Raspberry Pi 5"):
        find_device("raspberry")


def test_this_machine_is_measured_in_time() -> None:
    begun = time.process_time()
    device = find_device("this", quick=True)
    assert time.process_time() - begun < 2
    assert 1e8 < device.bandwidth < 1e13 and 1e8 < device.compute < 1e15
    assert device.memory > 1e8


def test_a_calibration_is_used_and_a_damaged_one_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("potstill.plan.probe.probe", lambda seconds: (1e10, 1e12))
    assert calibration_file().is_relative_to(tmp_path)
    calibration_file().parent.mkdir()
    rates = {"layer": 1e-4, "Q8_0": 1e-10, "F32": 1e-10}
    calibration_file().write_text(json.dumps({"rates": rates, "threads": 3}))
    device = find_device("this")
    assert device.rates == rates and device.threads == 3
    found = fit(MODELS["qwen2.5-0.5b"], "Q8_0", replace(device, memory=2**34), Wish(256), None)
    assert found.speed
    seconds = 24e-4 + found.anatomy.weight_bytes * 1e-10
    assert found.speed.decode[0] < 1 / seconds < found.speed.decode[1]
    assert found.speed.decode[1] / found.speed.decode[0] < 1.5
    calibration_file().write_text("{}")
    with pytest.raises(UsageError, match="not a calibration"):
        find_device("this")


def test_rates_are_found_again_from_samples_made_of_them() -> None:
    true = {"layer": 2e-4, "vocabulary": 5e-9, "Q4_K": 1.5e-10, "Q8_0": 0.8e-10}
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(12):
        layers, read = int(rng.integers(4, 40)), {k: float(rng.integers(1e7, 1e9)) for k in ("Q4_K", "Q8_0")}
        vocab = int(rng.integers(1_000, 200_000))
        samples.append(Sample(layers, read, calibrated_seconds(true, layers, vocab, read), vocab))
    found = fit_rates(samples)
    assert {key: found[key] for key in true} == pytest.approx(true, rel=1e-3)
    assert found["F32"] == found["Q8_0"]
    # a layer's time that would come out negative is nothing
    negative = [replace(s, seconds=s.seconds - s.layers * 2.5e-4) for s in samples]
    assert fit_rates(negative)["layer"] == 0


# ---- the command ----


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["plan", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_json_has_the_keys_of_every_plan() -> None:
    found = json.loads(run(config("llama-3.1-8b"), "--device", "Raspberry Pi 5", "--json"))
    assert list(found)[: len(KEYS)] == KEYS
    assert found["verdict"] == FITS
    assert found["bits_per_weight"] == pytest.approx(4.894, abs=1e-3)
    low, high = found["decode_tokens_per_s"]
    assert 0.5 < low < high < 5
    assert found["max_context"] > 4096
    several = json.loads(
        run(config("llama-3.1-8b"), "--device", "pi5", "--device", "3060", "--quantization", "Q8_0", "--json")
    )["plans"]
    assert [one["device"] for one in several] == ["Raspberry Pi 5", "RTX 3060"]
    assert [one["verdict"] for one in several] == [NO_FIT, FITS]


def test_a_person_is_told_verdict_and_remedy() -> None:
    text = run(config("llama-3.1-8b"), "--device", "pi5", "--quantization", "Q8_0")
    assert "Raspberry Pi 5: does not fit" in text
    assert "would fit with" in text and "--quantization Q5_K_M" in text
    table = run(config("llama-3.1-8b"), "--device", "pi5", "--quantization", "Q8_0", "--quantization", "Q4_K_M")
    assert table.count("Raspberry Pi 5") == 2
    assert "Jetson Orin Nano" in run("--devices")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no such file or folder"),
        ([config("qwen3-4b"), "--quantization", "Q9"], "'Q9' is not one of"),
        ([config("qwen3-4b"), "--kv-type", "q9"], "'q9' is not one of"),
        ([config("qwen3-4b"), "--device", "abacus"], "no such device"),
        ([config("qwen3-4b"), "--context", "0"], "--context must be more than 0"),
        ([config("qwen3-4b"), "--memory", "-1"], "--memory must be more than 0"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["plan", *arguments])
    assert result.exit_code == 2
    assert said in result.output


def test_without_a_network_a_hub_id_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = CliRunner().invoke(main, ["plan", "no-one/no-such-model", "--device", "pi5"])
    assert result.exit_code == 2
    assert "the hub did not give its config.json (HF_HUB_OFFLINE is set)" in result.output


def test_it_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time\n"
        "from potstill.cli import main\n"
        f"main(['plan', {config('llama-3.1-8b')!r}, '--device', 'pi5'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'xllamacpp', 'gguf', 'httpx', 'safetensors', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)), time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, seconds = done.stdout.splitlines()[-1].rsplit(" ", 1)
    assert loaded == "[]"
    assert float(seconds) < 0.5  # of the processor: a busy machine would make a clock unjust


def test_every_device_is_read_once() -> None:
    assert devices_module.load_devices() is load_devices()
