"""Predicted against measured: resident memory and speed of many shapes in llama.cpp, with random weights.

    python benchmarks/plan.py memory [--only NAME ...] [--json FILE]
    python benchmarks/plan.py speed [--only NAME ...] [--threads N] [--json FILE]

`memory` writes each shape at reduced depth, serves it in a process of its own, reads a prompt of 600 tokens, and
compares VmHWM with the prediction. `speed` first calibrates this machine on small models of other shapes, as `potstill
calibrate` does, and then compares the medians; it needs an idle machine. Both print Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.components.hardware.calibrate import calibrate, serve_once
from potstill.components.hardware.devices import find_device
from potstill.components.hardware.memory import memory
from potstill.components.hardware.random_gguf import random_metadata, write_random_gguf
from potstill.components.hardware.speed import Placement, speed
from potstill.components.models.configs import from_config
from potstill.components.models.header_size import header_bytes
from potstill.components.models.spec import ModelSpec

DENSE = {"max_position_embeddings": 32768}


def shape(
    kind: str, vocab: int, hidden: int, ffn: int, layers: int, heads: int, kv: int, **more: Any
) -> dict[str, Any]:
    """Make a config.json from a short form."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = dict(zip(names, (vocab, hidden, ffn, layers, heads), strict=True))
    return DENSE | sizes | {"architectures": [f"{kind}ForCausalLM"], "num_key_value_heads": kv} | more


# real widths, with fewer layers where a file would be much larger than 600 MB; and the quantization
SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "Qwen2.5-0.5B": (shape("Qwen2", 151936, 896, 4864, 24, 14, 2, tie_word_embeddings=True), "Q4_K_M"),
    "Qwen2.5-0.5B untied": (shape("Qwen2", 151936, 896, 4864, 8, 14, 2), "Q8_0"),
    "Qwen3-0.6B": (shape("Qwen3", 151936, 1024, 3072, 28, 16, 8, head_dim=128, tie_word_embeddings=True), "Q8_0"),
    "Llama-2-7B, 2 layers": (shape("Llama", 32000, 4096, 11008, 2, 32, 32), "Q4_K_M"),
    "Llama-3.1-8B, 2 layers": (shape("Llama", 128256, 4096, 14336, 2, 32, 8), "Q4_0"),
    "Llama-3.2-1B, 8 layers": (
        shape("Llama", 128256, 2048, 8192, 8, 32, 8, head_dim=64, tie_word_embeddings=True), "Q6_K"
    ),
    "Qwen2.5-1.5B, 10 layers": (shape("Qwen2", 151936, 1536, 8960, 10, 12, 2, tie_word_embeddings=True), "Q5_K_M"),
    "Qwen2.5-7B, 1 layer": (shape("Qwen2", 152064, 3584, 18944, 1, 28, 4), "Q4_K_M"),
    "Qwen3-4B, 4 layers": (
        shape("Qwen3", 151936, 2560, 9728, 4, 32, 8, head_dim=128, tie_word_embeddings=True), "Q4_K_M"
    ),
    "Mistral-7B, 2 layers": (shape("Mistral", 32768, 4096, 14336, 2, 32, 8), "Q8_0"),
    "SmolLM2-135M": (shape("Llama", 49152, 576, 1536, 30, 9, 3, tie_word_embeddings=True), "Q8_0"),
    "Gemma-3-270M": (
        shape("Gemma3", 262144, 640, 2048, 18, 4, 1, head_dim=256, sliding_window=512), "Q8_0"
    ),
    "Gemma-3-1B": (
        shape("Gemma3", 262144, 1152, 6912, 26, 4, 1, head_dim=256, sliding_window=512), "Q4_K_M"
    ),
    "Gemma-2-2B, 6 layers": (shape("Gemma2", 256000, 2304, 9216, 6, 8, 4, head_dim=256, sliding_window=4096), "Q4_0"),
    "Phi-3-mini, 4 layers": (shape("Phi3", 32064, 3072, 8192, 4, 32, 32), "Q4_K_M"),
    "Mixtral-like, 2 layers": (
        shape("Mixtral", 32000, 1024, 3584, 2, 16, 4, num_local_experts=8, num_experts_per_tok=2), "Q4_K_M"
    ),
    "Qwen3-30B-A3B-like, 2 layers": (
        shape(
            "Qwen3Moe", 151936, 2048, 6144, 2, 32, 4, head_dim=128, num_experts=32, num_experts_per_tok=8,
            moe_intermediate_size=768,
        ),
        "Q4_K_M",
    ),
    "DeepSeek-V3-like, 3 layers": (
        shape(
            "DeepseekV3", 32000, 2048, 5632, 3, 16, 16, kv_lora_rank=512, q_lora_rank=768, qk_rope_head_dim=64,
            qk_nope_head_dim=128, v_head_dim=128, n_routed_experts=16, num_experts_per_tok=4, n_shared_experts=1,
            moe_intermediate_size=1024, first_k_dense_replace=1, topk_method="noaux_tc",
        ),
        "Q4_K_M",
    ),
}  # fmt: skip
PROMPT = 256  # tokens, of `speed`
CONTEXTS, KV_TYPES = (512, 2048, 8192), ("f16", "q8_0")


