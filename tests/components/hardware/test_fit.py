"""Verdicts, splits, contexts and speeds: what must hold for every model and device, and the numbers people repeat."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import CONFIGS
from potstill.components.hardware.calibrate import Sample, fit_rates
from potstill.components.hardware.calibration import calibration_file
from potstill.components.hardware.devices import Device, find_device, load_devices
from potstill.components.hardware.fit import FITS, NO_FIT, OFFLOAD, Fit, Serving, device_memory, fit
from potstill.components.hardware.memory import KV_TYPES, kv_bytes
from potstill.components.hardware.speed import Placement, calibrated_seconds, speed
from potstill.components.models.source import load_spec
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import UsageError

NAMES = sorted(path.stem for path in CONFIGS.glob("*.json"))
MODELS = {name: load_spec(str(CONFIGS / f"{name}.json")) for name in NAMES}
HOST = find_device("ddr5")
ORDER = {NO_FIT: 0, OFFLOAD: 1, FITS: 2}

some_model = st.sampled_from([n for n in NAMES if n not in ("deepseek-v3", "llama-3.1-70b", "qwen2.5-72b")])
some_device = st.sampled_from(load_devices())
some_serving = st.builds(Serving, st.integers(1, 40_000), st.sampled_from(["f16", "q8_0"]), st.integers(1, 4))


def config(name: str) -> str:
    return str(CONFIGS / f"{name}.json")


def plan(name: str, device: str, quantization: str = "Q4_K_M", host: Device = HOST, **serving: Any) -> Fit:
    return fit(MODELS[name], quantization, find_device(device), Serving(**serving), host)


# ---- what must always hold ----


@given(some_model, some_device, some_serving, st.floats(1.0, 4.0))
@settings(max_examples=60, deadline=None)
def test_more_memory_never_removes_a_fit(name: str, device: Device, serving: Serving, factor: float) -> None:
    model = MODELS[name].quantized("Q4_K_M")
    small = fit(model, "Q4_K_M", device, serving, HOST)
    large = fit(model, "Q4_K_M", device.with_memory(device.usable_bytes * factor), serving, HOST)
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


@given(some_model, some_device, some_serving)
@settings(max_examples=60, deadline=None)
def test_the_largest_context_fits_and_the_next_does_not(name: str, device: Device, serving: Serving) -> None:
    model = MODELS[name].quantized("Q4_K_M")
    longest = fit(model, "Q4_K_M", device, serving, None).max_context
    assert longest % 256 == 0
    if longest:
        assert fit(model, "Q4_K_M", device, replace(serving, context=longest), None).verdict == FITS
    if longest + 256 <= (model.context or 0):
        assert fit(model, "Q4_K_M", device, replace(serving, context=longest + 256), None).verdict == NO_FIT


@given(some_model, some_device, some_serving)
@settings(max_examples=40, deadline=None)
def test_parts_add_up_and_rates_are_ordered(name: str, device: Device, serving: Serving) -> None:
    found = fit(MODELS[name], "Q4_K_M", device, serving, HOST)
    held = found.memory
    assert held.total == held.weights + held.copies + held.kv + held.compute + held.overhead
    assert held.needed == held.total - held.copies - held.on_host
    assert held.weights >= found.spec.weight_bytes
    assert (found.speed is None) == (found.verdict == NO_FIT)
    assert bool(found.advice) == (found.verdict != FITS)
    assert found.max_context >= found.max_context_without_offload
    assert (found.verdict == FITS) == (found.max_context_without_offload >= 256 * -(-serving.context // 256)) or (
        found.max_context_without_offload == found.spec.context
    )
    if found.speed:
        for low, high in (found.speed.decode, found.speed.prefill):
            assert 0 < low <= high
        assert {found.speed.bound, found.speed.prefill_bound} <= {"bandwidth", "compute", "offload"}
    if found.split:
        assert 0 < found.layers_on_device <= found.spec.layers
        assert found.host_bytes <= HOST.usable_bytes
        # what the card holds and what the host holds is all there is
        on_card = sum(found.spec.tensor_bytes()[tensor] for tensor in found.split.on_gpu)
        on_card += round(found.split.cache * held.kv)
        assert on_card + found.host_bytes == pytest.approx(held.total - held.copies, abs=2)
        assert on_card + held.compute <= device.usable_bytes


@given(some_model, st.sampled_from([d for d in load_devices() if d.kind == "gpu"]), some_serving, st.floats(1.0, 3.0))
@settings(max_examples=40, deadline=None)
def test_more_memory_never_shortens_the_longest_context(
    name: str, card: Device, serving: Serving, factor: float
) -> None:
    model = MODELS[name].quantized("Q4_K_M")
    small, large = (fit(model, "Q4_K_M", card.with_memory(8e9 * f), serving, HOST) for f in (1.0, factor))
    assert large.max_context >= small.max_context
    assert large.max_context_without_offload >= small.max_context_without_offload


# ---- what the parts are ----


def test_a_card_holds_neither_the_process_nor_the_table_of_tokens() -> None:
    model = MODELS["llama-3.1-8b"].quantized("Q4_K_M")
    on_card, on_mac, on_cpu = (
        device_memory(model, find_device(name), Serving(4096)) for name in ("RTX 3060", "M2 Pro", "pi5")
    )
    embedding = 128256 * 4096 * 144 // 256
    assert model.tensor_bytes()["token_embd.weight"] == embedding
    # a process of 40 MB, 200 bytes a token, and the header
    assert on_card.on_host - embedding == pytest.approx(40e6 + 226 * 128256, rel=0.01)
    assert on_mac.on_host == on_cpu.on_host == 0
    # CUDA takes 0.3 to 0.5 GiB, a CPU none
    assert 0.3 * 2**30 < on_card.overhead - on_cpu.overhead < 0.5 * 2**30
    assert 0 < on_mac.overhead - on_cpu.overhead < 0.3 * 2**30
    tied = device_memory(MODELS["qwen2.5-0.5b"].quantized("Q4_K_M"), find_device("RTX 3060"), Serving(4096))
    assert tied.on_host < 75e6


@pytest.mark.parametrize(
    ("quantization", "x86", "arm"),
    [("Q4_0", True, True), ("Q4_K_M", True, True), ("Q8_0", False, True), ("F16", False, False)],
)
def test_a_cpu_keeps_some_types_twice(quantization: str, x86: bool, arm: bool) -> None:
    model = MODELS["llama-3.1-8b"].quantized(quantization)
    for device, twice in (("ddr5", x86), ("pi5", arm)):
        copies = device_memory(model, find_device(device), Serving(512)).copies
        assert (copies > 0.5 * model.weight_bytes) is twice


def test_experts_in_mxfp4_are_kept_twice() -> None:
    model = MODELS["qwen3-30b-a3b"].quantized("MXFP4_MOE")
    assert device_memory(model, find_device("ddr5"), Serving(512)).copies > 0.8 * model.weight_bytes


def test_heads_that_no_block_divides_have_no_quantized_cache() -> None:
    odd = load_spec("llama:layers=4,hidden=192,ffn=512,heads=4,kv_heads=4,vocab=1000")  # heads of 48
    with pytest.raises(UsageError, match="heads of 48"):
        fit(odd, "Q8_0", find_device("pi5"), Serving(512, "q8_0"))
    assert fit(odd, "Q8_0", find_device("pi5"), Serving(512)).verdict == FITS
    tight = fit(odd, "Q8_0", find_device("pi5").with_memory(45e6), Serving(16384))
    assert tight.advice and not any("--kv-type" in text for text in tight.advice)


# ---- speed ----


def two_rates(**of: Any) -> Device:
    """A device of exact rates: no range, no overhead but the layers'."""
    return replace(find_device("RTX 3060"), efficiency=(1.0, 1.0), compute_efficiency=(1.0, 1.0), **of)


