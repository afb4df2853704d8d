"""The training loop: the teacher's fine-tuning, distillation and its control all run through `train_model`.

Resume is exact: the plan of batches depends only on data and seed, the learning rate only on the step, and a checkpoint
holds weights, optimizers and random states. On a CPU, a run that was killed and resumed ends in the same bits.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from potstill.components.losses.hidden import Balance
from potstill.components.runtimes.load import layer_list, moved
from potstill.components.training.batches import plan_steps, token_batches
from potstill.components.training.checkpoints import StepLog, resume, save_checkpoint
from potstill.components.training.counts import Counts
from potstill.components.training.forward import layers_alone
from potstill.components.training.learner import Sums
from potstill.components.training.on_policy import SamplingPlan, sample_lengths
from potstill.components.training.optimizers import learning_rate, make_optimizers
from potstill.components.training.precision import with_known_precision
from potstill.components.training.ranks import finish, make_accelerator, require_even_shares
from potstill.components.training.throughput import Speed
from potstill.components.training.validation import Validation
from potstill.core.artifacts.training import LogLine, LoopSummary, StepValues, read_log
from potstill.core.errors import StepError
from potstill.core.memory import keep_freed_memory
from potstill.core.progress import progress_bar
from potstill.core.recipe import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.training.on_policy import StudentSamples

__all__ = ["LoopOptions", "TrainRow", "TrainingTask", "train_model"]

# a tied head is left out of every checkpoint, as it should be, so no warning each time
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)

_MAX_GRAD_NORM = 1.0  # a larger gradient is clipped to this norm


class TrainRow(Protocol):
    """A row as the loop sees it: `ids` count against the budget of a batch, `n_supervised` weighs the row's loss."""

    @property
    def ids(self) -> tuple[int, ...]: ...
    @property
    def n_supervised(self) -> int: ...


class TrainingTask(Protocol):
    """What a model learns, and from which teacher: `learner.LanguageTask` or `classifier.ClassifierTask`."""

    @property
    def online_teacher(self) -> PreTrainedModel | None:
        """The teacher that runs while the student trains."""

    @property
    def student_samples(self) -> StudentSamples | None:
        """How the student samples answers of its own, if it learns from such."""

    def balance(self) -> Balance | None:
        """The weight of the hidden-state loss, which changes from step to step, if there is such a loss."""

    def batch(self, examples: Sequence[Any], pad_id: int) -> Any:
        """Rows as the learner takes them: with `labels`, one per supervised token or row, and `to(device)`."""

    def learner(self, student: PreTrainedModel, vocab_size: int, autocast: bool) -> nn.Module:
        """A module whose forward pass computes `Sums` from a batch and the `Weights` of its kinds of loss."""

    def prepared(self, student: PreTrainedModel) -> AbstractContextManager[None]:
        """Within the block, student and teacher accept such batches."""


@dataclass(frozen=True)
class LoopOptions:
    """Options of one training that are not in its settings.

    out         directory of checkpoints, log and tracker files
    name        the model's name in it
    vocab_size  number of tokens, without padding rows of the embedding
    pad_id      token id of padding
    seed        seed of everything random
    title       what the training is called while it runs
    steps       number of optimizer steps; None: as many as the schedule's epochs have
    shallow     layers that odd steps run and train alone (LayerDrop, arXiv:1909.11556, with one fixed pattern)
    """

    out: Path
    name: str
    vocab_size: int
    pad_id: int
    seed: int
    title: str = "train"
    steps: int | None = None
    shallow: Sequence[int] = ()


