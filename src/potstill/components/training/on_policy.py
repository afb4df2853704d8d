"""On-policy distillation: some rows of each step get the student's own answer, which the teacher then scores.

Sources: Agarwal et al. 2024, GKD (the mixture of both texts); Ko et al. 2025, DistiLLM-2 (a loss of its own for each).
What is drawn depends on the seed, the step and the weights alone, so a run that resumes draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.training.batches import OwnAnswer
from potstill.core.errors import StepError
from potstill.core.recipe import OnPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["OwnAnswers", "OwnText"]

Place = tuple[int, int, int]
"""Step, micro-batch of the step, row of the micro-batch."""


@dataclass(frozen=True)
class OwnText:
    """How the student writes its own answers: the recipe's section, its tokenizer, most tokens of a row."""

    settings: OnPolicy
    chat: ChatFormat
    context: int


@dataclass
class OwnAnswers:
    """The plan of a run with the student's own answers in it, which are drawn anew every `refresh` steps.

    With several processes each draws a part, and all get all: they count the tokens of the whole global batch.
    """

    how: OwnText
    accelerator: Accelerator
    model: PreTrainedModel
    examples: Sequence[Example]
    steps: Sequence[Sequence[Sequence[int]]]
    seed: int
    round: int = -1
    answers: dict[Place, OwnAnswer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.accelerator.distributed_type == DistributedType.FSDP:
            raise StepError("train.objective.on_policy needs whole weights to sample with, and FSDP shards them.")
        self.accelerator.register_for_checkpointing(self)

    def group(self, step: int) -> list[list[Example]]:
        """The micro-batches of a step."""
        number = step // self.how.settings.refresh
        if number != self.round:
            self.round, self.answers = number, self._draw(self._places(number))
        return [
            [self.answers.get((step, micro, row), self.examples[i]) for row, i in enumerate(rows)]
            for micro, rows in enumerate(self.steps[step])
        ]

    def _places(self, number: int) -> list[Place]:
        """Rows of this round whose answer is the student's, the same for a seed."""
        first = number * self.how.settings.refresh
        found = []
        for step in range(first, min(first + self.how.settings.refresh, len(self.steps))):
            rng = np.random.default_rng([self.seed, step])
            for micro, rows in enumerate(self.steps[step]):
                chosen = rng.random(len(rows)) < self.how.settings.share
                found += [(step, micro, int(row)) for row in chosen.nonzero()[0]]
        return found

    def _draw(self, places: list[Place]) -> dict[Place, OwnAnswer]:
        mine = places[self.accelerator.process_index :: self.accelerator.num_processes]
        # rows of near-equal length are decoded together with little padding
        mine.sort(key=lambda place: (self._row(place).n_prompt, place))
        drawn: list[tuple[Place, OwnAnswer]] = []
        with _decoding(self.model):
            runtime = HFRuntime(self.model, self.how.chat, self.how.context)
            for start in range(0, len(mine), runtime.batch_size):
                drawn += self._draw_batch(runtime, mine[start : start + runtime.batch_size])
        if self.accelerator.num_processes > 1:
            drawn = gather_object(drawn)
        return dict(drawn)

    def _draw_batch(self, runtime: HFRuntime, places: list[Place]) -> Iterator[tuple[Place, OwnAnswer]]:
        settings, rows = self.how.settings, [self._row(place) for place in places]
        prompts = [list(row.ids[: row.n_prompt]) for row in rows]
        seeds = [_seed(self.seed, place) for place in places]
        sampling = Sampling(settings.max_new_tokens, settings.temperature)
        for place, prompt, said in zip(places, prompts, runtime.continue_ids(prompts, seeds, sampling), strict=True):
            if said.ids:  # a prompt that fills the context has room for no answer
                ids = (*prompt, *said.ids)
                yield place, OwnAnswer(ids, len(prompt), said.stopped, tuple(said.log_probs))

    def _row(self, place: Place) -> Example:
        step, micro, row = place
        return self.examples[self.steps[step][micro][row]]

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume within a round needs."""
        return {"round": self.round, "answers": self.answers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.round, self.answers = state["round"], state["answers"]


def _seed(seed: int, place: Place) -> int:
    return int(hashlib.sha256(f"{seed}\0{place}".encode()).hexdigest()[:15], 16)


@contextmanager
def _decoding(model: PreTrainedModel) -> Iterator[None]:
    """The model as it decodes, amid training: attention over a cache, no dropout."""
    implementation, training = model.config._attn_implementation, model.training
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)
        model.train(training)
