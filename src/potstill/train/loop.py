"""The one visible training loop: teacher-finetuning, distillation and its control all run through `train_model`.

Resume is exact: the plan of batches is a function of data and seed, the learning rate of the step, and a checkpoint
holds weights, optimizer and random states. On a CPU a killed and resumed run ends in the same bits.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, set_seed
from torch import Tensor, nn

from potstill.chat import Example
from potstill.errors import StepError
from potstill.losses.divergence import LossSums, linear_divergence
from potstill.memory import keep_freed_memory
from potstill.progress import progress_bar
from potstill.recipe import Schedule
from potstill.train.attention import grouped_attention
from potstill.train.batches import Batch, pack, plan_steps, token_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Objective", "train_model"]

# a tied head is left out of every checkpoint, as it should be: no warning each time
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)

_VALIDATIONS = 10


@dataclass(frozen=True)
class Objective:
    """What the student learns from: a teacher's distributions, its text, or both. No teacher means text alone."""

    teacher: PreTrainedModel | None = None
    temperature: float = 1.0
    hard_label_share: float = 0.0


class _Learner(nn.Module):
    """Student with its loss inside, so that one `forward` is all that accelerate has to wrap."""

    def __init__(self, student: PreTrainedModel, objective: Objective, vocab_size: int, autocast: bool) -> None:
        super().__init__()
        self.student = student
        self.vocab_size = vocab_size
        self.objective = objective
        self.autocast = autocast
        # in a tuple, so that the teacher is neither trained, wrapped, nor saved
        self.teacher = (objective.teacher,)

    def forward(self, batch: Batch) -> LossSums:
        device = batch.input_ids.device.type
        if self.autocast and not torch.is_autocast_enabled(device):
            raise StepError(
                "train.precision is bf16, but autocast is off in the forward pass. Set precision: fp32 on this device."
            )
        teacher = self.teacher[0]
        teacher_NG = teacher_head_VG = None
        if teacher is not None:
            with torch.no_grad():
                teacher_NG = _hidden(teacher, batch)
                teacher_head_VG = _head(teacher, self.vocab_size)
        student_NH = _hidden(self.student, batch)
        with torch.autocast(device, enabled=False):
            return linear_divergence(
                student_NH,
                _head(self.student, self.vocab_size),
                batch.labels,
                teacher_NG=teacher_NG,
                teacher_head_VG=teacher_head_VG,
                temperature=self.objective.temperature,
                hard_label_share=self.objective.hard_label_share,
            )


def _hidden(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Last hidden states (N, H) at the batch's supervised positions, under `grouped_attention`."""
    hidden: Tensor = model.base_model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, row_groups=batch.row_groups, use_cache=False
    ).last_hidden_state
    return hidden[0].index_select(0, batch.positions)


def _head(model: PreTrainedModel, vocab_size: int) -> Tensor:
    """Output embedding (V, H) without the rows that only pad the vocabulary."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight[:vocab_size]


def learning_rate(schedule: Schedule, step: int, total: int) -> float:
    """Linear warm-up to the peak, cosine decay to a tenth of it; `step` counts from 0."""
    warmup = max(1, round(schedule.warmup * total))
    if step < warmup:
        return schedule.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return schedule.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW; norms and biases (1-D) are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.95), eps=1e-8)


class _Log:
    """`NAME.log.jsonl`: one line a step; lines past the resumed step are dropped."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) < resumed_step]
        path.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a")

    def write(self, **values: float) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 1 << 60  # a line cut off by a kill