def train_model(
    model: PreTrainedModel,
    task: TrainingTask,
    examples: Sequence[TrainRow],
    validation: Sequence[TrainRow],
    schedule: Schedule,
    options: LoopOptions,
) -> LoopSummary:
    """Train `model` in place.

    The loss is the mean over supervised tokens (a classifier's: rows) of the global batch, which spans gradient
    accumulation and ranks.

    Raises:
        StepError: the loss is not finite, or the processes cannot train this together.
    """
    name = options.name
    accelerator = make_accelerator(options.out, schedule.tracker, name)
    schedule = with_known_precision(schedule, accelerator.device)
    steps = _plan(accelerator, schedule, examples, options)
    set_seed(options.seed)
    learner, optimizers = _prepare(accelerator, model, task, options.vocab_size, schedule)
    engine = _Engine(accelerator, learner, optimizers, task, options.pad_id, schedule, _balance(accelerator, task))
    group_of = _groups(accelerator, model, task, examples, steps, options.seed)
    unseen = token_batches([len(e.ids) for e in validation], schedule.batch_tokens)
    measured = Validation(
        accelerator, learner, model, lambda: [engine.batch([validation[i] for i in rows]) for rows in unseen],
        steps=len(steps), folder=options.out / name, shallow=options.shallow,
    )  # fmt: skip
    first, earlier = resume(accelerator, options.out / name)
    speed = Speed(model, task.online_teacher, schedule, accelerator.num_processes)
    started, values = time.monotonic() - earlier, dict[str, float]()
    with (
        task.prepared(model),
        StepLog(options.out, name, first, accelerator.is_main_process) as log,
        progress_bar(options.title, len(steps), first) as ticker,
    ):
        if first == 0:
            accelerator.log(measured.measure(0), step=0)
        for step in range(first, len(steps)):
            group = group_of(step)
            with layers_alone(model, options.shallow if step % 2 else ()) as layers, speed.of(group) as timing:
                values = engine.step(group, learning_rate(schedule, step, len(steps)))
            _require_finite(values["loss"], name, step, log.path)
            if measured.is_due(step + 1):
                values |= measured.measure(step + 1)
            log.write(LogLine.model_validate({"step": step, "layers": layers, **values, **timing}))
            accelerator.log(values | timing, step=step + 1)
            if (step + 1) % schedule.checkpoint_every == 0 and step + 1 < len(steps):
                save_checkpoint(accelerator, options.out / name, step + 1, time.monotonic() - started)
                measured.checkpoint_saved()
            ticker.advance(1, loss=values["loss"])
    finish(accelerator, learner)
    measured.restore()
    summary = _summary(steps, examples, measured, StepValues.model_validate(values), schedule)
    seconds, samples = round(time.monotonic() - started, 2), None
    if task.student_samples is not None and accelerator.is_main_process:
        samples = sample_lengths(read_log(options.out, name), [e.n_supervised for e in examples])
    return summary.model_copy(update={"seconds": seconds, "resumed_at": first, "samples": samples})


def _plan(
    accelerator: Accelerator, schedule: Schedule, examples: Sequence[TrainRow], options: LoopOptions
) -> list[list[list[int]]]:
    """Rows of each micro-batch of each step; the same for any number of processes."""
    lengths = [len(e.ids) for e in examples]

    def planned(epochs: float) -> list[list[list[int]]]:
        return plan_steps(lengths, schedule.batch_tokens, schedule.gradient_accumulation, epochs, options.seed)

    steps = planned(schedule.epochs)
    if options.steps is not None:
        steps = planned(1 + options.steps * schedule.epochs / len(steps))[: options.steps]
    require_even_shares(accelerator, schedule, len(steps[0]), bool(options.shallow))
    return steps


def _prepare(
    accelerator: Accelerator, model: PreTrainedModel, task: TrainingTask, vocab_size: int, schedule: Schedule
) -> tuple[nn.Module, list[Any]]:
    """The wrapped learner and its optimizers. The teacher is frozen, and not part of the learner."""
    keep_freed_memory()
    teacher = task.online_teacher
    if teacher is not None:
        moved(teacher.requires_grad_(False).eval(), accelerator.device)
    if schedule.activation_checkpointing:
        model.activation_checkpointing_enable()
    learner = task.learner(model.train(), vocab_size, schedule.precision == "bf16")
    if schedule.precision == "bf16":
        learner.forward = torch.autocast(accelerator.device.type, torch.bfloat16)(learner.forward)
    layers = model.get_submodule(layer_list(model))
    wrapped, *optimizers = accelerator.prepare(learner, *make_optimizers(learner, layers, schedule))
    return wrapped, optimizers


