"""Types by llama.cpp's rules, bytes as gguf-py's, and refusal where neither can be had."""

from __future__ import annotations

import ctypes
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as T
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.components.conversion import quantize as module
from potstill.components.conversion.quantize import QUANTIZATIONS, file_type, quantize, quantized_nbytes, tensor_type
from potstill.core.errors import StepError

HAS_C = module._native() is not None
needs_c = pytest.mark.skipif(not HAS_C, reason="this xllamacpp exports no ggml_quantize_chunk")


def types_of_layers(kind: str, n_layers: int, quantization: str, row: int = 1024, **options: Any) -> str:
    """Type of one matrix in each layer, as text: '6' for Q6_K, '4' for Q4_K, '5' for Q5_K."""
    names = [f"blk.{i}.{kind}.weight" for i in range(n_layers)]
    found = [tensor_type(name, (1024, row), n_layers, quantization, tied=False, **options) for name in names]
    return "".join(qtype.name[1] for qtype in found)


def test_mixtures_keep_some_layers_at_six_bits() -> None:
    # 32 layers: the first and last four, and every third between
    expected = "6666" + "446" * 8 + "6666"
    assert types_of_layers("ffn_down", 32, "Q4_K_M") == expected
    assert types_of_layers("attn_v", 32, "Q4_K_M") == expected
    assert types_of_layers("ffn_down", 32, "Q5_K_M") == expected.replace("4", "5")
    # 24 layers (Qwen2.5-0.5B): 3 at each end
    assert types_of_layers("ffn_down", 24, "Q4_K_M") == "666" + "446" * 6 + "666"
    # fewer than 8 layers: no first eighth, and the last one is a whole layer from 7n/8 rounded down
    assert types_of_layers("attn_v", 5, "Q4_K_M") == "44646"
    assert types_of_layers("attn_q", 32, "Q4_K_M") == "4" * 32
    assert types_of_layers("ffn_down", 32, "Q6_K") == "6" * 32


def test_output_and_embedding() -> None:
    def pair(quantization: str, tied: bool, row: int = 1024) -> list[T]:
        names = ["token_embd.weight"] if tied else ["token_embd.weight", "output.weight"]
        return [tensor_type(name, (999, row), 8, quantization, tied=tied) for name in names]

    assert pair("Q4_K_M", tied=False) == [T.Q4_K, T.Q6_K]
    assert pair("Q4_K_M", tied=True) == [T.Q6_K]
    assert pair("Q4_0", tied=False) == [T.Q4_0, T.Q6_K]
    assert pair("Q8_0", tied=False) == [T.Q8_0, T.Q8_0]
    assert pair("Q8_0", tied=True) == [T.Q8_0]
    assert pair("F16", tied=True) == [T.F16]
    assert pair("Q4_K_M", tied=True, row=896) == [T.Q8_0]
    assert pair("Q4_0", tied=True, row=896) == [T.Q8_0]


@pytest.mark.parametrize(
    ("quantization", "name", "row", "expected"),
    [
        ("Q4_K_M", "blk.0.attn_q.weight", 896, T.Q5_0),
        ("Q4_K_M", "blk.4.ffn_down.weight", 4864, T.Q4_K),
        ("Q4_K_M", "blk.0.attn_v.weight", 896, T.Q8_0),
        ("Q5_K_M", "blk.4.attn_q.weight", 896, T.Q5_1),
        ("Q6_K", "blk.4.attn_q.weight", 896, T.Q8_0),
        ("Q4_0", "blk.4.attn_q.weight", 896, T.Q4_0),
        ("Q4_K_M", "blk.4.ffn_down.weight", 172, T.F16),
        ("Q8_0", "blk.4.ffn_down.weight", 172, T.F16),
        ("Q4_0", "blk.4.ffn_down.weight", 172, T.F16),
    ],
)
def test_rows_that_do_not_divide_fall_back(quantization: str, name: str, row: int, expected: T) -> None:
    assert tensor_type(name, (896, row), 24, quantization, tied=True) is expected


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_vectors_and_norms_stay_f32(quantization: str) -> None:
    for name, shape in (
        ("blk.0.attn_q_norm.weight", (128,)),
        ("output_norm.weight", (896,)),
        ("blk.0.attn_q.bias", (896,)),
        ("rope_freqs.weight", (64,)),
    ):
        assert tensor_type(name, shape, 24, quantization, tied=False) is T.F32


