"""Buffers and speeds of llama.cpp that others published, against what is predicted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures import CONFIGS
from potstill.components.hardware.devices import find_device
from potstill.components.hardware.fit import Serving, fit
from potstill.components.hardware.memory import compute_bytes
from potstill.components.hardware.speed import Placement, operations_by_type, speed
from potstill.components.models.source import load_spec
from potstill.components.models.spec import ModelSpec

MIB = 2**20


def model(name: str) -> ModelSpec:
    return load_spec(str(CONFIGS / f"{name}.json"))


@pytest.mark.parametrize(
    ("name", "context", "gpu", "published"),
    [
        # llama.cpp's own memory fit (fit_params) on a sparse file of the shape, on a CPU
        ("qwen3-4b", 4096, False, 86.02),
        ("llama-3.1-70b", 32768, False, 280.1),
        ("gemma-3-1b", 4096, False, 56.78),
        ("gpt-oss-20b", 32768, False, 128.46),
        ("phi-3.5-moe", 4096, False, 119.02),
        ("qwen3-30b-a3b", 4096, False, 92.02),  # the outputs of eight experts
        ("deepseek-v3", 32768, False, 438.01),  # latents of 128 heads
        # logs of runs: logits of 512 tokens
        ("qwen3-0.6b", 4096, True, 298.75),  # Vulkan
        ("qwen3-30b-a3b", 65536, True, 300.75),  # CUDA
    ],
)
def test_compute_buffers_are_those_of_llama_cpp(name: str, context: int, gpu: bool, published: float) -> None:
    assert compute_bytes(model(name), context, gpu=gpu) / MIB == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("name", "quantization", "context", "device", "decode", "prompt"),
    [
        # llama.cpp discussions 4167 (Apple), 15013 (NVIDIA) and 10879 (Vulkan): llama-bench -p 512 -n 128
        ("llama-2-7b", "Q4_0", 640, "Apple M1", 14.15, 117.96),
        ("llama-2-7b", "F16", 640, "Apple M1 Max", 23.03, 599.53),
        ("llama-2-7b", "Q8_0", 640, "Apple M2", 12.21, 181.4),
        ("llama-2-7b", "Q4_0", 640, "Apple M2 Ultra", 94.27, 1238.48),
        ("llama-2-7b", "F16", 640, "Apple M4 Pro", 17.18, 464.48),
        ("llama-2-7b", "Q4_0", 640, "RTX 3060", 75.57, 2137.5),
        ("llama-2-7b", "Q4_0", 640, "RTX 5090", 290.02, 14073.41),
        ("llama-2-7b", "Q4_0", 640, "NVIDIA A100 80GB", 190.88, 4849.53),
        ("llama-2-7b", "Q4_0", 640, "Radeon RX 9070 XT", 137.11, 5036.04),
        ("llama-2-7b", "Q4_0", 640, "Radeon RX 7900 XTX", 182.63, 3726.99),
        ("llama-2-7b", "Q4_0", 640, "Intel Arc A770", 52.56, 1073.85),
        ("llama-2-7b", "Q4_0", 640, "Intel Arc B580", 70.14, 620.94),
        ("llama-2-7b", "Q4_0", 640, "Ryzen AI Max+ 395", 52.73, 884.2),
        # discussion 15396, and benches/mac-m2-ultra.md: mixtures of experts
        ("gpt-oss-20b", "MXFP4_MOE", 2176, "RTX 4090", 225.22, 8022.33),
        ("gpt-oss-20b", "MXFP4_MOE", 2176, "Apple M3 Ultra", 115.52, 2816.47),
        ("qwen3-30b-a3b", "Q8_0", 2080, "Apple M2 Ultra", 78.97, 2453.11),
        # llmfit's collected runs of llama-bench on a processor
        ("llama-3.2-1b", "Q4_K_M", 640, "Laptop DDR5-5600", 68.24, 493.8),
        ("qwen3-4b", "Q4_K_M", 640, "Laptop DDR5-5600", 22.33, 148.95),
        ("gemma-3-1b", "Q2_K", 640, "Laptop DDR5-5600", 70.26, 481.9),
    ],
)  # fmt: skip
def test_published_speeds_lie_in_the_range(
    name: str, quantization: str, context: int, device: str, decode: float, prompt: float
) -> None:
    places = [Placement(find_device(device), 1.0)]
    rate = speed(model(name).quantized(quantization), places, context, "f16")
    assert rate.decode[0] <= decode <= rate.decode[1] <= 2.4 * rate.decode[0]
    assert rate.prefill[0] <= prompt <= rate.prefill[1] <= 4.3 * rate.prefill[0]


def test_few_tokens_for_each_expert_fill_a_kernel_badly() -> None:
    """Of 512 tokens 32 go to each of 128 experts, and a tile of 64 is half empty on average."""
    spec = model("qwen3-30b-a3b").quantized("Q8_0")
    exact, padded = (sum(operations_by_type(spec, prompt=True, tile=tile).values()) for tile in (0, 64))
    experts = sum(operations_by_type(spec, [n for n in spec.tensors if "_exps." in n], prompt=True).values())
    assert padded - exact == pytest.approx(experts)
    dense = model("qwen3-4b").quantized("Q8_0")
    assert operations_by_type(dense, prompt=True, tile=64) == operations_by_type(dense, prompt=True)


def test_a_geforce_trains_at_half_of_its_listed_rate() -> None:
    """NVIDIA's data sheets: 330 TFLOPS of an RTX 4090 with sums in FP16, 165 in FP32; an A100 has one rate for both."""
    geforce, server = find_device("RTX 4090"), find_device("NVIDIA A100 80GB")
    assert geforce.training == pytest.approx((0.2 * 165e12, 0.6 * 165e12))
    assert server.training == pytest.approx((0.2 * 312e12, 0.6 * 312e12))


def test_a_split_leaves_room_for_the_margin_and_for_a_copied_matrix() -> None:
    spec, gpu, host = model("llama-3.1-70b"), find_device("RTX 3060"), find_device("Desktop DDR5-5600")
    found = fit(spec, "Q4_K_M", gpu, Serving(4096), host)
    assert found.split
    sizes = found.spec.tensor_bytes()
    on_gpu = sum(sizes[name] for name in found.split.on_gpu) + found.memory.kv * found.split.cache
    assert on_gpu + found.memory.compute + sizes["output.weight"] + 2**30 <= gpu.usable_bytes
    layer = found.memory.kv / 80 + sum(size for name, size in sizes.items() if name.startswith("blk.79."))
    assert on_gpu + found.memory.compute + sizes["output.weight"] + 2**30 + 2 * layer > gpu.usable_bytes


def test_a_gpu_holds_the_logits_of_a_micro_batch_only_where_they_are_the_widest() -> None:
    spec = replace(model("qwen3-0.6b"), vocab=100)
    assert compute_bytes(spec, 4096, gpu=True) == compute_bytes(spec, 4096) - 4 * spec.vocab
