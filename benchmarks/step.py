"""A whole training step of potstill and of TRL's trainers on the same rows: tokens per CPU second, and memory.

    python benchmarks/step.py [--json FILE] [--rounds N] [--steps N] [--vocab V ...] [--only VARIANT ...] [--tiny]

The work is off-policy distillation by forward KL in fp32: a teacher of 8 layers of width 512, a student of 4 layers of
width 256, tied heads, random weights, AdamW. A step has 2 rows of 512 tokens or, "ragged", as many rows of 60 to 480
tokens as fit into 1024 (3 on average). Only tokens of rows are counted, without padding. "TRL GKD" is its GKDTrainer
with lmbda 0, whose collator pads a batch to its longest row; "to 512" pads all rows to 512, as a loader of fixed shapes
does. "TRL chunked" is its DistillationTrainer, which has no off-policy mode and gets the rows instead of samples.

Every variant runs in a fresh process, and rounds take turns. Times are the CPU time of the process from one optimizer
step to the next, without the first, as medians over all rounds. Memory is the highest resident set of the whole
process. The losses of the online variants, which see the same rows in the same steps, must be equal to 4 decimals.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peers import train_by_trl
from status import status_mb
from torch.optim.optimizer import register_optimizer_step_post_hook

from potstill.components.chat.format import Example
from potstill.components.targets import TargetsMeta, TargetsReader, TargetsWriter
from potstill.components.training.batches import plan_steps
from potstill.components.training.learner import LanguageTask
from potstill.components.training.loop import LoopOptions, train_model
from potstill.core.recipe import Schedule
from potstill.stages.targets.scoring import write_targets

VOCABS, TINY_VOCABS = [32_000, 128_256], [600]
WHOLE, RAGGED = 512, (60, 480)
SHAPES = {"teacher": (512, 8), "student": (256, 4)}
DRAWS, SEED = 50, 0
SCHEDULE = Schedule(epochs=1.0, batch_tokens=2 * WHOLE, learning_rate=1e-3)
# variant: which tool trains, and on which rows
VARIANTS = {
    "TRL GKD": ("gkd", "whole"),
    "TRL chunked": ("chunked", "whole"),
    "potstill": ("potstill", "whole"),
    "potstill, stored": ("stored", "whole"),
    "TRL GKD, to 512": ("gkd to 512", "ragged"),
    "TRL GKD, to longest": ("gkd", "ragged"),
    "potstill, ragged": ("potstill", "ragged"),
}


def make_rows(kind: str, vocab: int, steps: int) -> list[Example]:
    """Rows of random tokens; all tokens but the first are trained."""
    rng = random.Random(SEED)
    lengths = [WHOLE if kind == "whole" else rng.randint(*RAGGED) for _ in range((2 if kind == "whole" else 3) * steps)]
    return [Example(tuple(rng.randrange(3, vocab) for _ in range(length)), 1, True) for length in lengths]


def make_model(who: str, vocab: int) -> Any:
    """A Llama with random weights, the same in each process, whose distributions are not flat."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers = SHAPES[who]
    torch.manual_seed(layers)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=hidden * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, max_position_embeddings=WHOLE, tie_word_embeddings=True,
        initializer_range=0.06, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def planned(rows: list[Example]) -> list[list[int]]:
    """The rows of each step in potstill's plan, which the other tools use too."""
    return [group[0] for group in plan_steps([len(r.ids) for r in rows], SCHEDULE.batch_tokens, 1, 1.0, SEED)]


def potstill_losses(rows: list[Example], vocab: int, store: Path | None) -> list[float]:
    """Train with potstill, as a recipe does, and return the losses of its log."""
    teacher, stored = None, None
    if store is None:
        teacher = make_model("teacher", vocab)
    else:
        stored = TargetsReader(store, targets_meta(vocab))
    with tempfile.TemporaryDirectory() as folder:
        train_model(
            make_model("student", vocab), LanguageTask(teacher, stored=stored), rows, [], SCHEDULE,
            LoopOptions(out=Path(folder), name="step", vocab_size=vocab, pad_id=2, seed=SEED),
        )  # fmt: skip
        return [json.loads(line)["loss"] for line in (Path(folder) / "step.log.jsonl").read_text().splitlines()]


def targets_meta(vocab: int) -> TargetsMeta:
    """Meta data of a store of sampled counts."""
    made_by = dict.fromkeys(("teacher_hash", "tokenizer_hash", "template_hash"), "benchmark")
    return TargetsMeta(kind="counts", draws=DRAWS, seed=SEED, vocab_size=vocab, dtype="float32", **made_by)


def write_store(rows: list[Example], vocab: int, store: Path) -> None:
    """Do the work of the targets stage, in a process of its own so that it is not measured."""
    with TargetsWriter(store, targets_meta(vocab)) as writer:
        write_targets(make_model("teacher", vocab), rows, writer, 2 * WHOLE)