def prompt_operations(model: ModelSpec) -> int:
    """Of a token, but for attention: all blocks, less the last one's FFN, which llama.cpp computes for one token."""
    matrices = {name: dims for name, dims in model.tensors.items() if name.startswith("blk.") and len(dims) > 1}
    last = [name for name in matrices if name.startswith(f"blk.{model.layers - 1}.ffn")]
    assert len(last) == 3
    return 2 * sum(math.prod(dims) for name, dims in matrices.items() if name not in last)


def test_a_prompt_costs_no_logits_but_attention() -> None:
    model = MODELS["llama-3.1-8b"].quantized("Q8_0")
    slow = two_rates(bandwidth=1e15, compute=1e12)
    found = speed(model, [Placement(slow, 1.0)], 1, "f16")
    blocks = prompt_operations(model)
    assert 1e12 / found.prefill[1] == pytest.approx(blocks, rel=1e-6)
    # a prompt of 8192: queries times keys, and weights times values, over 4096 tokens on average
    long = speed(model, [Placement(slow, 1.0)], 8192, "f16")
    assert 1e12 / long.prefill[0] - blocks == pytest.approx(32 * 4 * 4096 * 4096, rel=1e-4)
    assert found.prefill_bound == long.bound == "compute"


def test_a_prompt_reads_the_weights_once_for_512_tokens_and_every_expert() -> None:
    model = MODELS["qwen3-30b-a3b"].quantized("Q8_0")
    wide = two_rates(bandwidth=1e9, compute=1e18)
    found = speed(model, [Placement(wide, 1.0)], 512, "f16")
    read = model.weight_bytes - model.tensor_bytes()["token_embd.weight"]
    assert found.prefill[1] == pytest.approx(512 * 1e9 / read)
    assert found.prefill_bound == found.bound == "bandwidth"
    # decoding reads the chosen ones alone
    assert found.decode[1] > 5 * 1e9 / read


