"""What distillation is worth on real text: a teacher of 3 million parameters, and students of its layers or new ones.

    python benchmarks/quality.py [--data FOLDER] [--json FILE] [--seeds N] [--steps N] [--case CASE ...] [--tiny]

All students of one start and seed see the same rows in the same steps. Held-out stories are in no training. On them,
"KL" goes from the teacher to the student, and "loss" is the cross-entropy of the text, both in nats per token.
Differences are relative to the full online distillation, paired by seed, with 95 % Student intervals over the seeds.

- plain: fine-tuning on the text. online: forward KL to the whole teacher. TRL GKD: the same with TRL's trainer.
- counts 50, counts 12: 50 or 12 stored draws per token. top 12 + tail: the twelve likeliest and the mass of all others.
- top 12 renormalised: the twelve likeliest, scaled to sum to 1, as if the teacher gave no mass to other tokens.

Own answers: the online students of 4 layers are trained further by reverse KL on the ends of stories: off-policy, or
with half or all of the ends written by the student. "KL" is then reverse KL, from the student to the teacher, on what
the student writes after held-out beginnings. Differences are relative to off-policy training.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peers import train_by_trl
from tokenizers import Tokenizer

from potstill.components.chat.format import Example, load_chat
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.targets import TargetsMeta, TargetsReader, TargetsWriter
from potstill.components.training.attention import grouped_attention
from potstill.components.training.batches import pack, plan_steps, token_batches
from potstill.components.training.learner import LanguageTask, Learner
from potstill.components.training.loop import LoopOptions, train_model
from potstill.components.training.on_policy import StudentSamples
from potstill.components.training.students import StudentStart, choose_layers
from potstill.core.recipe import FromScratch, OnPolicy, Schedule, Shape, TeacherLayers
from potstill.core.recipe.objective import Divergence, ForwardKL, ReverseKL
from potstill.stages.targets.scoring import write_targets

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CONTEXT, STEP_TOKENS = 256, 1024
TRAINED, HELD_OUT = 450, 100  # stories
PROMPT, DRAWN = 24, 96  # tokens of a beginning, and most that a student writes after it
FORWARD_KL, REVERSE_KL = ForwardKL(name="forward_kl"), ReverseKL(name="reverse_kl")
ENDS = 4  # that it writes to one when it is judged
OWN = "own answers"
# start: the student, its learning rate, and the factor on the number of steps
STARTS = {
    "4 of 8 layers": (TeacherLayers(layers=4), 1e-3, 1),
    "from scratch": (FromScratch(init="scratch", shape=Shape(layers=3, hidden=128, ffn=352, heads=4)), 3e-3, 4),
}
STORED: dict[str, dict[str, Any]] = {
    "counts 50": {"kind": "counts", "draws": 50},
    "counts 12": {"kind": "counts", "draws": 12},
    "top 12 + tail": {"kind": "top_k", "k": 12},
}
RENORMALISED = "top 12 renormalised"
# two-sided 95 % points of Student's t by degrees of freedom
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


class Renormalised(TargetsReader):
    """A top-k store without its tail."""

    def lookup(self, keys: Any) -> Any:
        found = super().lookup(keys)
        probs = found.probs.reshape(-1, 12)
        return found._replace(probs=(probs / probs.sum(axis=1, keepdims=True)).reshape(-1), tail=None)


@dataclass(frozen=True)
class World:
    """What all trainings have in common."""

    teacher: Any
    chat: Any
    train: list[Example]
    held_out: list[Example]
    steps: int
    folder: Path

    @property
    def vocab(self) -> int:
        return int(self.chat.vocab_size)


def load_world(data: Path, steps: int, folder: Path) -> World:
    """Teacher and stories, each cut at `CONTEXT` tokens; the last stories are held out."""
    model = data / "models" / "bitllama-3M"
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    texts = json.loads((data / "tinystories" / "tinystories_1000.json").read_text(encoding="utf-8"))
    # few steps need few stories
    texts = texts[: min(TRAINED, 10 * steps)] + texts[-min(HELD_OUT, 5 * steps) :]
    rows = [Example(tuple(tokenizer.encode(text).ids[:CONTEXT]), 1, True) for text in texts]
    held_out = min(HELD_OUT, 5 * steps)
    teacher = load_causal_lm(model).eval()
    return World(teacher, load_chat(model, "plain"), rows[:-held_out], rows[-held_out:], steps, folder)


def schedule(world: World, rate: float, times: float = 1.0) -> Schedule:
    """A schedule with as many epochs as give the number of steps, times a factor."""
    once = len(plan_steps([len(r.ids) for r in world.train], STEP_TOKENS, 1, 1.0, 0))
    return Schedule(epochs=times * world.steps / once, batch_tokens=STEP_TOKENS, learning_rate=rate)


def store(world: World, variant: str, seed: int) -> Path:
    """The teacher's targets for the training rows, made once; draws are made again for each seed."""
    settings = STORED[variant]
    if settings["kind"] == "counts":
        settings, variant = settings | {"seed": seed}, f"{variant}, seed {seed}"
    made_by = dict.fromkeys(("teacher_hash", "tokenizer_hash", "template_hash"), "benchmark")
    folder = world.folder / variant
    if not folder.exists():
        with TargetsWriter(folder, TargetsMeta(vocab_size=world.vocab, dtype="float32", **settings, **made_by)) as out:
            write_targets(world.teacher, world.train, out, 4 * STEP_TOKENS)
    return folder


