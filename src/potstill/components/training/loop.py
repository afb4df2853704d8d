"""The one visible training loop: teacher-finetuning, distillation and its control all run through `train_model`.

Resume is exact: the plan of batches is a function of data and seed, the learning rate of the step, and a checkpoint
holds weights, optimizers and random states. On a CPU a killed and resumed run ends in the same bits.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
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
from potstill.components.training.learner import Sums
from potstill.components.training.on_policy import OwnAnswers
from potstill.components.training.optimizers import learning_rate, make_optimizers
from potstill.components.training.ranks import end, make_accelerator, require_shares
from potstill.components.training.throughput import Speed
from potstill.core.errors import StepError
from potstill.core.memory import keep_freed_memory
from potstill.core.progress import progress_bar
from potstill.core.recipe import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.training.on_policy import OwnText

__all__ = ["Lesson", "TrainRow", "train_model"]

# a tied head is left out of every checkpoint, as it should be: no warning each time
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)

_VALIDATIONS = 10


class TrainRow(Protocol):
    """A row as the loop sees it: `ids` count against the budget of a batch, `n_supervised` weighs the row's loss."""

    @property
    def ids(self) -> tuple[int, ...]: ...
    @property
    def n_supervised(self) -> int: ...


class Lesson(Protocol):
    """What a model learns, and from whom: `learner.Objective` of a language model, `classifier.ClassObjective`."""

    @property
    def runs(self) -> PreTrainedModel | None:
        """The teacher that runs beside the student."""

    @property
    def own_text(self) -> OwnText | None:
        """How the student's own answers come in, where they do."""

    def balance(self) -> Balance | None:
        """What weighs the hidden-state loss anew in each step, where there is such a loss."""

    def batch(self, examples: Sequence[Any], pad_id: int) -> Any:
        """Rows as the learner takes them: with `labels`, one for each supervised token or row, and `to(device)`."""

    def learner(self, student: PreTrainedModel, vocab_size: int, autocast: bool) -> nn.Module:
        """A module whose forward makes `Sums` of a batch and the `Weights` of its kinds of loss."""

    def running(self, student: PreTrainedModel) -> AbstractContextManager[None]:
        """Within it, the models are set up to read such batches."""