def test_a_small_model_waits_for_its_layers() -> None:
    tiny = load_spec("llama:layers=30,hidden=64,ffn=128,heads=2,kv_heads=2,vocab=1000").quantized("Q8_0")
    low, high = speed(tiny, [Placement(find_device("RTX 4090"), 1.0)], 256, "f16").decode
    assert 500 < low < high < 5000


def test_a_calibrated_machine_answers_by_its_rates_whatever_a_probe_measured() -> None:
    model = MODELS["qwen2.5-0.5b"].quantized("Q8_0")
    machine = replace(
        find_device("ddr5"), compute=1e6, rates={"layer": 0.0, "Q8_0": 1e-10, "F32": 1e-10}, prompt_rates={"Q8_0": 1e11}
    )
    found = speed(model, [Placement(machine, 1.0)], 256, "f16")
    assert found.decode[0] * found.decode[1] == pytest.approx((1e10 / model.weight_bytes) ** 2, rel=0.05)
    blocks = prompt_operations(model)
    assert found.prefill[1] == pytest.approx(1e11 / blocks / 0.8, rel=1e-6) or found.prefill_bound == "bandwidth"


# ---- over a card and its host ----


def test_experts_stay_on_the_host_and_the_rest_goes_on_the_card() -> None:
    found = plan("qwen3-30b-a3b", "RTX 3060")
    assert found.verdict == OFFLOAD and found.split
    assert found.layers_on_device == 48 and 0 < found.split.experts < 48
    assert found.split.cache == 1.0
    on_host = set(found.spec.tensors) - found.split.on_gpu
    assert all("_exps." in name or name == "token_embd.weight" for name in on_host)
    # cutting whole layers is slower, and that is why
    assert found.speed and found.device
    from potstill.components.hardware.fit import _splits

    layers, experts = _splits(found.spec, found.device, found.serving)
    assert experts == found.split
    slower = speed(found.spec, layers.placements(found.spec, found.device, HOST), 4096, "f16")
    assert slower.decode[0] < found.speed.decode[0]


def test_a_block_that_predicts_further_tokens_is_in_the_file_alone() -> None:
    whole = MODELS["qwen3-30b-a3b"].quantized("Q4_K_M")
    more = replace(whole, attention=whole.attention[:-1])
    used = speed(more, [Placement(find_device("RTX 4090"), 1.0)], 512, "f16")
    assert used.decode[0] > speed(whole, [Placement(find_device("RTX 4090"), 1.0)], 512, "f16").decode[0]
    assert more.data_bytes == whole.data_bytes
    found = fit(more, "Q4_K_M", find_device("RTX 3060"), Serving(), HOST)
    assert found.split and not any(name.startswith("blk.47.") for name in found.split.on_gpu)


