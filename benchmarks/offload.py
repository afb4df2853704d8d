"""What `teacher.offload: disk` costs and saves: passes of one model from memory and from disk.

    python benchmarks/offload.py [--json FILE]

A Llama of 214 million random weights in fp32 reads 512 tokens, in fresh processes in turn. Seconds per pass are medians
over all rounds, without the first pass of each. The resident set includes pages of files that the system can drop.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from status import status_mb

from potstill.components.runtimes.load import load_causal_lm

ROUNDS, PASSES, TOKENS, VOCAB = 3, 5, 512, 8000
VARIANTS: dict[str, Any] = {"in memory": None, "on disk": "disk"}


def save_model(folder: Path) -> None:
    """Save a model with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=1024, intermediate_size=2816, num_hidden_layers=16, num_attention_heads=16,
        max_position_embeddings=TOKENS, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


@torch.no_grad()
def passes(folder: Path, variant: str) -> dict[str, Any]:
    """Seconds of each pass in this process except the first, and the highest resident set."""
    model, ids = load_causal_lm(folder, offload=VARIANTS[variant]).eval(), torch.arange(TOKENS)[None]
    taken = []
    for _ in range(PASSES + 1):
        begun = time.perf_counter()
        model(ids, use_cache=False)
        taken.append(time.perf_counter() - begun)
    return {"seconds": taken[1:], "peak_mb": status_mb("VmHWM")}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(passes(Path(args.one[0]), args.one[1])))
        return
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        for _ in range(ROUNDS):
            for variant, rounds in found.items():
                command = [sys.executable, __file__, "--one", folder, variant]
                rounds.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    rows = [
        {
            "case": "llama 214M, 512 tokens", "variant": variant,
            "seconds": statistics.median(s for one in rounds for s in one["seconds"]),
            "peak_mb": round(max(one["peak_mb"] for one in rounds), 1),
        }
        for variant, rounds in found.items()
    ]  # fmt: skip
    print(f"{platform.machine()}, {platform.system()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for row in rows:
        print(f"{row['variant']:<10} {row['seconds']:.3f} s {row['peak_mb']:7.0f} MB")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
