"""The targets store: bytes per token, and speed of writing and reading, for 50 and 16 draws and top 32 and 8.

    python benchmarks/targets.py [--json FILE] [--tokens N] [--vocab V] [--model FOLDER --texts FILE] [--tiny]

Without a model, the teacher is synthetic: a Zipf prior times a random 64-dimensional head. Its scale is chosen so that
it is about as certain as a language model (2.0 nats, 12 distinct ids in 50 draws) and its ids are on average as
frequent as those of English text (9.7 bits per id); these two decide the number of bytes. No two of its contexts are
alike, so nothing repeats that would repeat in a real text. With a model, `--texts` is a JSON list of strings or a text
file, and the distributions are those of the model. Times are CPU seconds of this process with one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.components.targets import (
    SequenceKey,
    TargetsMeta,
    TargetsReader,
    TargetsWriter,
    sequence_key,
    store_stats,
)

CASES: tuple[dict[str, Any], ...] = (
    {"kind": "counts", "draws": 50, "seed": 0},
    {"kind": "counts", "draws": 16, "seed": 0},
    {"kind": "top_k", "k": 32},
    {"kind": "top_k", "k": 8},
)
ROW, BATCH_ROWS, ROUNDS = 256, 16, 5


def synthetic(tokens: int, vocab: int) -> Iterator[tuple[SequenceKey, Tensor]]:
    """Sequences of `ROW` tokens with their logits (ROW, V), the same in each call."""
    generator = torch.Generator().manual_seed(0)
    head_HV = torch.randn(64, vocab, generator=generator)
    prior_V = 1.5 * torch.log(torch.arange(vocab) + 2.7)
    for row in range(max(1, tokens // ROW)):
        hidden_NH = torch.randn(ROW, 64, generator=generator)
        sureness_N1 = 5 / 8 * torch.exp(0.6 * torch.randn(ROW, 1, generator=generator))
        yield sequence_key([row] * (ROW + 1), 1), hidden_NH * sureness_N1 @ head_HV - prior_V


@torch.inference_mode()
def real(folder: Path, texts: Path, tokens: int) -> Iterator[tuple[SequenceKey, Tensor]]:
    """Texts, cut at `ROW` tokens, with the model's logits."""
    from tokenizers import Tokenizer

    from potstill.components.runtimes.load import load_causal_lm

    tokenizer, model = Tokenizer.from_file(str(folder / "tokenizer.json")), load_causal_lm(folder).eval()
    content = texts.read_text(encoding="utf-8")
    for text in json.loads(content) if texts.suffix == ".json" else content.split("\n\n"):
        ids = tokenizer.encode(text).ids[: ROW + 1]
        if len(ids) < 2:
            continue
        if tokens <= 0:
            return
        tokens -= len(ids) - 1
        yield sequence_key(ids, 1), model(input_ids=torch.tensor([ids])).logits[0, :-1].float()


def measure(case: dict[str, Any], rows: Iterator[tuple[SequenceKey, Tensor]], folder: Path) -> dict[str, Any]:
    """Measure one kind of target: written once, read in shuffled order, without the time of the teacher."""
    writer: TargetsWriter | None = None
    keys, writing = [], 0.0
    for key, logits_NV in rows:
        begun = time.process_time()
        if writer is None:
            meta = TargetsMeta(
                **case, vocab_size=logits_NV.shape[1], teacher_hash="benchmark", tokenizer_hash="benchmark",
                template_hash="benchmark", dtype="float32",
            )  # fmt: skip
            writer = TargetsWriter(folder, meta)
        writer.add(key, logits_NV)
        keys.append(key)
        writing += time.process_time() - begun
    assert writer is not None, "no text, no targets"
    begun = time.process_time()
    writer.close()
    writing += time.process_time() - begun
    order = [keys[i] for i in np.random.default_rng(0).permutation(len(keys))]
    cold, warm = [], []
    for _ in range(ROUNDS):
        begun = time.process_time()
        reader = TargetsReader(folder)
        _epoch(reader, order)
        cold.append(time.process_time() - begun)
        begun = time.process_time()
        _epoch(reader, order)
        warm.append(time.process_time() - begun)
    found = store_stats(folder)
    tokens = found.tokens
    shown = ("bytes_per_token", "ids_per_token", "entropy", "tail_mass", "kl_stored_teacher", "kl_buckets", "bias")
    return {
        "case": f"V={found.vocab_size}, {tokens} tokens",
        "variant": f"{case['kind']} {case.get('draws') or case['k']}",
        "seconds": writing,
        "encode_tokens_per_cpu_s": tokens / writing,
        "decode_tokens_per_cpu_s": tokens / statistics.median(cold),
        "cached_tokens_per_cpu_s": tokens / statistics.median(warm),
    } | {name: value for name in shown if (value := getattr(found, name)) is not None}


def _epoch(reader: TargetsReader, keys: list[SequenceKey]) -> None:
    for start in range(0, len(keys), BATCH_ROWS):
        reader.lookup(keys[start : start + BATCH_ROWS])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything runs")
    args = parser.parse_args()
    if args.tiny:
        args.tokens, args.vocab = 512, 1000
    torch.set_num_threads(1)
    rows = []
    print(f"{platform.machine()}, {platform.system()}")
    for case in CASES:
        source = real(args.model, args.texts, args.tokens) if args.model else synthetic(args.tokens, args.vocab)
        with tempfile.TemporaryDirectory() as folder:
            row = measure(case, source, Path(folder) / "store")
        rows.append(row)
        print(
            f"{row['variant']:<10} {row['case']}: {row['bytes_per_token']:6.2f} bytes a token, "
            f"{row['ids_per_token']:5.2f} ids, in {row['encode_tokens_per_cpu_s']:6.0f}/CPU s, out "
            f"{row['decode_tokens_per_cpu_s']:7.0f}/s, again {row['cached_tokens_per_cpu_s']:8.0f}/s, entropy "
            f"{row['entropy']:.2f}, tail {row['tail_mass']:.3f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