def test_importance_gives_the_first_ffn_down_of_q4_0_another_type() -> None:
    def of(layer: int, importance: bool) -> T:
        name = f"blk.{layer}.ffn_down.weight"
        return tensor_type(name, (64, 256), 16, "Q4_0", tied=False, importance=importance)

    assert [of(i, True) for i in range(4)] == [T.Q4_1, T.Q4_1, T.Q4_0, T.Q4_0]
    assert {of(i, False) for i in range(16)} == {T.Q4_0}


def qwen_bits_per_weight(hidden: int, ffn: int, layers: int, vocab: int, heads: int, kv_heads: int, head: int) -> float:
    """Bits per weight of a tied Qwen in Q4_K_M, from shapes alone."""
    queries, keys = heads * head, kv_heads * head
    matrices = {"token_embd": (vocab, hidden)}
    for i in range(layers):
        for name, shape in {
            "attn_q": (queries, hidden),
            "attn_k": (keys, hidden),
            "attn_v": (keys, hidden),
            "attn_output": (hidden, queries),
            "ffn_gate": (ffn, hidden),
            "ffn_up": (ffn, hidden),
            "ffn_down": (hidden, ffn),
        }.items():
            matrices[f"blk.{i}.{name}"] = shape
    bits = weights = 0
    for name, shape in matrices.items():
        qtype = tensor_type(f"{name}.weight", shape, layers, "Q4_K_M", tied=True)
        bits, weights = bits + 8 * quantized_nbytes(shape, qtype), weights + shape[0] * shape[1]
    return bits / weights


def test_bits_per_weight_of_published_models() -> None:
    """Against the sizes of published Q4_K_M files, which no constant of the type gives."""
    assert qwen_bits_per_weight(896, 4864, 24, 151936, 14, 2, 64) == pytest.approx(6.35, abs=0.06)
    assert qwen_bits_per_weight(1536, 8960, 28, 151936, 12, 2, 128) == pytest.approx(5.08, abs=0.06)
    assert qwen_bits_per_weight(1024, 3072, 28, 151936, 16, 8, 128) == pytest.approx(5.24, abs=0.06)


def test_sizes() -> None:
    assert quantized_nbytes((3, 256), T.Q4_K) == 3 * 144
    assert quantized_nbytes((2, 5, 64), T.Q8_0) == 10 * 2 * 34
    assert quantized_nbytes((7,), T.F32) == 28
    with pytest.raises(ValueError, match="not a multiple"):
        quantized_nbytes((3, 200), T.Q4_K)


def test_unknown_quantization_is_refused_by_name() -> None:
    with pytest.raises(StepError, match=r"'Q3_K_XL' is not known\. Use one of F32"):
        tensor_type("output.weight", (8, 256), 1, "Q3_K_XL", tied=False)
    with pytest.raises(StepError, match="llama-quantize"):
        file_type("nope")


@needs_c
@settings(max_examples=25, deadline=None)
@given(
    qtype=st.sampled_from([T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]),
    rows=st.integers(1, 9),
    blocks=st.integers(1, 8),
    scale=st.sampled_from([1e-6, 0.02, 1.0, 300.0]),
    seed=st.integers(0, 9),
)
def test_bytes_equal_gguf_pys(qtype: T, rows: int, blocks: int, scale: float, seed: int) -> None:
    array = (np.random.default_rng(seed).standard_normal((rows, 32 * blocks)) * scale).astype(np.float32)
    got = quantize(array, qtype)
    assert got.dtype == np.uint8
    assert got.nbytes == quantized_nbytes(array.shape, qtype)
    np.testing.assert_array_equal(got, gguf.quantize(array, qtype))


@needs_c
@pytest.mark.parametrize(("qtype", "error"), [(T.Q4_K, 0.08), (T.Q5_K, 0.04), (T.Q6_K, 0.02)])
def test_k_types_come_back_close(qtype: T, error: float) -> None:
    array = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    back = gguf.dequantize(quantize(array, qtype), qtype)
    assert np.sqrt(np.mean((back - array) ** 2)) < error
    assert (
        np.sqrt(np.mean((back - array) ** 2)) > error / 3
    )  # a type with more bits than it claims would pass the first


