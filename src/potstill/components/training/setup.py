"""Training of one model of a step: it is built, trained, and saved with its tokenizer, or found finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.models.layers import even_layers
from potstill.components.training.checkpoints import clear_checkpoints
from potstill.core.artifacts.base import parsed
from potstill.core.artifacts.training import TrainSummary
from potstill.core.environment import is_first_process
from potstill.core.errors import RecipeError, StepError
from potstill.core.files import read_json_object, replacing, write_json
from potstill.core.recipe import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.training.loop import TrainingTask, TrainRow

__all__ = ["TrainingSetup"]

_TITLES = {"model": "fine-tune the teacher", "student": "train the student", "control": "train the control"}


@dataclass(frozen=True)
class TrainingSetup:
    """What all models of a step share: rows, settings and tokenizer.

    examples        rows to train on
    validation      rows to measure on, perhaps none
    schedule        settings of the training
    vocab_size      number of tokens, without padding rows of the embedding
    pad_id          padding token of a model that names none
    tokenizer_from  folder of the tokenizer that is saved with each model
    out             the step's directory
    seed            seed of everything random
    shallow_layers  number of evenly spaced layers that are trained alone in every other step
    """

    examples: Sequence[TrainRow]
    validation: Sequence[TrainRow]
    schedule: Schedule
    vocab_size: int
    pad_id: int
    tokenizer_from: Path
    out: Path
    seed: int
    shallow_layers: int | None = None

    def fit(
        self,
        name: str,
        build: Callable[[], PreTrainedModel],
        task: TrainingTask,
        dtype: str = "float32",
        steps: int | None = None,
    ) -> TrainSummary:
        """Train the model that `build` makes, and save it as `out/NAME`. A finished model is not trained again.

        Args:
            name: name of the model's folder.
            build: makes the model with the weights that it starts from.
            task: what it learns.
            dtype: number format in which it is saved.
            steps: number of optimizer steps; None: as many as the schedule's epochs have.
        """
        from potstill.components.training.loop import LoopOptions, train_model
        from potstill.components.training.lora import add_lora
        from potstill.components.training.ranks import wait_for_all
        from potstill.components.training.students import save_model

        finished = self.out / f"{name}.summary.json"
        if finished.exists():
            self._clear(name)
            return _read_summary(finished)
        model = build()
        rank = self.schedule.lora_rank
        merge = add_lora(model, rank, self.seed) if rank else None
        pad_id = model.config.pad_token_id
        options = LoopOptions(
            out=self.out,
            name=name,
            vocab_size=self.vocab_size,
            pad_id=self.pad_id if pad_id is None else pad_id,
            seed=self.seed,
            title=_TITLES.get(name, f"train the rung {name}"),
            shallow=self._shallow(model.config.num_hidden_layers),
            steps=steps,
        )
        summary = train_model(model, task, self.examples, self.validation, self.schedule, options)
        if is_first_process():
            if merge:
                merge()
            save_model(model, self.tokenizer_from, self.out / name, dtype)
            write_json(finished, TrainSummary(**dict(summary), params=model.num_parameters()).to_json())
        wait_for_all()
        self._clear(name)
        return _read_summary(finished)

    def save_start(self, build: Callable[[], PreTrainedModel]) -> None:
        """Save the model that `build` makes as `out/start`, to be measured as it is before training."""
        from potstill.components.training.ranks import wait_for_all
        from potstill.components.training.students import save_model

        if is_first_process() and not (self.out / "start").is_dir():
            with replacing(self.out / "start") as temporary:
                save_model(build(), self.tokenizer_from, temporary)
        wait_for_all()

    def _clear(self, name: str) -> None:
        """Delete what only an unfinished training needs."""
        if is_first_process():
            clear_checkpoints(self.out / name)

    def _shallow(self, total: int) -> tuple[int, ...]:
        """Layers that are trained alone in every other step."""
        if not self.shallow_layers:
            return ()
        if self.shallow_layers >= total:
            raise RecipeError(
                f"teacher.finetune.shallow_layers: {self.shallow_layers} is not less than the model's {total} layers. "
                "Set a smaller number."
            )
        return even_layers(total, self.shallow_layers)


def _read_summary(path: Path) -> TrainSummary:
    value = read_json_object(path, error=StepError)
    return parsed(TrainSummary, value, str(path), f"Delete {path.parent} to run the step again.")
