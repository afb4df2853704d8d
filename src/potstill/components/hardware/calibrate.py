"""`potstill calibrate-device`: fits this machine's rates to what llama.cpp reaches here, for later predictions.

The model: seconds per token = layers x a + vocabulary x c + routed experts x e + sum over tensor types of bytes x
b(type). A token of a prompt takes the sum over types of operations / r(type). With an overhead per layer, the choice
among the vocabulary's entries, and a rate per type, this holds both for machines that are bound by memory and for those
whose kernels are the limit.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from potstill.components.hardware.calibration import Calibration, Measured, machine_name
from potstill.components.hardware.speed import bytes_by_type, calibrated_seconds, operations_by_type, routed_experts
from potstill.components.models.configs import from_config
from potstill.components.models.gguf_header import from_gguf
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import MissingExtra, UsageError
from potstill.core.format import format_count

__all__ = ["Sample", "Served", "calibrate", "fit_prompt_rates", "fit_rates", "serve_once"]

Array = NDArray[np.float64]

_CONTEXT, _REPEATS = 512, 3
_PROMPT, _DECODE, _READ = 16, 48, 256
"""Tokens: of the prompt before decoding (few, so that attention costs little), decoded, and of a timed prompt."""
_TYPES = ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "Q5_0", "Q5_1", "F16")
_VOCAB = 8192
_LIMIT = 900.0
"""Seconds after which no further model is measured."""


@dataclass(frozen=True)
class Sample:
    """Measurements of one model.

    read         bytes that a decoded token reads, by type
    seconds      seconds per decoded token
    experts      experts that a token is routed to
    operations   operations per token of a prompt, by type
    prompt       seconds per token of a prompt
    """

    layers: int
    read: dict[str, float]
    seconds: float
    vocab: int = 0
    experts: int = 0
    operations: dict[str, float] = field(default_factory=dict)
    prompt: float = 0.0


@dataclass(frozen=True)
class Served:
    """Measurements of one process: peak memory (VmHWM), loading, and the medians of tokens per second."""

    peak_bytes: int
    load_seconds: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


def serve_once(
    path: Path,
    *,
    context: int,
    kv_type: str = "f16",
    parallel: int = 1,
    prompt: int = _PROMPT,
    decode: int = _DECODE,
    threads: int = 1,
    repeats: int = 1,
) -> Served:
    """Run a GGUF file in llama.cpp, in a process of its own.

    Raises:
        MissingExtra: xllamacpp is not installed.
        StepError: llama.cpp cannot run the file.
    """
    if find_spec("xllamacpp") is None:
        raise MissingExtra("xllamacpp is not installed, and calibration needs it: pip install 'potstill[run]'.")
    from potstill.components.runtimes.gguf import GGUFServer

    timings = []
    with GGUFServer(path, context=context * parallel, parallel=parallel, threads=threads, kv_type=kv_type) as server:
        for number in range(repeats):
            ids = [300 + (7 * i + number) % 1000 for i in range(prompt)]
            body = {"prompt": ids, "n_predict": decode, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
            timings.append(server.post("/completion", body)["timings"])
        peak = round(server.peak_rss_mb() * 1e6)
    return Served(
        peak_bytes=peak,
        load_seconds=server.load_seconds,
        prefill_tokens_per_s=statistics.median(timing["prompt_per_second"] for timing in timings),
        decode_tokens_per_s=statistics.median(timing["predicted_per_second"] for timing in timings),
    )


def _own_models() -> list[ModelSpec]:
    """Models to calibrate on: one per type, a deep narrow one for the overhead of layers, one with a large vocabulary,
    and one with many small experts."""
    sizes = {"architectures": ["LlamaForCausalLM"], "vocab_size": _VOCAB, "tie_word_embeddings": True}
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    wide = from_config(sizes | dict(zip(names, (2048, 7168, 2, 16, 4), strict=True)))
    deep = from_config(sizes | dict(zip(names, (256, 512, 32, 4, 2), strict=True)))
    out = []
    for kind in _TYPES:
        types = {name: kind if len(dims) > 1 else "F32" for name, dims in wide.tensors.items()}
        out.append(replace(wide, name=f"wide {kind}", types=types))
    words = from_config(sizes | dict(zip(names, (256, 512, 2, 4, 2), strict=True)) | {"vocab_size": 16 * _VOCAB})
    experts = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 384, "head_dim": 64}
    mixed = from_config(sizes | dict(zip(names, (512, 1024, 8, 8, 2), strict=True)) | experts | {
        "architectures": ["Qwen3MoeForCausalLM"]
    })  # fmt: skip
    kinds = {"deep": deep, "wordy": words, "experts": mixed}
    return out + [replace(model.quantized("Q8_0"), name=f"{name} Q8_0") for name, model in kinds.items()]


def fit_rates(samples: Sequence[Sample]) -> dict[str, float]:
    """Rates for `calibrated_seconds`, none negative, by least squares of the relative errors.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("no sample to fit")
    kinds = sorted({kind for sample in samples for kind in sample.read if kind != "F32"})
    rows = [[s.layers, s.vocab, s.experts, *(s.read.get(kind, 0.0) for kind in kinds)] for s in samples]
    times = np.array([sample.seconds for sample in samples])
    found = _nonnegative(np.array(rows) / times[:, None], np.ones(len(times)))
    # norms and biases are few and stored in 32 bits: assume that they cost what the fastest type does
    rates = dict(zip(["layer", "vocabulary", "expert", *kinds], map(float, found), strict=True))
    fastest = min((rates[kind] for kind in kinds if rates[kind] > 0), default=0.0)
    return rates | {"F32": fastest}


