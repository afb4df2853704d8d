"""Losses on rows that are not trained on, from before the first step to after the last, and the weights that did best.

The weights of the best measurement so far are in a file of their own next to the checkpoints. A checkpoint holds all
measurements up to its step, so a resumed run chooses what the whole run would have chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from potstill.components.training.checkpoints import BEST_WEIGHTS
from potstill.components.training.forward import layers_alone
from potstill.components.training.learner import Sums
from potstill.core.artifacts.training import ValidationPoint
from potstill.core.errors import StepError
from potstill.core.files import replacing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Validation", "mean_losses"]

_MEASUREMENTS = 10


class Validation:
    """Measures a model at about ten steps of its training, and before it.

    Args:
        accelerator: of this training; its checkpoints include the measurements.
        learner: the model with its loss, as it is trained.
        model: the model.
        batches: makes the batches of all validation rows; empty without rows.
        steps: number of optimizer steps of the training.
        folder: where the model's checkpoints are.
        shallow: layers that are also trained alone.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        learner: nn.Module,
        model: PreTrainedModel,
        batches: Callable[[], Sequence[Any]],
        *,
        steps: int,
        folder: Path,
        shallow: Sequence[int] = (),
    ) -> None:
        self.points: list[ValidationPoint] = []
        self._accelerator, self._learner, self._model = accelerator, learner, model
        self._batches, self._steps, self._shallow = batches, steps, shallow
        self._folder = folder / BEST_WEIGHTS
        self._resumable = -1  # the best step of which the newest checkpoint knows
        accelerator.register_for_checkpointing(self)

    def is_due(self, done: int) -> bool:
        """Whether to measure after `done` steps."""
        return done % max(1, self._steps // _MEASUREMENTS) == 0 or done == self._steps

    def measure(self, done: int) -> dict[str, float]:
        """Measure after `done` steps, and keep the weights if they are the best so far; values for the log.

        Raises:
            StepError: the loss is not finite.
        """
        batches = self._batches()
        if not batches:
            return {}
        values = self._losses(batches)
        loss = values.pop("loss")
        if not math.isfinite(loss):
            raise StepError(f"the loss on validation rows is {loss} after {done} steps. Lower learning_rate.")
        alone = {key: values.pop(key) for key in [*values] if key.startswith("shallow_")}
        self.points.append(ValidationPoint(step=done, loss=loss, **values))
        if self.best == done < self._steps:
            self._save(done)
        return {"validation_loss": loss} | {f"validation_{key}": value for key, value in values.items()} | alone

    @property
    def best(self) -> int:
        """Number of steps after which the loss was lowest; all steps if there are no validation rows."""
        return min(self.points, key=lambda point: (point.loss, -point.step)).step if self.points else self._steps

    def checkpoint_saved(self) -> None:
        """Forget weights that no checkpoint needs any more."""
        self._resumable = self.best
        self._prune()

    @torch.no_grad()
    def restore(self) -> None:
        """Give the model the best weights, if they are not its last. Its weights must be gathered again, or absent."""
        if self.best == self._steps:
            return
        best = load_file(self._path(self.best))
        for name, weight in self._model.named_parameters():
            if weight.requires_grad and weight.numel():
                weight.copy_(best[name])

    def state_dict(self) -> dict[str, Any]:
        """All measurements, for a checkpoint."""
        return {"points": [point.model_dump() for point in self.points]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.points = [ValidationPoint(**point) for point in state["points"]]
        self._resumable = self.best

    def _losses(self, batches: Sequence[Any]) -> dict[str, float]:
        """Losses of the model and of its shallow layers. `loss` is the mean of both, as training minimizes both."""
        found = mean_losses(self._learner, batches)
        if self._shallow:
            with layers_alone(self._model, self._shallow):
                alone = mean_losses(self._learner, batches)
            found["loss"] = (found["loss"] + alone.pop("loss")) / 2
            found |= {f"shallow_validation_{key}": value for key, value in alone.items()}
        # all processes must agree on what is best, to the last bit
        shared = broadcast(torch.tensor(list(found.values()), dtype=torch.float64, device=self._accelerator.device))
        return dict(zip(found, shared.tolist(), strict=True))

    def _path(self, step: int) -> Path:
        return self._folder / f"{step}.safetensors"

    def _save(self, step: int) -> None:
        """Write the weights that are trained. Shards are gathered, which all processes do together."""
        weights = {name: _whole(w) for name, w in self._model.named_parameters() if w.requires_grad}
        if self._accelerator.is_main_process:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path(step)) as temporary:
                save_file(weights, temporary)
            self._prune()

    def _prune(self) -> None:
        needed = {self._path(step) for step in (self.best, self._resumable)}
        if self._accelerator.is_main_process:
            for path in self._folder.glob("*.safetensors"):
                if path not in needed:
                    path.unlink()


def _whole(weight: Tensor) -> Tensor:
    weight = weight.detach()
    return (weight.full_tensor() if isinstance(weight, DTensor) else weight).cpu().contiguous()


@torch.no_grad()
def mean_losses(learner: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
    """Means per supervised token or row, in nats."""
    totals, tokens = dict.fromkeys(("loss", "divergence", "cross_entropy"), 0.0), 0
    learner.eval()  # no dropout
    for batch in batches:
        sums: Sums = learner(batch)
        for key in totals:
            totals[key] += float(getattr(sums, key))
        tokens += len(batch.labels)
    learner.train()
    return {key: total / tokens for key, total in totals.items()}
