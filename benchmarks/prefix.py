"""What computing a common prefix once is worth: training steps on rows with a system message, with and without it.

    python benchmarks/prefix.py [--json FILE]

For each length of prefix (tokens with which all rows of a batch begin), it prints the median seconds of a step, forward
and backward in bf16, and the difference between the losses of both variants.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from pathlib import Path

PREFIXES, OWN, ROWS, ROUNDS = (36, 300), 65, 30, 8


def main() -> None:
    """Command line."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from potstill.components.chat.format import Example
    from potstill.components.training.attention import grouped_attention
    from potstill.components.training.batches import Batch, pack
    from potstill.components.training.learner import LanguageTask, Learner
    from potstill.core.memory import keep_freed_memory

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=640, hidden_size=256, intermediate_size=320, num_hidden_layers=13, num_attention_heads=8,
        num_key_value_heads=2, head_dim=32, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).train()
    learner = Learner(model, LanguageTask(), 640, autocast=True)
    rng = random.Random(0)

    def rows(prefix: int) -> list[Example]:
        common = tuple(rng.randrange(640) for _ in range(prefix))
        lengths = [max(30, round(rng.gauss(OWN, 15))) for _ in range(ROWS)]
        own = (tuple(rng.randrange(640) for _ in range(length)) for length in lengths)
        return [Example(common + ids, prefix + len(ids) - 20, True) for ids in own]

    def step(batch: Batch) -> tuple[float, float]:
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            sums = learner(batch)
        (sums.loss / len(batch.labels)).backward()
        model.zero_grad()
        return time.perf_counter() - begun, float(sums.loss) / len(batch.labels)

    results = []
    with grouped_attention(model):
        for prefix in PREFIXES:
            examples = rows(prefix)
            variants = {share: pack(examples, 0, share_prefix=share) for share in (True, False)}
            taken: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
            for _ in range(ROUNDS + 1):
                for share, batch in variants.items():
                    taken[share].append(step(batch))
            apart = abs(taken[True][0][1] - taken[False][0][1])
            for share, batch in variants.items():
                seconds = statistics.median(took for took, _ in taken[share][1:])
                name = "once" if share else "in each row"
                case = {"case": f"prefix {prefix}, {ROWS} rows", "variant": name, "seconds": seconds}
                results.append(case | {"places": batch.input_ids.shape[1], "losses_apart": apart})
    print(f"{platform.machine()}, {torch.get_num_threads()} threads")
    for row in results:
        print(f"{row['case']:<22} {row['variant']:<12} {row['places']:>6} places {row['seconds']:.3f} s")
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