def fit_prompt_rates(samples: Sequence[Sample]) -> dict[str, float]:
    """Operations per second by type while a prompt is read, for the types that cost time, by least squares."""
    kinds = sorted({kind for sample in samples for kind in sample.operations if kind != "F32"})
    rows = [[sample.operations.get(kind, 0.0) for kind in kinds] for sample in samples]
    times = np.array([sample.prompt for sample in samples])
    found = _nonnegative(np.array(rows) / times[:, None], np.ones(len(times)))
    return {kind: 1 / float(seconds) for kind, seconds in zip(kinds, found, strict=True) if seconds > 0}


def _nonnegative(matrix: Array, wanted: Array) -> Array:
    """x >= 0 that minimises |matrix x - wanted|, coordinate by coordinate."""
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    unit = matrix / scale
    solution, left = np.zeros(matrix.shape[1]), wanted.copy()
    for _ in range(20_000):
        before = solution.copy()
        for column in range(len(solution)):
            new = max(0.0, solution[column] + float(unit[:, column] @ left))
            left -= (new - solution[column]) * unit[:, column]
            solution[column] = new
        if np.abs(solution - before).max() < 1e-12:
            break
    result: Array = solution / scale
    return result


def calibrate(files: Sequence[Path], threads: int, report: Callable[[str], None]) -> Calibration:
    """Measure this machine, and fit its rates.

    Args:
        files: GGUF files, in addition to temporary random ones of every common type.
        threads: llama.cpp's threads; predictions then hold for this number.
        report: is given a line about every measurement.

    Raises:
        UsageError: a file is not a GGUF model, or measuring takes longer than a quarter of an hour.
        StepError: llama.cpp cannot run one.
    """
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise UsageError(f"{missing[0]}: no such file. Give GGUF files, or none to calibrate on random ones only.")
    samples, names, begun = [], list[str](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="potstill-calibrate-") as folder:
        for spec, path in _runs(files, Path(folder)):
            if time.monotonic() - begun > _LIMIT:
                count = format_count(len(names), "model")
                raise UsageError(
                    f"Calibration stopped after {_LIMIT / 60:.0f} minutes, with {count} measured; the last one "
                    f"was {names[-1]}. Give smaller GGUF files or none, or try again when the machine is idle."
                )
            sample = _measure(spec, path, threads)
            samples.append(sample)
            names.append(spec.name)
            report(f"{spec.name}: {1 / sample.seconds:,.1f} tokens/s, prompt {1 / sample.prompt:,.0f} tokens/s")
            if path.parent == Path(folder):
                path.unlink()
    rates = fit_rates(samples)
    rows = []
    for name, sample in zip(names, samples, strict=True):
        seconds = calibrated_seconds(rates, sample.layers, sample.vocab, sample.read, sample.experts)
        rows.append(Measured(model=name, measured=1 / sample.seconds, fitted=1 / seconds))
    return Calibration(
        machine=machine_name(),
        rates=rates,
        prompt_rates=fit_prompt_rates(samples),
        threads=threads,
        samples=tuple(rows),
    )


def _measure(spec: ModelSpec, path: Path, threads: int) -> Sample:
    decoding = serve_once(path, context=_CONTEXT, threads=threads, repeats=_REPEATS)
    reading = serve_once(path, context=_CONTEXT, threads=threads, repeats=_REPEATS, prompt=_READ, decode=1)
    return Sample(
        spec.layers,
        bytes_by_type(spec),
        1 / decoding.decode_tokens_per_s,
        spec.vocab,
        routed_experts(spec),
        operations_by_type(spec, prompt=True),
        1 / reading.prefill_tokens_per_s,
    )


def _runs(files: Sequence[Path], folder: Path) -> Iterator[tuple[ModelSpec, Path]]:
    """The user's files, then random ones, each written when it is needed: one file would not determine the rates."""
    yield from [(from_gguf(path), path) for path in files]
    from potstill.components.hardware.random_gguf import write_random_gguf

    for spec in _own_models():
        path = folder / "model.gguf"
        write_random_gguf(spec, path)
        yield spec, path