def objective(world: World, variant: str, seed: int) -> LanguageTask:
    """What a variant of potstill's learns from."""
    if variant == "plain":
        return LanguageTask()
    if variant == "online":
        return LanguageTask(world.teacher)
    if variant == RENORMALISED:
        return LanguageTask(stored=Renormalised(store(world, "top 12 + tail", seed)))
    return LanguageTask(stored=TargetsReader(store(world, variant, seed)))


def new_student(world: World, start: str, seed: int) -> Any:
    """The student before training."""
    shape = STARTS[start][0]
    kept = choose_layers(shape, world.teacher, world.train) if isinstance(shape, TeacherLayers) else []
    return StudentStart(
        shape, world.chat, CONTEXT, seed, teacher=world.teacher, kept_layers=kept, examples=world.train
    ).build()


def train(world: World, start: str, variant: str, seed: int) -> tuple[Any, float]:
    """Train one student, and return it with the CPU seconds."""
    _, rate, times = STARTS[start]
    student, plan = new_student(world, start, seed), schedule(world, rate, times)
    begun = time.process_time()
    if variant == "TRL GKD":
        groups = plan_steps([len(r.ids) for r in world.train], STEP_TOKENS, 1, plan.epochs, seed)
        steps = [[world.train[i] for batch in group for i in batch] for group in groups]
        train_by_trl(student, world.teacher, steps, plan, seed)
    elif variant != "as it starts":
        out = Path(tempfile.mkdtemp(dir=world.folder))
        train_model(
            student, objective(world, variant, seed), world.train, [], plan,
            LoopOptions(out=out, name="student", vocab_size=world.vocab, pad_id=world.chat.eos_id, seed=seed),
        )  # fmt: skip
    return student, time.process_time() - begun


def trained_and_judged(world: World, start: str, variant: str, seed: int) -> dict[str, float]:
    """Train a student and judge it on the held-out stories."""
    student, seconds = train(world, start, variant, seed)
    return {"seconds": seconds} | judge(world, student, world.held_out)


@torch.no_grad()
def judge(world: World, student: Any, examples: list[Example], divergence: Divergence = FORWARD_KL) -> dict[str, float]:
    """KL and cross-entropy on rows."""
    learner = Learner(student.eval(), LanguageTask(world.teacher, objective=divergence), world.vocab, False)
    kl = loss = tokens = 0.0
    with grouped_attention(student, world.teacher):
        for rows in token_batches([len(r.ids) for r in examples], 4 * STEP_TOKENS):
            batch = pack([examples[i] for i in rows], world.chat.eos_id)
            sums = learner(batch)
            kl, loss, tokens = kl + float(sums.divergence), loss + float(sums.cross_entropy), tokens + len(batch.labels)
    return {"kl": kl / tokens, "loss": loss / tokens}