def test_the_longest_context_is_the_models_own_where_that_is_no_multiple_of_256() -> None:
    short = replace(MODELS["qwen3-0.6b"], context=1000)
    assert fit(short, "Q8_0", find_device("pi5"), Serving(1000)).max_context == 1000


def test_advice_is_the_mildest_and_names_no_change_twice() -> None:
    half = plan("qwen3-4b", "pi5", "F16")
    assert half.verdict == NO_FIT
    assert next(text for text in half.advice if "--quantization" in text).startswith("Q8_0")
    cached = fit(MODELS["llama-3.1-8b"], "Q4_K_M", find_device("RTX 4090").with_memory(14.9e9), Serving(131_072), HOST)
    assert any(text.startswith("a KV cache in q8_0") for text in cached.advice)
    assert not any("weights and a KV cache" in text for text in cached.advice)


def test_advice_reaches_for_two_changes_and_for_offload() -> None:
    # neither fewer bits nor a shorter cache alone
    board = find_device("pi5").with_memory(2.05e9)
    both = fit(MODELS["qwen3-4b"], "Q4_K_M", board, Serving(2048), None)
    assert both.verdict == NO_FIT
    asked = next(text for text in both.advice if "--quantization" in text)
    assert "--kv-type q8_0" in asked
    smaller = asked.split()[0]
    assert fit(MODELS["qwen3-4b"], smaller, board, Serving(2048, "q8_0"), None).verdict == FITS
    huge = plan("llama-3.1-70b", "RTX 3060", "F16")
    assert huge.verdict == NO_FIT
    assert any(text.endswith("and offload") for text in huge.advice)


# ---- the numbers people repeat ----


def test_a_7b_in_6_gb_depends_on_its_heads() -> None:
    card = find_device("RTX 3060").with_memory(6e9)
    assert fit(MODELS["qwen2.5-7b"], "Q4_K_M", card, Serving(4096), HOST).verdict == FITS
    without = fit(MODELS["llama-2-7b"], "Q4_K_M", card, Serving(4096), HOST)
    assert without.verdict == OFFLOAD
    assert without.advice[0] == "a KV cache in q8_0 (--kv-type q8_0)"
    assert fit(MODELS["llama-2-7b"], "Q4_K_M", card, Serving(4096, "q8_0"), HOST).verdict == FITS


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
    missing = float(found.advice[-1].split(" GB in total")[0].split()[-1])
    roomy = find_device("RTX 3070").with_memory((missing + 0.01) * 1e9)
    assert fit(MODELS["llama-3.1-8b"], "Q8_0", roomy, Serving(8192), HOST).verdict == FITS


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


def test_an_unknown_device_is_reported_with_the_nearest() -> None:
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


def test_a_machine_is_probed_once_and_only_higher_rates_replace_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    found = iter([(2e10, 1e12), (1e10, 2e12)])
    monkeypatch.setattr("potstill.components.hardware.probe.probe", lambda seconds: next(found))
    first = find_device("this", quick=True)
    assert (first.bandwidth, first.compute) == (2e10, 1e12)
    assert find_device("this", quick=True) == first  # not measured again
    asked = find_device("this")
    assert (asked.bandwidth, asked.compute) == (2e10, 2e12)
    monkeypatch.setattr("platform.node", lambda: "another machine")
    with pytest.raises(StopIteration):
        find_device("this", quick=True)


def test_a_calibration_is_used_and_a_damaged_one_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("potstill.components.hardware.probe.probe", lambda seconds: (1e10, 1e12))
    assert calibration_file().is_relative_to(tmp_path)
    calibration_file().parent.mkdir()
    rates = {"layer": 1e-4, "Q8_0": 1e-10, "F32": 1e-10}
    calibration_file().write_text(json.dumps({"rates": rates, "threads": 3}))
    device = find_device("this")
    assert device.rates == rates and device.name == "this machine, 3 threads"
    found = fit(MODELS["qwen2.5-0.5b"], "Q8_0", replace(device, memory=2**34), Serving(256), None)
    assert found.speed
    seconds = 24e-4 + found.spec.weight_bytes * 1e-10
    assert found.speed.decode[0] < 1 / seconds < found.speed.decode[1]
    assert found.speed.decode[1] / found.speed.decode[0] < 1.6
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
