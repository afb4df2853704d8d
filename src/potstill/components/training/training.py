"""One trained model of a step: built, trained, saved with its tokenizer, and found again when it is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.components.models.layers import even_layers
from potstill.core.environment import is_first_process
from potstill.core.errors import RecipeError
from potstill.core.files import read_json_object, write_json
from potstill.core.recipe import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.training.loop import Lesson, TrainRow

__all__ = ["Training"]


@dataclass(frozen=True)
class Training:
    """What all models of a step are trained on and with. `pad_id` is for a model that names no padding of its own."""

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
        self, name: str, build: Callable[[], PreTrainedModel], objective: Lesson, dtype: str = "float32"
    ) -> dict[str, Any]:
        """Train the model that `build` makes and save it as `out/NAME`; one that is finished is not trained again.

        Returns the summary, with `params`.
        """
        from potstill.components.training.loop import train_model
        from potstill.components.training.lora import add_lora
        from potstill.components.training.ranks import wait_for_all
        from potstill.components.training.students import save_model

        finished = self.out / f"{name}.summary.json"
        if finished.exists():
            return read_json_object(finished)
        model = build()
        rank = self.schedule.lora_rank
        merge = add_lora(model, rank, self.seed) if rank else None
        pad_id, total = model.config.pad_token_id, model.config.num_hidden_layers
        if self.shallow_layers and self.shallow_layers >= total:
            raise RecipeError(
                f"teacher.finetune.shallow_layers: {self.shallow_layers} of {total}, which are all that the model has. "
                "Give fewer."
            )
        summary = train_model(
            model,
            objective,
            self.examples,
            self.validation,
            self.schedule,
            out=self.out,
            name=name,
            vocab_size=self.vocab_size,
            pad_id=self.pad_id if pad_id is None else pad_id,
            seed=self.seed,
            tracker=self.schedule.tracker,
            shallow=even_layers(total, self.shallow_layers) if self.shallow_layers else (),
        )
        if is_first_process():
            if merge:
                merge()
            save_model(model, self.tokenizer_from, self.out / name, dtype)
            write_json(finished, summary | {"params": model.num_parameters()})
            for checkpoint in (self.out / name).glob("checkpoint*"):
                shutil.rmtree(checkpoint)
        wait_for_all()
        return read_json_object(finished)