def learn_on(world: World, seed: int) -> dict[str, dict[str, float]]:
    """Train the online student of a seed further, on- and off-policy, and judge each on its own answers."""
    begun, _ = train(world, "4 of 8 layers", "online", seed)
    rows = [replace(row, n_prompt=PROMPT) for row in world.train if len(row.ids) > PROMPT]
    plan = schedule(world, STARTS["4 of 8 layers"][1] / 5)
    found = {"as it was": {"seconds": 0.0} | judge_own_answers(world, begun, seed)}
    for variant, share in (("off-policy", None), ("on-policy, half", 0.5), ("on-policy, all", 1.0)):
        settings = OnPolicy(share=share, refresh=5) if share else None
        own = StudentSamples(settings, world.chat, CONTEXT, DRAWN) if settings else None
        student, since = copy.deepcopy(begun).train(), time.process_time()
        task = LanguageTask(world.teacher, student_samples=own, objective=REVERSE_KL)
        out = Path(tempfile.mkdtemp(dir=world.folder))
        train_model(
            student, task, rows, [], plan,
            LoopOptions(out=out, name="student", vocab_size=world.vocab, pad_id=world.chat.eos_id, seed=seed),
        )  # fmt: skip
        found[variant] = {"seconds": time.process_time() - since} | judge_own_answers(world, student, seed)
    return found


def judge_own_answers(world: World, student: Any, seed: int) -> dict[str, float]:
    """Reverse KL and cross-entropy on what a student writes after each beginning of a held-out story, `ENDS` times."""
    prompts = [list(row.ids[:PROMPT]) for row in world.held_out if len(row.ids) > PROMPT] * ENDS
    runtime = HFRuntime(student, world.chat, CONTEXT)
    seeds = [1000 * seed + number for number in range(len(prompts))]
    said = runtime.continue_ids(prompts, seeds, Sampling(DRAWN, 1.0))
    rows = [Example((*p, *s.ids), PROMPT, s.stopped) for p, s in zip(prompts, said, strict=True) if s.ids]
    return judge(world, student, rows, divergence=REVERSE_KL)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % Student interval."""
    mean, count = statistics.mean(values), len(values)
    if count < 2:
        return mean, -math.inf, math.inf
    half = T_95[count - 1] * statistics.stdev(values) / math.sqrt(count)
    return mean, mean - half, mean + half


def tabulate(start: str, found: dict[str, list[dict[str, float]]], reference: str) -> list[dict[str, Any]]:
    """Means over seeds, and relative differences to the reference, paired by seed."""
    rows = []
    for variant, runs in found.items():
        row: dict[str, Any] = {"case": start, "variant": variant, "runs": runs}
        for what in ("kl", "loss", "seconds"):
            row[what] = statistics.mean(run[what] for run in runs)
        for what in ("kl", "loss"):
            apart = [100 * (run[what] / full[what] - 1) for run, full in zip(runs, found[reference], strict=True)]
            row[f"{what}_percent"], row[f"{what}_low"], row[f"{what}_high"] = interval(apart)
        rows.append(row)
        print(
            f"{start:<14} {variant:<20} KL {row['kl']:.4f} ({row['kl_percent']:+7.2f} %, {row['kl_low']:+.2f} .. "
            f"{row['kl_high']:+.2f})  loss {row['loss']:.4f} ({row['loss_percent']:+6.2f} %, {row['loss_low']:+.2f} .. "
            f"{row['loss_high']:+.2f})  {row['seconds']:6.1f} CPU s",
            flush=True,
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="has models/bitllama-3M and tinystories")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, choices=range(2, 11), default=3)
    parser.add_argument("--steps", type=int, default=100, help=f"of {STEP_TOKENS} tokens; from scratch 4 times as many")
    parser.add_argument("--case", action="append", choices=[*STARTS, OWN], help="may be repeated; all where left out")
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything runs")
    args = parser.parse_args()
    if args.tiny:
        args.seeds, args.steps = 2, 2
    print(f"{platform.machine()}, {platform.system()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    peers = ["TRL GKD"] if importlib.util.find_spec("trl") else []
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        world = load_world(args.data, args.steps, Path(folder))
        for start in STARTS:
            if start not in (args.case or STARTS):
                continue
            variants = ["as it starts", "plain", "online", *peers, *STORED, RENORMALISED]
            found = {
                name: [trained_and_judged(world, start, name, seed) for seed in range(args.seeds)] for name in variants
            }
            rows += tabulate(start, found, "online")
        if OWN in (args.case or [OWN]):
            pairs = [learn_on(world, seed) for seed in range(args.seeds)]
            own = {variant: [pair[variant] for pair in pairs] for variant in pairs[0]}
            rows += tabulate(OWN, own, "off-policy")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