def _groups(
    accelerator: Accelerator,
    model: PreTrainedModel,
    task: TrainingTask,
    examples: Sequence[Any],
    steps: list[list[list[int]]],
    seed: int,
) -> Callable[[int], list[list[Any]]]:
    """A function from a step to its micro-batches, in which the student's samples may replace the teacher's answers."""
    if task.student_samples is None:
        return lambda step: [[examples[i] for i in rows] for rows in steps[step]]
    return SamplingPlan(task.student_samples, accelerator, model, examples, steps, seed).group


def _balance(accelerator: Accelerator, task: TrainingTask) -> Balance | None:
    """The weight of the hidden-state loss, which checkpoints include."""
    balance = task.balance()
    if balance is not None:
        accelerator.register_for_checkpointing(balance)
    return balance


def _require_finite(loss: float, name: str, step: int, log: Path) -> None:
    if not math.isfinite(loss):
        raise StepError(f"{name}: the loss is {loss} at step {step}. Lower learning_rate, and look at {log}.")


def _summary(
    steps: list[list[list[int]]],
    examples: Sequence[TrainRow],
    measured: Validation,
    final: StepValues,
    schedule: Schedule,
) -> LoopSummary:
    """Steps and tokens of the whole run, over all ranks."""
    seen = [examples[i] for group in steps for batch in group for i in batch]
    return LoopSummary(
        steps=len(steps),
        kept=measured.best,
        learning_rate=schedule.learning_rate,
        precision="bf16" if schedule.precision == "bf16" else "fp32",
        supervised_tokens=sum(e.n_supervised for e in seen),
        tokens=sum(len(e.ids) for e in seen),
        seconds=0.0,
        resumed_at=0,
        final=final,
        validation=tuple(measured.points),
    )


@dataclass(frozen=True)
class _Engine:
    """Optimizer steps on this rank."""

    accelerator: Accelerator
    learner: nn.Module
    optimizers: Sequence[Any]
    task: TrainingTask
    pad_id: int
    schedule: Schedule
    balance: Balance | None

    def batch(self, rows: Sequence[TrainRow]) -> Any:
        """Rows as the learner takes them, on this rank's device."""
        return self.task.batch(rows, self.pad_id).to(self.accelerator.device)

    def step(self, group: list[list[Any]], rate: float) -> dict[str, float]:
        """One optimizer step over this rank's share of the group's micro-batches; returns the values for the log."""
        for optimizer in self.optimizers:
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
        counts = Counts.of(group)
        sums = self._backward(group, counts)
        norm = self.accelerator.clip_grad_norm_(self.learner.parameters(), _MAX_GRAD_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        reduced = self.accelerator.reduce(torch.stack(list(sums.values())), "sum").tolist()
        values = counts.means(dict(zip(sums, reduced, strict=True)))
        if self.balance:
            values["hidden_weight"] = self.balance.current
            self._update_balance(self.balance, values["loss"], values["hidden"])
        norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        values |= counts.lengths()
        return values | {"grad_norm": norm, "learning_rate": rate, "tokens": counts.text + counts.sampled}

    def _backward(self, group: list[list[Any]], counts: Counts) -> dict[str, Tensor]:
        """Gradients of this rank's micro-batches, and the sums of their losses."""
        accelerator = self.accelerator
        weights = counts.weights(self.balance.current if self.balance else None)
        processes = accelerator.num_processes
        # each process runs as many micro-batches as the others, because they wait for each other; a last step may have
        # too few, and what is run in place of the missing ones counts nothing
        mine = range(accelerator.process_index, -(-len(group) // processes) * processes, processes)
        totals: dict[str, Tensor] = {}
        for number in mine:
            missing = number >= len(group)
            rows = self.batch(group[0] if missing else group[number])
            with accelerator.no_sync(self.learner) if number != mine[-1] else nullcontext():
                sums: Sums = self.learner(rows, weights.times_zero() if missing else weights)
                # DDP averages gradients over ranks; the loss is a mean over the tokens of all ranks
                accelerator.backward(sums.loss * processes)
            for key, value in sums._asdict().items():
                if value is not None:
                    totals[key] = totals.get(key, 0.0) + (torch.zeros_like(value) if missing else value.detach())
        return totals

    @staticmethod
    def _update_balance(balance: Balance, loss: float, hidden: float) -> None:
        """Take this step's losses into the weight of the next one."""
        if math.isfinite(loss):
            balance.weight(max(0.0, loss - balance.current * hidden), hidden)
