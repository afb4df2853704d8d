"""Predicted against measured: file size and resident memory of many shapes in llama.cpp, with random weights.

    python benchmarks/plan.py memory [--only NAME ...] [--json FILE]
    python benchmarks/plan.py speed [--only NAME ...] [--json FILE]

`memory` writes each shape at reduced depth, serves it in a process of its own, reads a prompt of 600 tokens, and
compares VmHWM with the plan. `speed` compares decoding with a machine calibrated by `potstill calibrate-device`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.plan.configs import from_config
from potstill.plan.gguf_header import header_bytes

DENSE = {"max_position_embeddings": 32768}


def shape(
    kind: str, vocab: int, hidden: int, ffn: int, layers: int, heads: int, kv: int, **more: Any
) -> dict[str, Any]:
    """A config.json in short."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = dict(zip(names, (vocab, hidden, ffn, layers, heads), strict=True))
    return DENSE | sizes | {"architectures": [f"{kind}ForCausalLM"], "num_key_value_heads": kv} | more


# real widths, depth cut so that a file stays under about 600 MB; the quantization beside it
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
CONTEXTS, KV_TYPES = (512, 2048, 8192), ("f16", "q8_0")


def measure_memory(only: list[str]) -> list[dict[str, Any]]:
    """Rows of predicted and measured bytes."""
    from potstill.plan.calibrate import serve_once
    from potstill.plan.memory import memory
    from potstill.plan.random_gguf import random_metadata, write_random_gguf

    rows = []
    for name, (config, quantization) in SHAPES.items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            anatomy = from_config(config, name).quantized(quantization)
            metadata = random_metadata(anatomy)
            write_random_gguf(anatomy, path, metadata)
            header = header_bytes(metadata, dict(anatomy.tensors))
            file = {"predicted_file": header + anatomy.data_bytes, "file": path.stat().st_size}
            for context in CONTEXTS:
                for kv in KV_TYPES:
                    predicted = memory(replace(anatomy, header_bytes=header), context, kv_type=kv).total
                    tokens = min(600, context - 16)
                    measured = serve_once(path, context=context, kv_type=kv, prompt=tokens, decode=8, threads=1)
                    row = {"shape": name, "quantization": quantization, "context": context, "kv": kv, **file}
                    row |= {"predicted": predicted, "measured": measured["peak_bytes"]}
                    rows.append(row)
                    print(
                        f"{name:<30} {quantization:<7} {context:>5} {kv:<5} file {file['file']:>11,} "
                        f"{file['predicted_file'] - file['file']:+d}  resident {row['measured'] / 1e6:8.1f} MB "
                        f"{predicted / row['measured'] - 1:+.1%}",
                        flush=True,
                    )
    return rows


def measure_speed(only: list[str]) -> list[dict[str, Any]]:
    """Rows of predicted (by the calibration) and measured decode rates."""
    from potstill.plan.calibrate import serve_once
    from potstill.plan.devices import find_device
    from potstill.plan.fit import Wish, fit
    from potstill.plan.random_gguf import write_random_gguf

    device = find_device("this", quick=True)
    if not device.rates:
        sys.exit("No calibration: run potstill calibrate-device first.")
    rows = []
    for name, (config, quantization) in SHAPES.items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            anatomy = from_config(config, name).quantized(quantization)
            write_random_gguf(anatomy, path)
            found = fit(anatomy, quantization, device, Wish(512))
            assert found.speed
            predicted = statistics.mean(found.speed.decode)
            measured = serve_once(path, context=512, kv_type="f16", prompt=16, decode=64, threads=device.threads)
            rate = measured["decode_tokens_per_s"]
            rows.append({"shape": name, "quantization": quantization, "predicted": predicted, "measured": rate})
            print(f"{name:<30} {quantization:<7} {predicted:8.1f} {rate:8.1f} {predicted / rate - 1:+.1%}", flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["memory", "speed"])
    parser.add_argument("--only", nargs="*", default=[], choices=list(SHAPES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = measure_memory(args.only) if args.what == "memory" else measure_speed(args.only)
    errors = [abs(row["predicted"] / row["measured"] - 1) for row in rows]
    print(f"{len(rows)} rows, median error {statistics.median(errors):.1%}, largest {max(errors):.1%}")
    if args.json:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        args.json.write_text(json.dumps({"commit": commit, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