@torch.no_grad()
def _validate(learner: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
    """Mean divergence and cross-entropy per supervised token or row, in nats."""
    totals, tokens = [0.0, 0.0], 0
    learner.eval()  # no dropout
    for batch in batches:
        sums: Sums = learner(batch)
        totals[0] += float(sums.divergence)
        totals[1] += float(sums.cross_entropy)
        tokens += len(batch.labels)
    learner.train()
    return {"validation_divergence": totals[0] / tokens, "validation_cross_entropy": totals[1] / tokens}


def _validations(
    learner: nn.Module, model: PreTrainedModel, batches: Sequence[Any], shallow: Sequence[int]
) -> dict[str, float]:
    """Losses on unseen rows, of the model and of its shallow part, if it has one; nothing without rows."""
    if not batches:
        return {}
    found = _validate(learner, batches)
    if shallow:
        with layers_alone(model, shallow):
            found |= {f"shallow_{key}": value for key, value in _validate(learner, batches).items()}
    return found


def _batch(objective: Lesson, pad_id: int, device: torch.device, rows: Sequence[TrainRow]) -> Any:
    return objective.batch(rows, pad_id).to(device)


def train_model(
    model: PreTrainedModel,
    objective: Lesson,
    examples: Sequence[TrainRow],
    validation: Sequence[TrainRow],
    schedule: Schedule,
    *,
    out: Path,
    name: str,
    vocab_size: int,
    pad_id: int,
    seed: int,
    tracker: str = "none",
    shallow: Sequence[int] = (),
) -> dict[str, Any]:
    """Train `model` in place; checkpoints, `NAME.log.jsonl` and tracker files go under `out`.

    The loss is the mean over supervised tokens (a classifier's: rows) of the global batch, over accumulation and ranks.
    With `shallow`, odd steps run and train those layers alone (LayerDrop, arXiv:1909.11556, with one fixed pattern).

    Returns:
        Summary: steps, tokens, seconds, final losses.

    Raises:
        StepError: the loss is no longer finite, or the processes cannot do this together.
    """
    accelerator = make_accelerator(out, tracker, name)
    steps = _plan(accelerator, schedule, examples, seed, bool(shallow))
    set_seed(seed)
    learner, optimizers = _prepare(accelerator, model, objective, vocab_size, schedule)
    balance = _balance(accelerator, objective)
    group_of = _groups(accelerator, model, objective, examples, steps, seed)
    first = resume(accelerator, out / name)
    unseen = token_batches([len(e.ids) for e in validation], schedule.batch_tokens)
    batch_of = partial(_batch, objective, pad_id, accelerator.device)
    advance = partial(_optimizer_step, accelerator, learner, optimizers, batch_of, schedule.max_grad_norm, balance)
    speed = Speed(model, objective.runs, schedule, accelerator.num_processes)
    started, values = time.monotonic(), dict[str, float]()
    with (
        objective.running(model),
        StepLog(out / f"{name}.log.jsonl", first, accelerator.is_main_process) as log,
        progress_bar(name, len(steps), first) as ticker,
    ):
        for step in range(first, len(steps)):
            group = group_of(step)
            with layers_alone(model, shallow if step % 2 else ()) as layers, speed.of(group) as timing:
                values = advance(group, learning_rate(schedule, step, len(steps)))
            _require_finite(values["loss"], name, step, log.path)
            if (step + 1) % max(1, len(steps) // _VALIDATIONS) == 0 or step + 1 == len(steps):
                held_out = [batch_of([validation[i] for i in rows]) for rows in unseen]
                values |= _validations(learner, model, held_out, shallow)
            log.write(step=step, layers=layers, **values, **timing)
            accelerator.log(values | timing, step=step)
            if (step + 1) % schedule.checkpoint_every == 0 and step + 1 < len(steps):
                save_checkpoint(accelerator, out / name, step + 1)
            ticker.advance(1, loss=values["loss"])
    end(accelerator, learner)
    counts = _counts(steps, examples) | {"seconds": round(time.monotonic() - started, 2), "resumed_at": first}
    return counts | {"final": values}


def _plan(
    accelerator: Accelerator, schedule: Schedule, examples: Sequence[TrainRow], seed: int, shallow: bool
) -> list[list[list[int]]]:
    """Rows of each micro-batch of each step; the same however many processes share them."""
    lengths = [len(e.ids) for e in examples]
    steps = plan_steps(lengths, schedule.batch_tokens, schedule.gradient_accumulation, schedule.epochs, seed)
    require_shares(accelerator, schedule, len(steps[0]), shallow)
    return steps


def _prepare(
    accelerator: Accelerator, model: PreTrainedModel, objective: Lesson, vocab_size: int, schedule: Schedule
) -> tuple[nn.Module, list[Any]]:
    """The wrapped learner and its optimizers; the teacher is frozen and beside it."""
    keep_freed_memory()
    if objective.runs is not None:
        moved(objective.runs.requires_grad_(False).eval(), accelerator.device)
    if schedule.activation_checkpointing:
        model.activation_checkpointing_enable()
    learner = objective.learner(model.train(), vocab_size, schedule.precision == "bf16")
    if schedule.precision == "bf16":
        learner.forward = torch.autocast(accelerator.device.type, torch.bfloat16)(learner.forward)
    layers = model.get_submodule(layer_list(model))
    wrapped, *optimizers = accelerator.prepare(learner, *make_optimizers(learner, layers, schedule))
    return wrapped, optimizers


def _groups(
    accelerator: Accelerator,
    model: PreTrainedModel,
    objective: Lesson,
    examples: Sequence[Any],
    steps: list[list[list[int]]],
    seed: int,
) -> Callable[[int], list[list[Any]]]:
    """Gives the micro-batches of a step, in which the student's own answers may stand for the teacher's."""
    if objective.own_text is None:
        return lambda step: [[examples[i] for i in rows] for rows in steps[step]]
    return OwnAnswers(objective.own_text, accelerator, model, examples, steps, seed).group


def _balance(accelerator: Accelerator, objective: Lesson) -> Balance | None:
    """The weight of the hidden-state loss, which checkpoints hold."""
    balance = objective.balance()
    if balance is not None:
        accelerator.register_for_checkpointing(balance)
    return balance


def _require_finite(loss: float, name: str, step: int, log: Path) -> None:
    if not math.isfinite(loss):
        raise StepError(f"{name}: the loss is {loss} at step {step}. Lower learning_rate, and look at {log}.")


def _counts(steps: list[list[list[int]]], examples: Sequence[TrainRow]) -> dict[str, Any]:
    """Steps and tokens of the whole run, over all ranks."""
    seen = [examples[i] for group in steps for batch in group for i in batch]
    return {
        "steps": len(steps),
        "supervised_tokens": sum(e.n_supervised for e in seen),
        "tokens": sum(len(e.ids) for e in seen),
    }


@contextmanager
def layers_alone(model: PreTrainedModel, kept: Sequence[int]) -> Iterator[int]:
    """Within it the model runs these of its layers alone; all of them where `kept` is empty. Yields their number."""
    if not kept:
        yield model.config.num_hidden_layers
        return
    whole: Any = model.base_model.layers
    try:
        model.base_model.layers = nn.ModuleList(whole[i] for i in kept)
        yield len(kept)
    finally:
        model.base_model.layers = whole


def _optimizer_step(
    accelerator: Accelerator,
    learner: nn.Module,
    optimizers: Sequence[Any],
    batch_of: Callable[[Sequence[TrainRow]], Any],
    max_grad_norm: float,
    balance: Balance | None,
    group: list[list[Any]],
    rate: float,
) -> dict[str, float]:
    """One optimizer step over this rank's share of the group's micro-batches; returns the log line's values.

    `balance` weighs the hidden-state loss by the steps before this one, and takes this one in.
    """
    for optimizer in optimizers:
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
    counts = Counts.of(group)
    weights = counts.weights(balance.current if balance else None)
    mine = group[accelerator.process_index :: accelerator.num_processes]
    totals: dict[str, Tensor] = {}
    for number, rows in enumerate(mine):
        with accelerator.no_sync(learner) if number + 1 < len(mine) else nullcontext():
            sums: Sums = learner(batch_of(rows), weights)
            # DDP averages gradients over ranks; the loss is a mean over all ranks' tokens
            accelerator.backward(sums.loss * accelerator.num_processes)
        for key, value in sums._asdict().items():
            if value is not None:
                totals[key] = totals.get(key, 0.0) + value.detach()
    norm = accelerator.clip_grad_norm_(learner.parameters(), max_grad_norm)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    reduced = accelerator.reduce(torch.stack(list(totals.values())), "sum").tolist()
    values = counts.means(dict(zip(totals, reduced, strict=True)))
    if balance:
        values["hidden_weight"] = balance.current
        if math.isfinite(values["loss"]):
            balance.weight(max(0.0, values["loss"] - balance.current * values["hidden"]), values["hidden"])
    norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    return values | {"grad_norm": norm, "learning_rate": rate, "tokens": counts.text + counts.own}
