"""Greedy answers of the quickstart's teacher: transformers' generate, potstill in float32, and in bfloat16.

    python benchmarks/generate.py [--rows N] [--batch N] [--rounds N] [--json FILE] [--tiny]

The variants take turns on the same prompts. It prints the median of CPU seconds and of seconds, the prompts per CPU
second, and how many answers differ from those of generate. Set OMP_NUM_THREADS=1: CPU seconds of two threads that wait
for each other are not work.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from potstill.components.chat.format import ChatFormat, ChatSettings
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.runtimes.load import load_causal_lm
from potstill.core.recipe import load_recipe
from potstill.core.records import read_rows

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
Answers = list[list[int]]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true", help="16 rows, one round")
    args = parser.parse_args()
    if args.tiny:
        args.rows, args.rounds = 16, 1
    recipe = load_recipe(RECIPE)
    folder = Path(recipe.teacher.model)
    chat = ChatSettings.of(recipe.chat).load(folder)
    rows = read_rows(recipe.data.prompts, tools=recipe.data.tools, limit=args.rows)
    prompts = sorted((chat.prompt_ids(row) for row in rows), key=len)
    sampling = Sampling(recipe.generate.max_new_tokens)
    models = {dtype: load_causal_lm(folder, dtype).eval() for dtype in ("float32", "bfloat16")}
    runtimes = {dtype: HFRuntime(model, chat, recipe.chat.context) for dtype, model in models.items()}
    variants: dict[str, Callable[[Answers], Answers]] = {
        "transformers' generate": lambda batch: generated(models["float32"], chat, batch, sampling.max_new_tokens),
        "potstill": lambda batch: answers(runtimes["float32"], batch, sampling),
        "potstill, bfloat16": lambda batch: answers(runtimes["bfloat16"], batch, sampling),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    found: dict[str, Answers] = {}
    for _ in range(args.rounds):
        for name, variant in variants.items():
            begun = time.process_time(), time.perf_counter()
            batches = (prompts[start : start + args.batch] for start in range(0, len(prompts), args.batch))
            found[name] = [ids for batch in batches for ids in variant(batch)]
            taken[name].append((time.process_time() - begun[0], time.perf_counter() - begun[1]))
    report(taken, found, len(prompts), args)


def answers(runtime: HFRuntime, batch: Sequence[list[int]], sampling: Sampling) -> Answers:
    """Token ids of potstill's answers, with the end token."""
    return [out.ids for out in runtime.continue_ids(list(batch), [0] * len(batch), sampling)]


def generated(model: Any, chat: ChatFormat, batch: Sequence[list[int]], count: int) -> Answers:
    """The same of transformers."""
    width = max(map(len, batch))
    ids = torch.tensor([[chat.eos_id] * (width - len(each)) + each for each in batch])
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in batch])
    stop = sorted(chat.stop_ids)
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=count, do_sample=False, eos_token_id=stop, pad_token_id=chat.eos_id
        )
    said = out[:, width:].tolist()
    ends = [next((i + 1 for i, token in enumerate(row) if token in chat.stop_ids), len(row)) for row in said]
    return [row[:end] for row, end in zip(said, ends, strict=True)]


def report(
    taken: dict[str, list[tuple[float, float]]], found: dict[str, Answers], count: int, args: argparse.Namespace
) -> None:
    """Print the table, and write it as JSON."""
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {count} prompts, batches of {args.batch}")
    table, first = [], next(iter(taken))
    for name, times in taken.items():
        cpu, wall = (statistics.median(column) for column in zip(*times, strict=True))
        differ = sum(one != other for one, other in zip(found[first], found[name], strict=True))
        table.append({
            "case": f"{count} prompts", "variant": name, "seconds": wall, "cpu_seconds": cpu,
            "prompts_per_cpu_s": count / cpu, "answers_that_differ": differ,
        })  # fmt: skip
        print(f"{name:<24} {cpu:8.2f} CPU s {wall:8.2f} s {count / cpu:8.1f} prompts per CPU s {differ:5} differ")
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
