"""What keeping freed memory is worth: the same training steps in fresh processes, with and without it, in turn.

    python benchmarks/memory.py [--json FILE]

Prints seconds per step (median over the steps of all rounds) for a Llama of 4.9 million parameters and 4096 tokens per
step.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS, STEPS = 3, 6


def steps(keep: bool) -> list[float]:
    """Seconds of each training step in this process, without the first."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from potstill.core.memory import keep_freed_memory

    if keep:
        keep_freed_memory()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=640, num_hidden_layers=7, num_attention_heads=8,
        num_key_value_heads=2, head_dim=32, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    ids = torch.randint(0, 1024, (16, 256))
    taken = []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        model(ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad()
        taken.append(time.perf_counter() - begun)
    return taken[1:]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=["default", "kept"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(steps(args.one == "kept")))
        return
    taken: dict[str, list[float]] = {"default": [], "kept": []}
    for _ in range(ROUNDS):
        for variant in taken:
            command = [sys.executable, __file__, "--one", variant]
            taken[variant] += json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    rows = [
        {"case": "llama 4.9M, 4096 tokens", "variant": v, "seconds": statistics.median(t)} for v, t in taken.items()
    ]
    print(f"{platform.machine()}, {platform.system()}")
    for row in rows:
        print(f"{row['variant']:<8} {row['seconds']:.3f} s")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