def _save_checkpoint(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write `checkpoint-STEP` whole, then drop older ones."""
    temporary, final = folder / "checkpoint.tmp", folder / f"checkpoint-{step}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    if accelerator.is_main_process:
        os.replace(temporary, final)
        for old in folder.glob("checkpoint-*"):
            if old != final:
                shutil.rmtree(old)


def _resume(accelerator: Accelerator, folder: Path) -> int:
    """Load the newest whole checkpoint; returns the step to go on from."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    if not found:
        return 0
    accelerator.load_state(str(found[-1]))
    return int(found[-1].name.split("-")[1])


@torch.no_grad()
def _validate(
    learner: nn.Module, examples: Sequence[Example], batch_tokens: int, pad_id: int, device: torch.device
) -> dict[str, float]:
    """Mean divergence and cross-entropy per supervised token, in nats."""
    totals, tokens = [0.0, 0.0], 0
    for batch_rows in token_batches([len(e.ids) for e in examples], batch_tokens):
        batch = pack([examples[i] for i in batch_rows], pad_id).to(device)
        sums: LossSums = learner(batch)
        totals[0] += float(sums.divergence)
        totals[1] += float(sums.cross_entropy)
        tokens += len(batch.labels)
    return {"validation_divergence": totals[0] / tokens, "validation_cross_entropy": totals[1] / tokens}


def train_model(
    model: PreTrainedModel,
    objective: Objective,
    examples: Sequence[Example],
    validation: Sequence[Example],
    schedule: Schedule,
    *,
    out: Path,
    name: str,
    vocab_size: int,
    pad_id: int,
    seed: int,
    tracker: str = "none",
) -> dict[str, Any]:
    """Train `model` in place; checkpoints, `NAME.log.jsonl` and tracker files go under `out`.

    The loss is the mean over the supervised tokens of the whole global batch, across accumulation and ranks.

    Returns:
        Summary: steps, tokens, seconds, final losses.

    Raises:
        StepError: the loss is no longer finite.
    """
    accelerator = _accelerator(schedule, out, tracker)
    set_seed(seed)
    keep_freed_memory()
    if objective.teacher is not None:
        objective.teacher.requires_grad_(False).eval().to(accelerator.device)
    learner = _Learner(model.train(), objective, vocab_size, schedule.precision == "bf16")
    learner, optimizer = accelerator.prepare(learner, _optimizer(learner, schedule))
    per_step = schedule.accumulate * accelerator.num_processes
    steps = plan_steps([len(e.ids) for e in examples], schedule.batch_tokens, per_step, schedule.epochs, seed)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    first = _resume(accelerator, folder)
    if tracker != "none":
        accelerator.init_trackers(name)
    validate_every = max(1, len(steps) // _VALIDATIONS)
    started, values = time.monotonic(), dict[str, float]()
    with (
        grouped_attention(model, objective.teacher),
        _Log(out / f"{name}.log.jsonl", first) as log,
        progress_bar(name, len(steps), first) as ticker,
    ):
        for step in range(first, len(steps)):
            rate = learning_rate(schedule, step, len(steps))
            values = _optimizer_step(accelerator, learner, optimizer, steps[step], examples, pad_id, rate, schedule)
            if not math.isfinite(values["loss"]):
                raise StepError(
                    f"{name}: the loss is {values['loss']} at step {step}. Lower learning_rate, and look at {log.path}."
                )
            if validation and ((step + 1) % validate_every == 0 or step + 1 == len(steps)):
                values |= _validate(learner, validation, schedule.batch_tokens, pad_id, accelerator.device)
            log.write(step=step, **values)
            accelerator.log(values, step=step)
            if (step + 1) % schedule.checkpoint_every == 0 and step + 1 < len(steps):
                _save_checkpoint(accelerator, folder, step + 1)
            ticker.advance(1, loss=values["loss"])
    accelerator.end_training()
    # the next model of this process may be trained in another precision
    AcceleratorState._reset_state(reset_partial_state=False)
    timing = {"seconds": round(time.monotonic() - started, 2), "resumed_at": first}
    return _counts(steps, examples) | timing | {"final": values}


def _counts(steps: list[list[list[int]]], examples: Sequence[Example]) -> dict[str, Any]:
    """Steps and tokens of the whole run, over all ranks."""
    seen = [examples[i] for group in steps for batch in group for i in batch]
    return {
        "steps": len(steps),
        "supervised_tokens": sum(e.n_supervised for e in seen),
        "tokens": sum(len(e.ids) for e in seen),
    }


def _accelerator(schedule: Schedule, out: Path, tracker: str) -> Accelerator:
    return Accelerator(
        mixed_precision="bf16" if schedule.precision == "bf16" else "no",
        log_with=None if tracker == "none" else [tracker],
        project_config=ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "trackers")),
    )


def _optimizer_step(
    accelerator: Accelerator,
    learner: nn.Module,
    optimizer: Any,
    group: list[list[int]],
    examples: Sequence[Example],
    pad_id: int,
    rate: float,
    schedule: Schedule,
) -> dict[str, float]:
    """One optimizer step over this rank's share of the group's micro-batches; returns the log line's values."""
    for parameters in optimizer.param_groups:
        parameters["lr"] = rate
    tokens = sum(examples[i].n_supervised for batch in group for i in batch)
    mine = group[accelerator.process_index :: accelerator.num_processes]
    sums = torch.zeros(3, device=accelerator.device)
    for number, rows in enumerate(mine):
        batch = pack([examples[i] for i in rows], pad_id).to(accelerator.device)
        with accelerator.no_sync(learner) if number + 1 < len(mine) else nullcontext():
            out: LossSums = learner(batch)
            # DDP averages gradients over ranks; the loss is a mean over all ranks' tokens
            accelerator.backward(out.loss * accelerator.num_processes / tokens)
        sums += torch.stack([out.loss.detach(), out.divergence, out.cross_entropy])
    norm = accelerator.clip_grad_norm_(learner.parameters(), schedule.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    loss, divergence, cross_entropy = (accelerator.reduce(sums, "sum") / tokens).tolist()
    return {
        "loss": loss,
        "divergence": divergence,
        "cross_entropy": cross_entropy,
        "grad_norm": float(norm) if norm is not None else 0.0,
        "learning_rate": rate,
        "tokens": tokens,
    }
