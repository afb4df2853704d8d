"""A student with its loss inside: one forward gives the loss of a batch, so that one module is all accelerate wraps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from potstill.components.chat.format import Example
from potstill.components.losses.alignment import DenseTeacher, linear_alignment_divergence
from potstill.components.losses.divergence import LossSums, linear_divergence
from potstill.components.losses.hidden import Balance
from potstill.components.losses.kernels import Kernel
from potstill.components.losses.sampled import linear_sampled_reverse_kl
from potstill.components.losses.sparse import SparseTargets, linear_sparse_divergence
from potstill.components.targets import SequenceKey, TargetsReader, sequence_key
from potstill.components.training.attention import grouped_attention
from potstill.components.training.batches import Batch, longest_first, pack
from potstill.components.training.counts import Weights
from potstill.components.training.forward import output_head, run_layers
from potstill.core.errors import StepError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.training.hidden import HiddenTeacher
    from potstill.components.training.on_policy import OwnText
    from potstill.components.training.readings import Reading, Readings

__all__ = ["Learner", "Objective", "Sums", "require_autocast"]

_IGNORED = -100


@dataclass(frozen=True)
class Objective:
    """What the student learns from: a teacher's distributions, computed beside it or `stored`, and the teacher's text.

    Without `teacher` and `stored` it is the text alone. With `hidden`, it learns from the teacher's hidden states too.
    With `kept`, the student has a trimmed vocabulary, and token n of its batches is the teacher's token `kept[n]`. With
    `readings`, the teacher has another tokenizer. With `own_text`, some answers are the student's own, and
    `own_divergence` is that on them: left out, the same as on the teacher's.
    """

    teacher: PreTrainedModel | None = None
    _: KW_ONLY
    stored: TargetsReader | None = None
    hidden: HiddenTeacher | None = None
    divergence: str = "forward_kl"
    parameters: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    hard_label_weight: float = 0.0
    kernel: Kernel = "auto"
    kept: Sequence[int] | None = None
    readings: Readings | None = None
    own_text: OwnText | None = None
    own_divergence: str | None = None

    @property
    def runs(self) -> PreTrainedModel | None:
        """The teacher that runs beside the student, for its distributions or its hidden states."""
        return self.teacher or (self.hidden.model if self.hidden else None)

    def targets(self, examples: Sequence[Example]) -> SparseTargets | None:
        """Stored targets of rows, laid end to end."""
        if self.stored is None:
            return None
        return SparseTargets.from_arrays(*self.stored.lookup(self.keys(examples)))

    def keys(self, examples: Sequence[Example]) -> list[SequenceKey]:
        """What rows are stored under: the teacher's tokens of them."""
        theirs = self.readings.teachers(examples) if self.readings else examples
        return [sequence_key(e.ids, e.n_prompt) for e in theirs]

    def batch(self, examples: Sequence[Example], pad_id: int) -> Batch:
        """Rows packed, with all that the teacher's side needs of them."""
        batch = pack(examples, pad_id, self.targets)
        return replace(batch, reading=self.readings.read(longest_first(examples))) if self.readings else batch

    def balance(self) -> Balance | None:
        """What weighs the hidden-state loss anew in each step."""
        return self.hidden.balance() if self.hidden else None

    def learner(self, student: PreTrainedModel, vocab_size: int, autocast: bool) -> Learner:
        """The student with this loss inside."""
        return Learner(student, self, vocab_size, autocast)

    def running(self, student: PreTrainedModel) -> AbstractContextManager[None]:
        """Within it, student and teacher read such batches."""
        return grouped_attention(student, self.runs)


class Sums(NamedTuple):
    """Sums over a batch, in nats, of what it has: `loss` carries the gradient, the others are for logs.

    `hidden` is the distance of hidden states over all tokens, the mean of layers; `own_divergence` over the tokens that
    the student drew itself; the others over the supervised tokens of the teacher's text.
    """

    loss: Tensor
    divergence: Tensor
    cross_entropy: Tensor
    student_mass: Tensor | None = None
    teacher_mass: Tensor | None = None
    hidden: Tensor | None = None
    own_divergence: Tensor | None = None


