"""`potstill calibrate-device`: real decoding in llama.cpp fits this machine's own rates, for later plans.

The model: seconds of a token = layers x a + vocabulary x c + chosen experts x e + sum over tensor types of bytes x
b(type). With overheads, the choice among a vocabulary's entries and a rate for each type it holds for machines that are
bound by memory and for those whose kernels are the limit. A prompt's token: sum over types of operations / r(type).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.components.hardware import llama_once
from potstill.components.hardware.devices import calibration_file, machine_name
from potstill.components.hardware.speed import bytes_by_type, calibrated_seconds, chosen_experts, operations_by_type
from potstill.components.models.configs import from_config
from potstill.components.models.gguf_header import from_gguf
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import MissingExtra, StepError, UsageError
from potstill.core.files import write_json

__all__ = ["Sample", "calibrate", "fit_prompt_rates", "fit_rates", "serve_once"]

Array = NDArray[np.float64]

_CONTEXT, _REPEATS = 512, 3
_PROMPT, _DECODE, _READ = 16, 48, 256
"""Tokens of a prompt before decoding, few, so that attention costs little; decoded ones; of a prompt that is timed."""
_TYPES = ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "Q5_0", "Q5_1", "F16")
_VOCAB = 8192


@dataclass(frozen=True)
class Sample:
    """One model as it was measured.

    read        bytes that a decoded token reads, by type
    seconds     of a decoded token
    experts     that one goes through
    operations  of a prompt's token, by type
    prompt      seconds of one
    """

    layers: int
    read: dict[str, float]
    seconds: float
    vocab: int = 0
    experts: int = 0
    operations: dict[str, float] = field(default_factory=dict)
    prompt: float = 0.0


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
) -> dict[str, Any]:
    """Run a GGUF in a process of its own.

    Returns:
        peak_bytes (VmHWM), load_seconds, and the medians prefill_tokens_per_s and decode_tokens_per_s.

    Raises:
        MissingExtra: xllamacpp is not installed.
        StepError: llama.cpp cannot run the file.
    """
    asked = {"context": context, "parallel": parallel, "prompt": prompt, "decode": decode}
    asked |= {"repeats": repeats, "threads": threads}
    command = [sys.executable, "-P", llama_once.__file__, str(path), f"--kv-type={kv_type}"]
    command += [f"--{name}={value}" for name, value in asked.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named 'xllamacpp'" in done.stderr:
        raise MissingExtra("xllamacpp is not installed, and calibration needs it: pip install 'potstill[run]'.")
    if done.returncode:
        said = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise StepError(
            f"{path}: llama.cpp cannot run it (code {done.returncode}). Try the file in llama.cpp itself, or leave it "
            f"out. Its last words: {said}"
        )
    found = json.loads(done.stdout)
    return {
        "peak_bytes": found["peak_bytes"],
        "load_seconds": found["load_seconds"],
        "prefill_tokens_per_s": statistics.median(found["prefill"]),
        "decode_tokens_per_s": statistics.median(found["decode"]),
    }


def _own_models() -> list[ModelSpec]:
    """Files to calibrate on where the user gives none: one for each type, a deep narrow one for the overhead of layers,
    one with a large vocabulary, and one of many small experts."""
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
    """The rates of `calibrated_seconds`, none negative, by least squares of relative errors.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("no sample to fit")
    kinds = sorted({kind for sample in samples for kind in sample.read if kind != "F32"})
    rows = [[s.layers, s.vocab, s.experts, *(s.read.get(kind, 0.0) for kind in kinds)] for s in samples]
    times = np.array([sample.seconds for sample in samples])
    found = _nonnegative(np.array(rows) / times[:, None], np.ones(len(times)))
    # norms and biases are few, and stored in 32 bits: they cost what the fastest type does
    rates = dict(zip(["layer", "vocabulary", "expert", *kinds], map(float, found), strict=True))
    fastest = min((rates[kind] for kind in kinds if rates[kind] > 0), default=0.0)
    return rates | {"F32": fastest}


def fit_prompt_rates(samples: Sequence[Sample]) -> dict[str, float]:
    """Operations/s by type while a prompt is read, by least squares of relative errors; of the types that cost time."""
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


def calibrate(files: Sequence[Path], threads: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure, fit, and store this machine's rates.

    Args:
        files: GGUF files beside the random ones of every common type, which are made, and deleted again.
        threads: llama.cpp's; later plans hold for this number.
        say: told of every measurement.

    Returns:
        What was stored: rates, threads, samples with the fit's error, and where.

    Raises:
        UsageError: a file is no GGUF model.
        StepError: llama.cpp cannot run one.
    """
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise UsageError(f"{missing[0]}: no such file. Give GGUF files, or none to calibrate on random ones alone.")
    samples, names = [], []
    with tempfile.TemporaryDirectory(prefix="potstill-calibrate-") as folder:
        for spec, path in _runs(files, Path(folder)):
            samples.append(_measure(spec, path, threads))
            names.append(spec.name)
            say(f"{spec.name}: {1 / samples[-1].seconds:,.1f} tokens/s, prompt {1 / samples[-1].prompt:,.0f}")
            if path.parent == Path(folder):
                path.unlink()
    rates = fit_rates(samples)
    rows = []
    for name, sample in zip(names, samples, strict=True):
        seconds = calibrated_seconds(rates, sample.layers, sample.vocab, sample.read, sample.experts)
        rows.append({"model": name, "measured": 1 / sample.seconds, "fitted": 1 / seconds})
    stored: dict[str, Any] = {"machine": machine_name(), "rates": rates, "prompt_rates": fit_prompt_rates(samples)}
    stored |= {"threads": threads, "samples": rows}
    path = calibration_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, stored)
    return {**stored, "file": str(path)}


def _measure(spec: ModelSpec, path: Path, threads: int) -> Sample:
    decoding = serve_once(path, context=_CONTEXT, threads=threads, repeats=_REPEATS)
    reading = serve_once(path, context=_CONTEXT, threads=threads, repeats=_REPEATS, prompt=_READ, decode=1)
    return Sample(
        spec.layers,
        bytes_by_type(spec),
        1 / decoding["decode_tokens_per_s"],
        spec.vocab,
        chosen_experts(spec),
        operations_by_type(spec, prompt=True),
        1 / reading["prefill_tokens_per_s"],
    )


def _runs(files: Sequence[Path], folder: Path) -> Iterator[tuple[ModelSpec, Path]]:
    """The user's files, then random ones, each written when its turn comes: one file alone says nothing of rates."""
    yield from [(from_gguf(path), path) for path in files]
    from potstill.components.hardware.random_gguf import write_random_gguf

    for spec in _own_models():
        path = folder / "model.gguf"
        write_random_gguf(spec, path)
        yield spec, path
