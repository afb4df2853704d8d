"""Distillation on real text in equal CPU seconds: TRL's GKDTrainer, and potstill.

    OMP_NUM_THREADS=1 python benchmarks/equal_seconds.py [--data FOLDER] [--json FILE] [--seeds N] [--steps N]
        [--case CASE ...] [--only VARIANT] [--tiny]

Teacher, stories, students and held-out stories are those of quality.py. For each seed, TRL trains a student for
`--steps` steps. Then potstill trains the same student for as many steps as fit into the CPU seconds that TRL took.
Both minimise forward KL on the same batches in the same order. potstill then continues with further epochs of the same
stories. Each one's learning-rate schedule is stretched to its own number of steps.

- TRL GKD: the teacher runs in each step. potstill online: the same.
- potstill, 50 draws: the teacher runs once, and 50 draws per token are stored. Those CPU seconds are counted.

CPU seconds are those of the process in the training call, with all that the call sets up. They do not depend on how
long the process waits for a core. Loading models and building students is not counted. Before anything is measured,
each variant trains a student for a few steps, so that no measurement includes an import. potstill's number of steps
comes from a trial training of an eighth of TRL's steps, directly before. Trials are not counted. The table has the CPU
seconds that each training really took.

Differences are potstill's value less TRL's, paired by seed, with 95 % Student intervals over the seeds. `--json` is
written after each seed, and seeds that the file already has are not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peers import train_by_trl
from quality import DATA, STARTS, STEP_TOKENS, World, interval, judge, load_world, new_student, objective, store
from tokenizers import Tokenizer

from potstill.components.training.batches import plan_steps
from potstill.components.training.loop import LoopOptions, train_model
from potstill.core.files import write_json
from potstill.core.recipe import Schedule

TRL, ONLINE, STORED = "TRL GKD", "potstill online", "potstill, 50 draws"
POTSTILL = {ONLINE: "online", STORED: "counts 50"}  # variants, and their names in quality.py
TRIAL = 8  # TRL's steps by this are a trial's steps
MEASURES = {"kl": "KL", "loss": "loss", "loss_per_byte": "loss per byte"}


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of the process in a call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def fit(world: World, start: str, variant: str, seed: int, steps: int) -> tuple[Any, float]:
    """Train a new student for a number of steps, and return it with the CPU seconds of the training."""
    student = new_student(world, start, seed)
    plan = Schedule(epochs=1, batch_tokens=STEP_TOKENS, learning_rate=STARTS[start][1])
    if variant == TRL:
        lengths = [len(row.ids) for row in world.train]
        # no epoch has fewer steps than there are tokens for
        epochs = 1 + steps * STEP_TOKENS // sum(lengths)
        groups = plan_steps(lengths, STEP_TOKENS, 1, epochs, seed)[:steps]
        rows = [[world.train[i] for batch in group for i in batch] for group in groups]
        return student, cpu_seconds(lambda: train_by_trl(student, world.teacher, rows, plan, seed))
    task = objective(world, POTSTILL[variant], seed)
    options = LoopOptions(
        out=Path(tempfile.mkdtemp(dir=world.folder)), name="student", vocab_size=world.vocab,
        pad_id=world.chat.eos_id, seed=seed, steps=steps,
    )  # fmt: skip
    return student, cpu_seconds(lambda: train_model(student, task, world.train, [], plan, options))


def compare(world: World, start: str, seed: int, variants: list[str], per_byte: float) -> list[dict[str, Any]]:
    """Train one student by TRL, and potstill's in as many CPU seconds; one result for each."""
    # a folder of its own, so that the stored targets are made, and counted, once per seed
    world = replace(world, folder=Path(tempfile.mkdtemp(dir=world.folder)))
    found = []

    def add(variant: str, student: Any, steps: int, seconds: float) -> None:
        judged = judge(world, student, world.held_out)
        judged["loss_per_byte"] = judged["loss"] * per_byte
        row = {"case": start, "variant": variant, "seed": seed, "steps": steps, "trl_steps": world.steps}
        found.append(row | {"seconds": seconds} | judged)
        print(
            f"{start:<14} seed {seed} {variant:<20} {steps:5} steps {seconds:7.1f} CPU s  KL {judged['kl']:.4f}  "
            f"loss {judged['loss']:.4f}",
            flush=True,
        )

    student, allowed = fit(world, start, TRL, seed, world.steps)
    add(TRL, student, world.steps, allowed)
    for variant in variants:
        # the teacher's own pass over the rows comes first, and leaves less time for steps
        prepared = cpu_seconds(lambda: store(world, "counts 50", seed)) if variant == STORED else 0.0
        trial = max(1, world.steps // TRIAL)
        _, tried = fit(world, start, variant, seed, trial)
        fitting = max(1, int((allowed - prepared) * trial / tried))
        student, seconds = fit(world, start, variant, seed, fitting)
        add(variant, student, fitting, prepared + seconds)
    return found


def warm_up(world: World, start: str, variants: list[str]) -> None:
    """Train by each variant for two steps on a few rows, so that everything is imported."""
    few = replace(world, train=world.train[:8], folder=Path(tempfile.mkdtemp(dir=world.folder)))
    for variant in (TRL, *variants):
        fit(few, start, variant, 0, 2)


def tokens_per_byte(world: World, data: Path) -> float:
    """Trained tokens of the held-out stories by their bytes."""
    tokenizer = Tokenizer.from_file(str(data / "models" / "bitllama-3M" / "tokenizer.json"))
    tokens = sum(row.n_supervised for row in world.held_out)
    return tokens / sum(len(tokenizer.decode(list(row.ids)).encode()) for row in world.held_out)


def summarise(start: str, variants: list[str], runs: list[dict[str, Any]]) -> None:
    """Print means over seeds, and differences to TRL paired by seed."""
    of = {variant: [run for run in runs if run["variant"] == variant] for variant in (TRL, *variants)}
    for variant, its in of.items():
        steps, seconds = (statistics.mean(run[what] for run in its) for what in ("steps", "seconds"))
        print(f"{start}, {variant}, {len(its)} seeds: {steps:.0f} steps, {seconds:.1f} CPU s")
        for what, label in MEASURES.items():
            line = f"    {label:<14} {statistics.mean(run[what] for run in its):.4f}"
            if variant != TRL:
                apart = [run[what] - trl[what] for run, trl in zip(its, of[TRL], strict=True)]
                mean, low, high = interval(apart)
                line += f"  {mean:+.4f} ({low:+.4f} .. {high:+.4f})"
            print(line, flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="has models/bitllama-3M and tinystories")
    parser.add_argument("--json", type=Path, help="results, one for each training; also those of an earlier call")
    parser.add_argument("--seeds", type=int, choices=range(2, 11), default=4)
    parser.add_argument("--steps", type=int, default=200, help=f"of TRL, each of {STEP_TOKENS} tokens")
    parser.add_argument("--case", action="append", choices=list(STARTS), help="may be repeated; all where left out")
    parser.add_argument("--only", choices=list(POTSTILL), help="the one variant of potstill's to train")
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything runs")
    args = parser.parse_args()
    if args.tiny:
        args.seeds, args.steps = 2, 4
    print(f"{platform.machine()}, {platform.system()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    variants = [args.only] if args.only else list(POTSTILL)
    rows = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    if any(row["trl_steps"] != args.steps for row in rows):
        sys.exit(f"{args.json} has results of another --steps. Name another file.")
    with tempfile.TemporaryDirectory() as folder:
        world = load_world(args.data, args.steps, Path(folder))
        per_byte = tokens_per_byte(world, args.data)
        for start in args.case or STARTS:
            missing = [s for s in range(args.seeds) if not any(r["case"] == start and r["seed"] == s for r in rows)]
            if missing:
                warm_up(world, start, variants)
            for seed in missing:
                rows += compare(world, start, seed, variants, per_byte)
                if args.json:
                    write_json(args.json, rows)
            summarise(start, variants, [row for row in rows if row["case"] == start])


if __name__ == "__main__":
    main()