class Learner(nn.Module):
    """Sums of losses over a batch. `vocab_size` is the student's true one, without padding.

    With `Objective.kept` the teacher reads its own ids of the same tokens, at the same positions, and its head has the
    rows of the kept tokens alone: the softmax over them is its distribution given that a kept token comes next. The
    student cannot say any other, so against the whole distribution forward KL would be infinite wherever the teacher
    has mass on a dropped token; and the text never has one there, for what it has is kept.
    """

    def __init__(self, student: PreTrainedModel, objective: Objective, vocab_size: int, autocast: bool) -> None:
        super().__init__()
        self.student = student
        self._no_split_modules = student._no_split_modules  # what FSDP2 shards by
        self.vocab_size = vocab_size
        self.objective = objective
        self.autocast = autocast
        self.hidden = objective.hidden.loss(student) if objective.hidden else None
        self.vocab = objective.readings.vocab if objective.readings else None
        # in a tuple, so that the teacher is neither trained, wrapped, nor saved
        self.teacher = (objective.runs,)
        self.teacher_ids: tuple[Tensor, Tensor] | None = None
        if objective.runs is not None and objective.kept is not None:
            head_UG = output_head(objective.runs)
            kept_V = torch.tensor(objective.kept, device=head_UG.device)
            self.teacher_ids = (kept_V, head_UG.detach()[kept_V])

    def forward(self, batch: Batch, weights: Weights | None = None) -> Sums:
        """Sums over a batch; in `loss`, each kind times its weight, 1 where none is given."""
        weights = weights or Weights()
        device = batch.input_ids.device.type
        require_autocast(self.autocast, batch.input_ids.device)
        hidden = self.hidden if weights.hidden is not None else None
        own, taught = zip(*hidden.pairs, strict=True) if hidden else ((), ())
        teacher = self._run_teacher(batch, taught)
        student_NH, student_states = run_layers(self.student, batch, own)
        with torch.autocast(device, enabled=False):
            sums = self._logit_losses(batch, student_NH, teacher, weights)
        if hidden is None or weights.hidden is None or teacher is None:
            return sums
        found = hidden(student_states, teacher.states)
        return sums._replace(loss=sums.loss + weights.hidden * found.loss, hidden=found.loss.detach())

    def _logit_losses(self, batch: Batch, student_NH: Tensor, teacher: _Taught | None, weights: Weights) -> Sums:
        """The losses on the teacher's text and, where the batch has such, on the student's own."""
        if batch.own is None:
            text = self._logit_loss(batch, student_NH, teacher)
            none = text.loss.new_zeros(()) if self.objective.own_text else None
            return Sums(weights.text * text.loss, *text[1:], own_divergence=none)
        assert teacher is not None
        own = self._own_loss(batch, student_NH, teacher)
        if bool(batch.own.all()):
            none = own.divergence.new_zeros(())
            return Sums(weights.own * own.loss, none, none, own_divergence=own.divergence)
        theirs = replace(batch, labels=batch.labels.masked_fill(batch.own, _IGNORED))
        text = self._logit_loss(theirs, student_NH, teacher)
        loss = weights.text * text.loss + weights.own * own.loss
        return Sums(loss, *text[1:], own_divergence=own.divergence)

    def _own_loss(self, batch: Batch, student_NH: Tensor, teacher: _Taught) -> LossSums:
        """On what the student drew; there are no hard labels, for nobody says that it is right."""
        assert batch.own is not None and batch.drawn is not None
        objective, head_VH = self.objective, output_head(self.student)
        tokens_N = batch.labels.masked_fill(~batch.own, _IGNORED)
        if objective.own_divergence == "sampled_reverse_kl":
            return linear_sampled_reverse_kl(
                student_NH,
                head_VH,
                tokens_N,
                batch.drawn,
                teacher_NG=teacher.last_NG,
                teacher_head_VG=teacher.head_VG,
                temperature=objective.temperature,
                vocab_size=self.vocab_size,
            )
        divergence = objective.own_divergence or objective.divergence
        return self._dense_loss(student_NH, tokens_N, teacher, divergence, hard_label_weight=0.0)

    @torch.no_grad()
    def _run_teacher(self, batch: Batch, layers: Sequence[int]) -> _Taught | None:
        """One pass of the teacher, where anything is to be had from it."""
        model = self.teacher[0]
        if model is None or (self.objective.teacher is None and not layers):
            return None
        head_VG = output_head(model)
        if self.teacher_ids is not None:
            kept_V, head_VG = self.teacher_ids
            batch = replace(batch, input_ids=kept_V[batch.input_ids])
        if batch.reading is not None:
            last_TG, states = run_layers(model, batch.reading.batch, layers)
            return _Taught(last_TG.index_select(0, batch.reading.order), states, head_VG)
        return _Taught(*run_layers(model, batch, layers), head_VG)

    def _logit_loss(self, batch: Batch, student_NH: Tensor, teacher: _Taught | None) -> LossSums:
        objective, head_VH = self.objective, output_head(self.student)
        if batch.reading is not None:
            source = batch.targets or (DenseTeacher(teacher.last_NG, teacher.head_VG) if teacher else None)
            return self._aligned_loss(batch.reading, student_NH, source)
        if batch.targets is not None:
            return linear_sparse_divergence(
                student_NH,
                head_VH,
                batch.labels,
                batch.targets,
                temperature=objective.temperature,
                hard_label_weight=objective.hard_label_weight,
                vocab_size=self.vocab_size,
            )
        return self._dense_loss(
            student_NH, batch.labels, teacher, objective.divergence, hard_label_weight=objective.hard_label_weight
        )

    def _dense_loss(
        self,
        student_NH: Tensor,
        labels_N: Tensor,
        teacher: _Taught | None,
        divergence: str,
        hard_label_weight: float,
    ) -> LossSums:
        objective = self.objective
        return linear_divergence(
            student_NH,
            output_head(self.student),
            labels_N,
            teacher_NG=teacher.last_NG if teacher else None,
            teacher_head_VG=teacher.head_VG if teacher else None,
            objective=divergence,
            parameters=objective.parameters,
            temperature=objective.temperature,
            hard_label_weight=hard_label_weight,
            ignore_index=_IGNORED,
            vocab_size=self.vocab_size,
            kernel=objective.kernel,
        )

    def _aligned_loss(
        self, reading: Reading, student_NH: Tensor, teacher: DenseTeacher | SparseTargets | None
    ) -> LossSums:
        """Over spans of the answers. A sum over them is one over the tokens, by the chain rule, and is divided so."""
        assert self.vocab is not None and teacher is not None
        self.vocab = self.vocab.to(student_NH.device)
        sums = linear_alignment_divergence(
            student_NH,
            output_head(self.student),
            teacher,
            reading.spans,
            self.vocab,
            temperature=self.objective.temperature,
            hard_label_weight=self.objective.hard_label_weight,
        )
        return LossSums(sums.loss, sums.divergence + sums.sorted_distance, sums.cross_entropy)


class _Taught(NamedTuple):
    """What a pass of the teacher gives: last hidden states, those of its layers, and its head."""

    last_NG: Tensor
    states: dict[int, Tensor]
    head_VG: Tensor


def require_autocast(wanted: bool, device: torch.device) -> None:
    """Raise StepError where bf16 was asked for and is silently off."""
    if wanted and not torch.is_autocast_enabled(device.type):
        raise StepError(
            "trainer.precision is bf16, but autocast is off in the forward pass. Set precision: fp32 on this device."
        )