def one(variant: str, vocab: int, steps: int, store: Path) -> dict[str, Any]:
    """Train a variant in this process: CPU seconds and tokens of each step but the first, losses, peak memory."""
    who, kind = VARIANTS[variant]
    rows = make_rows(kind, vocab, steps + 1)
    marks: list[float] = []
    register_optimizer_step_post_hook(lambda *_: marks.append(time.process_time()))
    if who in ("potstill", "stored"):
        losses = potstill_losses(rows, vocab, store if who == "stored" else None)
    else:
        models = make_model("student", vocab), make_model("teacher", vocab)
        steps = [[rows[i] for i in group] for group in planned(rows)]
        losses = train_by_trl(
            *models, steps, SCHEDULE, SEED, chunked=who == "chunked", width=512 if "512" in who else 0
        )
    tokens = [sum(len(rows[i].ids) for i in group) for group in planned(rows)][1 : len(marks)]
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    return {"seconds": seconds, "tokens": tokens, "losses": losses, "peak_mb": status_mb("VmHWM")}


def ask(arguments: list[str]) -> str:
    """Run this script in a process of its own, and return its last line."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return (done.stdout.splitlines() or [""])[-1]


def summary(vocab: int, found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Medians over all rounds; ragged variants are compared with the other tool's fixed shapes."""
    rows = []
    for variant, rounds in found.items():
        rates = [t / s for r in rounds for t, s in zip(r["tokens"], r["seconds"], strict=True)]
        rows.append({
            "case": f"V={vocab}", "variant": variant,
            "seconds": statistics.median(s for r in rounds for s in r["seconds"]),
            "tokens_per_cpu_s": statistics.median(rates), "peak_mb": round(max(r["peak_mb"] for r in rounds), 1),
            "losses": rounds[0]["losses"],
        })  # fmt: skip
    by_name = {row["variant"]: row for row in rows}
    for row in rows:
        peer = by_name.get("TRL GKD" if VARIANTS[row["variant"]][1] == "whole" else "TRL GKD, to 512")
        row["x_trl"] = row["tokens_per_cpu_s"] / peer["tokens_per_cpu_s"] if peer else None
        row["x_trl_peak"] = row["peak_mb"] / peer["peak_mb"] if peer else None
    return rows


def require_equal(rows: list[dict[str, Any]]) -> None:
    """Require that variants with the same rows and teacher have the same losses to 4 decimals."""
    for kind in ("whole", "ragged"):
        same = [r for r in rows if VARIANTS[r["variant"]][1] == kind and VARIANTS[r["variant"]][0] != "stored"]
        for row in same[1:]:
            apart = max(abs(a - b) for a, b in zip(row["losses"], same[0]["losses"], strict=True))
            assert apart < 5e-5, f"{row['variant']} and {same[0]['variant']}: losses are {apart:.1e} apart"


def measure(vocab: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all variants at one vocabulary, in turn; print and return their rows."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in args.only or VARIANTS}
    with tempfile.TemporaryDirectory() as store:
        rest = [str(vocab), str(args.steps), store, *(["--tiny"] if args.tiny else [])]
        if "potstill, stored" in found:
            ask(["--one", "store", *rest])
        for _ in range(args.rounds):
            for variant, rounds in found.items():
                rounds.append(json.loads(ask(["--one", variant, *rest])))
    rows = summary(vocab, found)
    for row in rows:
        beside = f"{row['x_trl']:5.2f} x TRL's, memory {row['x_trl_peak']:4.2f} x" if row["x_trl"] else ""
        print(
            f"{row['case']:<9} {row['variant']:<20} {row['seconds']:7.3f} CPU s "
            f"{row['tokens_per_cpu_s']:8.1f} tokens/CPU s {row['peak_mb']:7.0f} MB {beside}  "
            f"losses {' '.join(f'{loss:.4f}' for loss in row['losses'])}",
            flush=True,
        )
    require_equal(rows)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="measured steps per round")
    parser.add_argument("--vocab", type=int, nargs="*")
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="may be repeated")
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything runs")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        SHAPES.update(teacher=(128, 2), student=(64, 1))
    if args.one:
        variant, vocab, steps, store = args.one
        if variant == "store":
            write_store(make_rows("whole", int(vocab), int(steps) + 1), int(vocab), Path(store))
        else:
            print(json.dumps(one(variant, int(vocab), int(steps), Path(store))))
        return
    print(f"{platform.machine()}, {platform.system()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    vocabs = args.vocab or (TINY_VOCABS if args.tiny else VOCABS)
    results = [row for vocab in vocabs for row in measure(vocab, args)]
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
