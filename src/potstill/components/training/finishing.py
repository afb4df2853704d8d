"""Finish a quantized file: train its weights through the file's own format, with the checkpoint as the teacher.

The model in memory always has the values that the file would have: each matrix is quantized by the function that writes
files, and read back. Gradients are taken at those values and move latent weights of full precision, from which the
values are made again: the straight-through estimator (Bengio et al., 2013, arXiv:1308.3432). Tensors that the file
stores in F32, such as norms, are trained as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from potstill.components.chat.format import Example
from potstill.components.conversion.convert import file_types
from potstill.components.conversion.quantize import stored_values
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.batches import Batch, token_batches
from potstill.components.training.learner import LanguageTask
from potstill.components.training.students import save_model
from potstill.components.training.validation import mean_losses
from potstill.core.artifacts.exported import Finished, FinishPoint
from potstill.core.errors import StepError
from potstill.core.progress import progress_bar
from potstill.core.recipe import Finish

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from transformers import PreTrainedModel

__all__ = ["FinishTask", "LatentWeights", "finish_weights", "whole_rows"]

_MEASUREMENTS = 10
_PATIENCE = 2
"""The training stops after this many measurements in a row that are worse than the best."""
_BATCH_TOKENS = 4096
_MAX_GRAD_NORM = 1.0


class LatentWeights:
    """Weights of full precision behind a model that has the values of a quantized file.

    Args:
        model: gets the file's values at once, and again with each `refresh`.
        types: the file's type of each parameter, by the parameter's name.
    """

    def __init__(self, model: PreTrainedModel, types: Mapping[str, GGMLQuantizationType]) -> None:
        self._model, self._types = model, types
        self._latent: dict[str, nn.Parameter] = {}
        self.direct: list[nn.Parameter] = []
        """Parameters that the file stores in F32."""
        for name, parameter in model.named_parameters():
            if types[name].name == "F32":
                self.direct.append(parameter)
            else:
                self._latent[name] = nn.Parameter(parameter.detach().clone())
        self.refresh()

    @property
    def latent(self) -> list[nn.Parameter]:
        """The weights from which the quantized values are made."""
        return list(self._latent.values())

    @torch.no_grad()
    def refresh(self) -> None:
        """Give the model the file's values of the latent weights."""
        for name, latent in self._latent.items():
            values = stored_values(latent.detach().cpu().numpy(), self._types[name])
            self._model.get_parameter(name).copy_(torch.from_numpy(values))

    def take_gradients(self) -> None:
        """Move the gradients of the model's quantized values to the latent weights."""
        for name, latent in self._latent.items():
            parameter = self._model.get_parameter(name)
            latent.grad, parameter.grad = parameter.grad, None

    def state(self) -> dict[str, Tensor]:
        """Copies of all weights in full precision, by the parameter's name."""
        weights = dict(self._model.named_parameters()) | self._latent
        return {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to weights of `state`."""
        weights = dict(self._model.named_parameters()) | self._latent
        for name, value in state.items():
            weights[name].copy_(value)
        self.refresh()


@dataclass(frozen=True)
class FinishTask:
    """What is finished.

    checkpoint    folder of the model that was converted
    quantization  the file's quantization
    examples      rows to train on
    held_out      rows to measure on
    vocab_size    number of tokens, without padding rows of the embedding
    pad_id        token id of padding
    seed          of the order of rows
    """

    checkpoint: Path
    quantization: str
    examples: Sequence[Example]
    held_out: Sequence[Example]
    vocab_size: int
    pad_id: int
    seed: int


def whole_rows(examples: Sequence[Example]) -> list[Example]:
    """The rows with every token supervised but the first: the teacher has a distribution for those of prompts too."""
    return [replace(example, n_prompt=1) for example in examples]


def finish_weights(task: FinishTask, settings: Finish, out: Path) -> tuple[Finished, dict[str, NDArray[np.float32]]]:
    """Train a quantized model, and write a checkpoint from which the converter makes its file.

    The mean KL from the checkpoint is measured on the held-out rows before the first step and about ten times after it.
    After two measurements in a row that are worse than the best, the training stops. The weights of the best
    measurement are kept; those of before the first step, if no later ones are better.

    Args:
        task: what is finished.
        settings: the recipe's.
        out: folder of the new checkpoint.

    Returns:
        What happened, and the values that each tensor must have in the file, by the checkpoint's name of the tensor.

    Raises:
        StepError: there are no held-out rows.
    """
    if not task.held_out:
        raise StepError("export.finish needs validation rows, on which it is measured. Set data.validation.")
    started = time.monotonic()
    teacher, student = load_causal_lm(task.checkpoint), load_causal_lm(task.checkpoint)
    weights = LatentWeights(student, file_types(task.checkpoint, task.quantization))
    watch = _train(task, settings, teacher.eval(), student, weights)
    weights.restore(watch.best)
    values = {name: p.detach().numpy().copy() for name, p in student.named_parameters()}
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            parameter.copy_(watch.best[name])
    save_model(student, task.checkpoint, out)
    finished = Finished(
        steps=settings.steps,
        stopped=watch.stopped,
        kept=watch.kept.step,
        rows=settings.rows,
        learning_rate=settings.learning_rate,
        norm_learning_rate=settings.norm_learning_rate,
        held_out_rows=len(task.held_out),
        held_out_tokens=sum(example.n_supervised for example in task.held_out),
        kl_before=watch.points[0].kl,
        kl_after=watch.kept.kl,
        points=tuple(watch.points),
        seconds=round(time.monotonic() - started, 3),
    )
    return finished, values


@dataclass
class _Watch:
    """Measures the model on held-out batches, and keeps the weights of the best measurement.

    stopped   number of steps after which it was last asked
    """

    learner: nn.Module
    held_out: Sequence[Batch]
    weights: LatentWeights
    points: list[FinishPoint] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    stopped: int = 0

    def measure(self, step: int) -> bool:
        """Measure after so many steps; returns whether to go on."""
        self.stopped = step
        kl = mean_losses(self.learner, self.held_out)["divergence"]
        if not math.isfinite(kl):
            return False
        if all(kl < point.kl for point in self.points):
            self.best = self.weights.state()
        self.points.append(FinishPoint(step=step, kl=kl))
        return self.kept in self.points[-_PATIENCE - 1 :]

    @property
    def kept(self) -> FinishPoint:
        """The best measurement."""
        return min(self.points, key=lambda point: point.kl)


def _train(
    task: FinishTask, settings: Finish, teacher: PreTrainedModel, student: PreTrainedModel, weights: LatentWeights
) -> _Watch:
    language = LanguageTask(teacher)
    learner = language.learner(student, task.vocab_size, autocast=False)
    optimizer = torch.optim.AdamW(
        [
            {"params": weights.latent, "lr": settings.learning_rate},
            {"params": weights.direct, "lr": settings.norm_learning_rate},
        ],
        betas=(0.9, 0.95), weight_decay=0.0,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
    lengths = [len(example.ids) for example in task.held_out]
    held_out = [
        language.batch([task.held_out[i] for i in rows], task.pad_id) for rows in token_batches(lengths, _BATCH_TOKENS)
    ]
    watch = _Watch(learner, held_out, weights)
    every = max(1, settings.steps // _MEASUREMENTS)
    with language.prepared(student), progress_bar("finish the file", settings.steps) as ticker:
        going = watch.measure(0)
        groups = _groups(len(task.examples), settings.rows, task.seed)
        for step in range(1, settings.steps + 1):
            batch = language.batch([task.examples[i] for i in next(groups)], task.pad_id)
            loss = learner(batch).loss / len(batch.labels)
            value = float(loss.detach())
            if not going or not math.isfinite(value):
                break
            loss.backward()
            weights.take_gradients()
            nn.utils.clip_grad_norm_([*weights.latent, *weights.direct], _MAX_GRAD_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            weights.refresh()
            ticker.advance(1, loss=value)
            if step % every == 0 or step == settings.steps:
                going = watch.measure(step)
    return watch


def _rate(step: int, steps: int) -> float:
    """Factor of the learning rates: linear warm-up in the first tenth, then cosine decay to 0."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _groups(rows: int, size: int, seed: int) -> Iterator[list[int]]:
    """Row numbers of each step: all rows in random order, again and again."""
    rng = np.random.default_rng(seed)
    left: list[int] = []
    while True:
        while len(left) < size:
            left += rng.permutation(rows).tolist()
        yield left[:size]
        left = left[size:]