@needs_c
def test_threads_do_not_change_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).standard_normal((257, 256)).astype(np.float32)
    monkeypatch.setattr(module, "_CHUNK_WEIGHTS", 256 * 7)
    assert np.array_equal(quantize(array, T.Q4_K, threads=1), quantize(array, T.Q4_K, threads=3))


@needs_c
@pytest.mark.parametrize("qtype", [T.Q4_K, T.Q4_0, T.Q6_K])
def test_importance_lowers_the_error_of_what_matters(qtype: T) -> None:
    generator = np.random.default_rng(0)
    array = generator.standard_normal((64, 512)).astype(np.float32)
    weight = np.where(generator.random(512) < 0.1, 100.0, 0.1).astype(np.float32)

    def loss(importance: np.ndarray[Any, Any] | None) -> float:
        back = gguf.dequantize(quantize(array, qtype, importance), qtype)
        return float(((back - array) ** 2 * weight).mean())

    assert loss(weight) < 0.9 * loss(None)


def test_floats() -> None:
    array = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    np.testing.assert_array_equal(quantize(array, T.F32), array)
    np.testing.assert_array_equal(quantize(array, T.F16), array.astype(np.float16))
    back = gguf.dequantize(quantize(array, T.BF16), T.BF16)
    assert np.abs(back - array).max() <= np.abs(array).max() * 2**-8
    exact = (array.view(np.uint32) & 0xFFFF0000).view(np.float32)
    np.testing.assert_array_equal(gguf.dequantize(quantize(exact, T.BF16), T.BF16), exact)


def test_broken_weights_are_refused() -> None:
    array = np.ones((2, 64), dtype=np.float32)
    array[1, 3] = np.nan
    with pytest.raises(StepError, match="NaN or an infinity"):
        quantize(array, T.Q8_0)
    array[1, 3] = 70000.0
    with pytest.raises(StepError, match=r"7e\+04, does not fit F16 .* Export BF16 or F32"):
        quantize(array, T.F16)
    assert quantize(array, T.BF16).nbytes == 256


def test_importance_of_another_shape_is_refused() -> None:
    array = np.ones((2, 256), dtype=np.float32)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        quantize(array, T.Q4_K, np.ones(2, dtype=np.float32))
    with pytest.raises(ValueError, match="not negative"):
        quantize(array, T.Q4_K, np.full(256, -1.0, dtype=np.float32))


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: no C symbol."""
    monkeypatch.setattr(module, "_native", lambda: None)
    monkeypatch.setattr(module, "_is_trusted", module._is_trusted.__wrapped__)


@pytest.mark.usefixtures("no_library")
def test_without_the_library_numpy_does_what_it_knows() -> None:
    array = np.random.default_rng(0).standard_normal((4, 256)).astype(np.float32)
    np.testing.assert_array_equal(quantize(array, T.Q8_0), gguf.quantize(array, T.Q8_0))
    ones = np.ones(256, dtype=np.float32)
    np.testing.assert_array_equal(quantize(array, T.Q8_0, ones), gguf.quantize(array, T.Q8_0))
    with pytest.raises(StepError, match=r"Q4_K cannot be written here.*Use Q8_0 or Q4_0"):
        quantize(array, T.Q4_K)
    with pytest.raises(StepError, match="importance matrix"):
        quantize(array, T.Q4_0, ones)


@needs_c
@pytest.mark.parametrize("qtype", [T.Q8_0, T.Q4_K])
def test_a_library_whose_type_numbers_moved_is_not_trusted(monkeypatch: pytest.MonkeyPatch, qtype: T) -> None:
    """Planted fault: as many bytes as expected, but not this type's, as a library with other numbers would write."""
    real = module._native()
    assert real is not None

    def moved(kind: int, source: int, out: int, start: int, rows: int, columns: int, importance: int | None) -> int:
        nbytes = real(kind, source, out, start, rows, columns, importance)
        ctypes.memset(out, 0x11, nbytes)
        return nbytes

    assert module._is_trusted.__wrapped__(qtype)
    monkeypatch.setattr(module, "_native", lambda: moved)
    assert not module._is_trusted.__wrapped__(qtype)
