"""On-policy distillation: in each step, some rows get an answer that the student samples, and the teacher scores it.

Sources: Agarwal et al. 2024, GKD (the mixture of both texts); Ko et al. 2025, DistiLLM-2 (a separate loss for each).
Samples depend only on the seed, the step and the weights, so a resumed run samples what the killed run would have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.training.batches import SampledAnswer
from potstill.core.artifacts.training import LogLine, SampleLengths
from potstill.core.errors import StepError
from potstill.core.recipe import OnPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["SamplingPlan", "StudentSamples", "sample_lengths"]

_PARTS = 10  # of a training, of which lengths are compared
Place = tuple[int, int, int]
"""Step, micro-batch of the step, row of the micro-batch."""


@dataclass(frozen=True)
class StudentSamples:
    """How the student samples answers of its own.

    settings        the recipe's section
    chat            the student's tokenizer
    context         maximum length of prompt and answer together, in tokens
    max_new_tokens  maximum length of an answer, in tokens
    prompts         prompts that only the student answers; if there are none, it answers some of the training rows
    """

    settings: OnPolicy
    chat: ChatFormat
    context: int
    max_new_tokens: int
    prompts: Sequence[Example] = ()


class _State(TypedDict):
    round: int
    answers: dict[Place, SampledAnswer]


@dataclass
class SamplingPlan:
    """The micro-batches of a run in which the student samples some answers, again every `refresh` steps.

    Each of several processes samples a part, and all get all answers, because the loss counts the tokens of the whole
    global batch.
    """

    samples: StudentSamples
    accelerator: Accelerator
    model: PreTrainedModel
    examples: Sequence[Example]
    steps: Sequence[Sequence[Sequence[int]]]
    seed: int
    round: int = -1
    answers: dict[Place, SampledAnswer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.accelerator.distributed_type == DistributedType.FSDP:
            raise StepError(
                "train.objective.on_policy needs whole weights to sample with, and FSDP shards them. "
                "Run without FSDP, or leave on_policy out."
            )
        self.accelerator.register_for_checkpointing(self)

    def group(self, step: int) -> list[list[Example]]:
        """The micro-batches of a step."""
        number = step // self.samples.settings.refresh
        if number != self.round:
            self.round, self.answers = number, self._sample(self._places(number))
        return [
            [self.answers.get((step, micro, row), self.examples[i]) for row, i in enumerate(rows)]
            for micro, rows in enumerate(self.steps[step])
        ]

    def _places(self, number: int) -> list[Place]:
        """Rows of a round that get a sampled answer; the same for the same seed."""
        settings = self.samples.settings
        first = number * settings.refresh
        found = []
        for step in range(first, min(first + settings.refresh, len(self.steps))):
            rng = np.random.default_rng([self.seed, step])
            for micro, rows in enumerate(self.steps[step]):
                chosen = rng.random(len(rows)) < settings.share
                found += [(step, micro, int(row)) for row in chosen.nonzero()[0]]
        return found

    def _sample(self, places: list[Place]) -> dict[Place, SampledAnswer]:
        mine = places[self.accelerator.process_index :: self.accelerator.num_processes]
        # rows of near-equal length are decoded together, with little padding
        mine.sort(key=lambda place: (self._row(place).n_prompt, place))
        sampled: list[tuple[Place, SampledAnswer]] = []
        with _decoding(self.model):
            runtime = HFRuntime(self.model, self.samples.chat, self.samples.context)
            for start in range(0, len(mine), runtime.batch_size):
                sampled += self._sample_batch(runtime, mine[start : start + runtime.batch_size])
        if self.accelerator.num_processes > 1:
            sampled = gather_object(sampled)
        return dict(sampled)

    def _sample_batch(self, runtime: HFRuntime, places: list[Place]) -> Iterator[tuple[Place, SampledAnswer]]:
        settings, rows = self.samples.settings, [self._row(place) for place in places]
        prompts = [list(row.ids[: row.n_prompt]) for row in rows]
        seeds = [_seed(self.seed, place) for place in places]
        sampling = Sampling(self.samples.max_new_tokens, settings.temperature)
        continuations = runtime.continue_ids(prompts, seeds, sampling)
        for place, prompt, answer in zip(places, prompts, continuations, strict=True):
            if answer.ids:  # a prompt that fills the context leaves no room for an answer
                ids = (*prompt, *answer.ids)
                yield place, SampledAnswer(ids, len(prompt), answer.stopped, tuple(answer.log_probs))

    def _row(self, place: Place) -> Example:
        """The row whose prompt the student answers."""
        if prompts := self.samples.prompts:
            return prompts[int(np.random.default_rng([self.seed, *place]).integers(len(prompts)))]
        step, micro, row = place
        return self.examples[self.steps[step][micro][row]]

    def state_dict(self) -> _State:
        """What an exact resume within a round needs."""
        return {"round": self.round, "answers": self.answers}

    def load_state_dict(self, state: _State) -> None:
        """Continue from `state_dict`."""
        self.round, self.answers = state["round"], state["answers"]


def sample_lengths(log: Sequence[LogLine], text: Sequence[int]) -> SampleLengths | None:
    """How long the sampled answers were at the beginning and at the end of a training; None without any.

    Args:
        log: all steps.
        text: length of the teacher's text of each row, in tokens.
    """
    found = [line for line in log if line.sampled_length is not None and line.sampled_cut_off is not None]
    if not found:
        return None
    part = max(1, len(found) // _PARTS)
    return SampleLengths(
        text=sum(text) / len(text),
        first=sum(line.sampled_length or 0.0 for line in found[:part]) / part,
        last=sum(line.sampled_length or 0.0 for line in found[-part:]) / part,
        cut_off=sum(line.sampled_cut_off or 0.0 for line in found[-part:]) / part,
    )


def _seed(seed: int, place: Place) -> int:
    return int(hashlib.sha256(f"{seed}\0{place}".encode()).hexdigest()[:15], 16)


@contextmanager
def _decoding(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, the model decodes with a cache and without dropout, although it is being trained."""
    implementation, training = model.config._attn_implementation, model.training
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)
        model.train(training)