# not part of `speed`: a single block, and the files that take longest to write
SLOW = ("Llama-3.1-8B, 2 layers", "Qwen2.5-7B, 1 layer")

Rows = list[dict[str, Any]]


@contextmanager
def written(name: str) -> Iterator[tuple[ModelSpec, Path]]:
    """A shape's file, as long as it is needed, and its spec with the size of the header."""
    config, quantization = SHAPES[name]
    spec = from_config(config, name).quantized(quantization)
    metadata = random_metadata(spec)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_random_gguf(spec, path, metadata)
        yield replace(spec, header_bytes=header_bytes(metadata, dict(spec.tensors))), path


def measure_memory(names: list[str], threads: int) -> Rows:
    """Predict and measure the bytes of each shape, context and KV type."""
    rows: Rows = []
    for name in names:
        with written(name) as (spec, path):
            for context, kv in itertools.product(CONTEXTS, KV_TYPES):
                predicted = memory(spec, context, kv_type=kv)
                tokens = min(600, context - 16)
                measured = serve_once(path, context=context, kv_type=kv, prompt=tokens, decode=8, threads=threads)
                row = {"shape": name, "quantization": spec.quantization, "context": context, "kv": kv}
                rows.append(row | {"predicted": predicted.total, "measured": measured.peak_bytes})
                say(rows[-1])
    return rows


def measure_speed(names: list[str], threads: int) -> Rows:
    """Predict and measure tokens per second of each shape; none of them is part of the calibration."""
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CONFIG_HOME"] = folder  # the user's own calibration is not changed
        calibrate([], threads, lambda text: print(text, file=sys.stderr, flush=True)).store()
        device = find_device("this", quick=True)
    for name in names:
        with written(name) as (spec, path):
            decoding, reading = (speed(spec, [Placement(device, 1.0)], tokens, "f16") for tokens in (64, PROMPT))
            measured = serve_once(path, context=512, prompt=16, decode=48, threads=threads, repeats=5)
            read = serve_once(path, context=512, prompt=PROMPT, decode=1, threads=threads, repeats=3)
            middle = statistics.harmonic_mean
            row = {"shape": name, "quantization": spec.quantization, "predicted": middle(decoding.decode)}
            row |= {"measured": measured.decode_tokens_per_s, "prompt_predicted": middle(reading.prefill)}
            rows.append(row | {"prompt_measured": read.prefill_tokens_per_s})
            say(rows[-1])
    return rows


def error(row: dict[str, Any], of: str = "") -> float:
    """Relative error of a prediction; `of` is `prompt_` for the prediction of prompts."""
    return float(row[f"{of}predicted"] / row[f"{of}measured"] - 1)


def say(row: dict[str, Any]) -> None:
    """Print a row on stderr as soon as it is measured."""
    cells = [f"{value:,.1f}" if isinstance(value, float) else str(value) for value in row.values()]
    print(*cells, f"{error(row):+.1%}", file=sys.stderr, flush=True)


def memory_table(rows: Rows) -> list[str]:
    """A line per shape: the lowest and highest measurement, and the largest error."""
    lines = ["| Shape | Type | Resident, MB | Largest error |", "|---|---|---|---|"]
    for name, group in itertools.groupby(rows, key=lambda row: row["shape"]):
        own = list(group)
        measured, worst = [row["measured"] / 1e6 for row in own], max(map(error, own), key=abs)
        span = f"{min(measured):,.0f} to {max(measured):,.0f}"
        lines.append(f"| {name} | {own[0]['quantization']} | {span} | {worst:+.1%} |")
    return lines


def speed_table(rows: Rows) -> list[str]:
    """A line per shape."""
    lines = [
        "| Shape | Type | Decoding, predicted | Measured | Error | Prompt, predicted | Measured | Error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["shape"], row["quantization"]]
        for of in ("", "prompt_"):
            cells += [f"{row[f'{of}predicted']:,.1f}", f"{row[f'{of}measured']:,.1f}", f"{error(row, of):+.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["memory", "speed"])
    parser.add_argument("--only", nargs="*", choices=list(SHAPES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.what == "memory":
        rows = measure_memory(args.only or list(SHAPES), args.threads)
        table = memory_table(rows)
    else:
        rows = measure_speed(args.only or [name for name in SHAPES if name not in SLOW], args.threads)
        table = speed_table(rows)
    errors = [abs(error(row)) for row in rows]
    print(*table, "", sep="\n")
    print(f"{len(rows)} measurements, median error {statistics.median(errors):.1%}, largest {max(errors):.1%}.")
    if args.what == "speed":
        prompts = [abs(error(row, "prompt_")) for row in rows]
        print(f"Prompts: median error {statistics.median(prompts):.1%}, largest {max(prompts):.1%}.")
    if args.json:
        command = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        args.json.write_text(json.dumps({"commit": commit, "threads": args.threads, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
