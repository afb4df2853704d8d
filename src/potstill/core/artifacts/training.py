"""What training leaves: the fine-tuned teacher, the student and its control, their logs, and stored targets."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from potstill.core.artifacts.base import Artifact, Part, read_parts
from potstill.core.format import format_percent

__all__ = [
    "Finetuned",
    "LogLine",
    "LoopSummary",
    "SampleLengths",
    "ServedRowCounts",
    "StepValues",
    "StoreStats",
    "StoredTargets",
    "TrainSummary",
    "Trained",
    "TrainedRungs",
    "ValidationPoint",
    "log_path",
    "read_log",
]

_TOO_LONG = 1.25  # mean length of samples over that of the teacher's text; less may be chance


class StepValues(Part):
    """Values of one optimizer step; None for what the training does not have.

    loss                  what the optimizer minimizes
    divergence            from the teacher, on the teacher's text, in nats per supervised token (a classifier's: row)
    cross_entropy         of the text, in nats per supervised token (a classifier's: row)
    student_mass          the student's mean probability mass on the tokens of stored targets
    teacher_mass          the teacher's, on the same tokens
    hidden                distance of hidden states, mean over tokens and layers
    hidden_weight         weight of `hidden` in the loss
    sampled_divergence    from the teacher, on the student's samples, in nats per sampled token
    sampled_length        mean length of the student's samples, in tokens with the end token
    sampled_cut_off       share of the student's samples that did not end
    grad_norm             norm of the gradient before it is clipped
    learning_rate         learning rate of the step
    tokens                supervised tokens (a classifier's: rows) of the global batch
    validation_*          the same on rows that are not trained on, after the step; None where it does not measure them
    shallow_validation_*  the same for the layers that are also trained alone
    """

    loss: float
    divergence: float | None = None
    cross_entropy: float | None = None
    student_mass: float | None = None
    teacher_mass: float | None = None
    hidden: float | None = None
    hidden_weight: float | None = None
    sampled_divergence: float | None = None
    sampled_length: float | None = None
    sampled_cut_off: float | None = None
    grad_norm: float
    learning_rate: float
    tokens: int
    validation_loss: float | None = None
    validation_divergence: float | None = None
    validation_cross_entropy: float | None = None
    shallow_validation_divergence: float | None = None
    shallow_validation_cross_entropy: float | None = None


class LogLine(StepValues):
    """A line of `NAME.log.jsonl`.

    step          number of the optimizer step, from 0
    layers        number of layers that the step ran
    tokens_per_s  all tokens of the global batch per second
    mfu           useful operations as a fraction of what the machine can do (model FLOPs utilization)
    """

    step: int
    layers: int
    tokens_per_s: float
    mfu: float


def log_path(folder: Path, name: str) -> Path:
    """The training log of a model."""
    return folder / f"{name}.log.jsonl"


def read_log(folder: Path, name: str) -> list[LogLine]:
    """The training log of a model; empty if there is none."""
    path = log_path(folder, name)
    return read_parts(path, LogLine) if path.is_file() else []


class ValidationPoint(Part):
    """Losses on rows that are not trained on, in nats per supervised token (a classifier's: row).

    step   number of optimizer steps before the measurement
    loss   what the optimizer minimizes, without the losses on hidden states of a language model and on samples
    """

    step: int
    loss: float
    divergence: float
    cross_entropy: float


class SampleLengths(Part):
    """Mean length of the answers that a student sampled during a training, in tokens with the end token.

    text      of the teacher's text
    first     in the first tenth of the steps
    last      in the last tenth of the steps
    cut_off   share of the samples in the last tenth of the steps that did not end
    """

    text: float
    first: float
    last: float
    cut_off: float

    @property
    def too_long(self) -> bool:
        """Whether the samples ended up longer than the teacher's text."""
        return self.last > _TOO_LONG * self.text

    def sentence(self, model: str) -> str:
        """What is wrong, and what to do."""
        return (
            f"The answers that the {model} sampled in the last tenth of its steps have {self.last:.3g} tokens on "
            f"average, and {format_percent(self.cut_off)} of them were cut off. The teacher's text has {self.text:.3g} "
            f"tokens, and the samples in the first tenth of the steps had {self.first:.3g}. Lower "
            "train.objective.on_policy.share or train.learning_rate, or start from a student that was fine-tuned on "
            "the teacher's text."
        )


class LoopSummary(Part):
    """What a training did.

    steps              optimizer steps
    kept               steps after which the kept weights were reached: those with the lowest loss on validation rows,
                       or all steps where there are no such rows
    learning_rate      peak learning rate
    precision          number format of the forward pass, where the recipe's may be `auto`
    supervised_tokens  tokens that were learnt from, each as often as it was seen
    tokens             all tokens of those rows
    seconds            wall-clock seconds of all steps, over all calls; steps that were lost with a killed call and done
                       again count once
    resumed_at         step at which the last call went on; 0 for a training that was not interrupted
    final              values of the last step
    samples            lengths of the student's samples; None for a training without samples
    validation         losses on validation rows, from before the first step to after the last; empty without rows
    """

    steps: int
    kept: int
    learning_rate: float
    precision: Literal["fp32", "bf16"]
    supervised_tokens: int
    tokens: int
    seconds: float
    resumed_at: int
    final: StepValues
    samples: SampleLengths | None = None
    validation: tuple[ValidationPoint, ...] = ()


class TrainSummary(LoopSummary):
    """A trained model.

    params   number of parameters
    """

    params: int

    def findings(self, model: str, key: str) -> list[str]:
        """A sentence about the kept weights if they are not the last, about a training that made the model worse, and
        about samples that are too long.

        Args:
            model: what was trained, such as "student".
            key: section of the recipe with its learning rate.
        """
        long = [self.samples.sentence(model)] if self.samples and self.samples.too_long else []
        return [*long, *self._kept_weights(model, key)]

    def _kept_weights(self, model: str, key: str) -> list[str]:
        if self.kept == self.steps:
            return []
        first, last = self.validation[0].loss, self.validation[-1].loss
        kept = min(point.loss for point in self.validation)
        which = f"of step {self.kept:,} of {self.steps:,}" if self.kept else "that it had before training"
        if last <= first:
            return [
                f"The {model} keeps the weights {which}, because their loss on validation rows is the lowest: "
                f"{kept:.3g} nats, compared with {last:.3g} after the last step."
            ]
        return [
            f"The training of the {model} ended worse than it started: its loss on validation rows rose from "
            f"{first:.3g} to {last:.3g} nats. The {model} keeps the weights {which} ({kept:.3g} nats). "
            f"Lower {key}.learning_rate, which is {self.learning_rate:g}."
        ]


class Finetuned(Artifact):
    """The fine-tuned teacher; its weights are in `model`."""

    FILE: ClassVar[str] = "summary.json"
    FORMAT: ClassVar[int] = 3

    model: TrainSummary

    def findings(self) -> list[str]:
        """What a person must know about this training."""
        return self.model.findings("teacher", "teacher.finetune")


class Trained(Artifact):
    """The student and its control, if there is one; their weights are in `student` and `control`.

    Where the student does not start from random weights, `start` holds its weights before training.

    vocabulary   number of tokens in the student's vocabulary
    """

    FILE: ClassVar[str] = "summary.json"
    FORMAT: ClassVar[int] = 3

    student: TrainSummary
    control: TrainSummary | None
    vocabulary: int

    def findings(self) -> list[str]:
        """What a person must know about these trainings."""
        control = self.control.findings("control", "train") if self.control else []
        return [*self.student.findings("student", "train"), *control]


class TrainedRungs(Artifact):
    """The models of the worth ladder that are trained in addition to the student and its control.

    The weights of each are in the folder of its name. A model is named by its rung, and by the number of
    its training seed from the second on: `labels`, `text-2`.

    models          what each training did, by the model's name
    labelled_rows   number of rows with right answers that `labels` learnt from
    """

    FILE: ClassVar[str] = "summary.json"
    FORMAT: ClassVar[int] = 2

    models: dict[str, TrainSummary]
    labelled_rows: int


class StoreStats(Part):
    """Size and fidelity of a targets store; divergences in nats per token, measured when the store was written.

    kind, draws, k, vocab_size, temperature, seed, dtype and the hashes are those of the store's own meta.json.

    shards, sequences, tokens, bytes     numbers of each in the store
    bytes_per_token, ids_per_token       None for an empty store
    entropy                              of the teacher
    tail_mass                            the teacher's mass on tokens that are not stored
    kl_stored_teacher                    counts: KL(stored || teacher), which is the sampling noise
    bias, bias_standard_error            counts: mean of -ln p over the samples less the entropy of p; the bias is 0
                                         within its standard error if the samples are unbiased
    kl_buckets                           top_k: KL(teacher || stored) over the k tokens and one bucket of all others
    kl_even_tail                         top_k: the same over all tokens, with the tail spread evenly
    """

    kind: Literal["counts", "top_k"]
    draws: int | None = None
    k: int | None = None
    vocab_size: int
    teacher_hash: str
    tokenizer_hash: str
    template_hash: str
    temperature: float
    seed: int | None = None
    dtype: str
    shards: int
    sequences: int
    tokens: int
    bytes: int
    bytes_per_token: float | None
    ids_per_token: float | None
    entropy: float
    tail_mass: float
    kl_stored_teacher: float | None = None
    bias: float | None = None
    bias_standard_error: float | None = None
    kl_buckets: float | None = None
    kl_even_tail: float | None = None


class ServedRowCounts(Part):
    """Rows that an endpoint answered: with its distributions, or as text only, by reason.

    distributions   the endpoint's log-probabilities are the targets
    tool_calls      text only: the endpoint parsed the tool calls, so the tokens are not known
    no_log_probs    text only: the endpoint gave no log-probabilities
    other_tokens    text only: the student splits the answer into other tokens
    """

    distributions: int = 0
    tool_calls: int = 0
    no_log_probs: int = 0
    other_tokens: int = 0


class StoredTargets(Artifact):
    """The teacher's stored distributions; the store is in `store`.

    rows   how many rows of an endpoint have distributions; None for a local teacher
    """

    FILE: ClassVar[str] = "summary.json"

    store: StoreStats
    rows: ServedRowCounts | None
