"""A student with its loss inside: one forward pass computes the loss of a batch, so accelerate wraps a single module.

Shapes: N supervised tokens, H student's hidden size, G teacher's, V vocabulary, U the teacher's whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, replace
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
from potstill.core.recipe.objective import Divergence, ForwardKL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.training.alignments import AlignedBatch, Alignments
    from potstill.components.training.hidden import HiddenTeacher
    from potstill.components.training.on_policy import StudentSamples

__all__ = ["LanguageTask", "Learner", "Sums", "TeacherOutputs", "require_autocast"]

_IGNORED = -100
_FORWARD_KL = ForwardKL(name="forward_kl")


@dataclass(frozen=True)
class LanguageTask:
    """What a language model learns from: text, and a teacher's distributions, either computed online or stored.

    teacher          computes its distributions while the student trains
    objective        the divergence from the teacher; without a teacher, nothing of it is read
    stored           the teacher's stored distributions, instead of `teacher`
    hidden           a teacher of hidden states
    kernel           implementation of the loss
    kept_ids         for a trimmed vocabulary: token n of the student's is the teacher's token kept_ids[n]
    alignments       for a teacher with another tokenizer: the rows in its tokens
    student_samples  how the student samples answers, if it learns from its own too
    """

    teacher: PreTrainedModel | None = None
    _: KW_ONLY
    objective: Divergence = _FORWARD_KL
    stored: TargetsReader | None = None
    hidden: HiddenTeacher | None = None
    kernel: Kernel = "auto"
    kept_ids: Sequence[int] | None = None
    alignments: Alignments | None = None
    student_samples: StudentSamples | None = None

    @property
    def online_teacher(self) -> PreTrainedModel | None:
        """The teacher that runs while the student trains, for its distributions or its hidden states."""
        return self.teacher or (self.hidden.model if self.hidden else None)

    def targets(self, examples: Sequence[Example]) -> SparseTargets | None:
        """Stored targets of rows, in the order of the rows."""
        if self.stored is None:
            return None
        return SparseTargets.from_arrays(*self.stored.lookup(self.keys(examples)))

    def keys(self, examples: Sequence[Example]) -> list[SequenceKey]:
        """Keys under which rows are stored; they are made from the teacher's tokens."""
        theirs = self.alignments.teacher_rows(examples) if self.alignments else examples
        return [sequence_key(e.ids, e.n_prompt) for e in theirs]

    def batch(self, examples: Sequence[Example], pad_id: int) -> Batch:
        """Packed rows, with all that the teacher's side needs."""
        batch = pack(examples, pad_id, self.targets)
        return replace(batch, aligned=self.alignments.batch(longest_first(examples))) if self.alignments else batch

    def balance(self) -> Balance | None:
        """The weight of the hidden-state loss, which changes from step to step."""
        return self.hidden.balance() if self.hidden else None

    def learner(self, student: PreTrainedModel, vocab_size: int, autocast: bool) -> Learner:
        """The student with this loss inside."""
        return Learner(student, self, vocab_size, autocast)

    def prepared(self, student: PreTrainedModel) -> AbstractContextManager[None]:
        """Within the block, student and teacher accept packed batches."""
        return grouped_attention(student, self.online_teacher)


class Sums(NamedTuple):
    """Sums over a batch, in nats. `loss` carries the gradient, and the others are for the log.

    `hidden` is the distance of hidden states over all tokens, averaged over layers. `sampled_divergence` is over the
    tokens that the student sampled. The others are over the supervised tokens of the teacher's text.
    """

    loss: Tensor
    divergence: Tensor
    cross_entropy: Tensor
    student_mass: Tensor | None = None
    teacher_mass: Tensor | None = None
    hidden: Tensor | None = None
    sampled_divergence: Tensor | None = None


class TeacherOutputs(NamedTuple):
    """What one pass of the teacher gives: its last hidden states, those after some layers, and its output head."""

    last_NG: Tensor
    states: dict[int, Tensor]
    head_VG: Tensor


class Learner(nn.Module):
    """Computes the sums of losses over a batch. `vocab_size` is the student's number of tokens, without padding rows.

    With `LanguageTask.kept_ids`, the teacher reads its own ids of the same tokens, at the same positions, and its head
    has only the rows of the kept tokens. The softmax over those is the teacher's distribution given that a kept token
    comes next. The student has no other tokens, so against the whole distribution the forward KL would be infinite
    wherever the teacher gives mass to a dropped token. The text never contains a dropped token.
    """

    def __init__(self, student: PreTrainedModel, task: LanguageTask, vocab_size: int, autocast: bool) -> None:
        super().__init__()
        self.student = student
        self._no_split_modules = student._no_split_modules  # the units that FSDP2 shards
        self.vocab_size = vocab_size
        self.task = task
        self.autocast = autocast
        self.hidden = task.hidden.loss(student) if task.hidden else None
        self.vocab = task.alignments.vocab if task.alignments else None
        # in a tuple, so that the teacher is not trained, wrapped or saved
        self.teacher = (task.online_teacher,)
        self.teacher_ids: tuple[Tensor, Tensor] | None = None
        if task.online_teacher is not None and task.kept_ids is not None:
            head_UG = output_head(task.online_teacher)
            kept_V = torch.tensor(task.kept_ids, device=head_UG.device)
            self.teacher_ids = (kept_V, head_UG.detach()[kept_V])

    def forward(self, batch: Batch, weights: Weights | None = None) -> Sums:
        """Sums over a batch; in `loss`, each kind of loss is multiplied by its weight (default: 1)."""
        weights = weights or Weights()
        device = batch.input_ids.device.type
        require_autocast(self.autocast, batch.input_ids.device)
        hidden = self.hidden if weights.hidden is not None else None
        student_layers, teacher_layers = zip(*hidden.pairs, strict=True) if hidden else ((), ())
        teacher = self._run_teacher(batch, teacher_layers)
        student_NH, student_states = run_layers(self.student, batch, student_layers)
        with torch.autocast(device, enabled=False):
            sums = self._logit_losses(batch, student_NH, teacher, weights)
        if hidden is None or weights.hidden is None or teacher is None:
            return sums
        found = hidden(student_states, teacher.states)
        return sums._replace(loss=sums.loss + weights.hidden * found.loss, hidden=found.loss.detach())

    @torch.no_grad()
    def _run_teacher(self, batch: Batch, layers: Sequence[int]) -> TeacherOutputs | None:
        """One forward pass of the teacher, if the task needs one."""
        model = self.teacher[0]
        if model is None or (self.task.teacher is None and not layers):
            return None
        head_VG = output_head(model)
        if self.teacher_ids is not None:
            kept_V, head_VG = self.teacher_ids
            batch = replace(batch, input_ids=kept_V[batch.input_ids])
        if batch.aligned is not None:
            last_TG, states = run_layers(model, batch.aligned.batch, layers)
            return TeacherOutputs(last_TG.index_select(0, batch.aligned.order), states, head_VG)
        return TeacherOutputs(*run_layers(model, batch, layers), head_VG)

    def _logit_losses(self, batch: Batch, student_NH: Tensor, teacher: TeacherOutputs | None, weights: Weights) -> Sums:
        """The losses on the teacher's text and, if the batch has such, on the student's samples."""
        if batch.sampled is None:
            text = self._text_loss(batch, student_NH, teacher)
            none = text.loss.new_zeros(()) if self.task.student_samples else None
            return Sums(weights.text * text.loss, *text[1:], sampled_divergence=none)
        assert teacher is not None
        sampled = self._sampled_loss(batch, student_NH, teacher)
        if bool(batch.sampled.all()):
            none = sampled.divergence.new_zeros(())
            return Sums(weights.sampled * sampled.loss, none, none, sampled_divergence=sampled.divergence)
        theirs = replace(batch, labels=batch.labels.masked_fill(batch.sampled, _IGNORED))
        text = self._text_loss(theirs, student_NH, teacher)
        loss = weights.text * text.loss + weights.sampled * sampled.loss
        return Sums(loss, *text[1:], sampled_divergence=sampled.divergence)

    def _text_loss(self, batch: Batch, student_NH: Tensor, teacher: TeacherOutputs | None) -> LossSums:
        """The loss on the teacher's text."""
        objective = self.task.objective
        if batch.aligned is not None:
            source = batch.targets or (DenseTeacher(teacher.last_NG, teacher.head_VG) if teacher else None)
            return self._aligned_loss(batch.aligned, student_NH, source)
        if batch.targets is not None:
            return linear_sparse_divergence(
                student_NH,
                output_head(self.student),
                batch.labels,
                batch.targets,
                temperature=objective.temperature,
                hard_label_weight=objective.hard_label_weight,
                vocab_size=self.vocab_size,
            )
        return self._dense_loss(
            student_NH, batch.labels, teacher, objective.losses[0], hard_label_weight=objective.hard_label_weight
        )

    def _sampled_loss(self, batch: Batch, student_NH: Tensor, teacher: TeacherOutputs) -> LossSums:
        """The loss on the student's samples. It has no hard labels, because nothing says that a sample is right."""
        assert batch.sampled is not None and batch.sampled_logprobs is not None
        tokens_N = batch.labels.masked_fill(~batch.sampled, _IGNORED)
        loss = self.task.objective.losses[1]
        if loss == "sampled_reverse_kl":
            return linear_sampled_reverse_kl(
                student_NH,
                output_head(self.student),
                tokens_N,
                batch.sampled_logprobs,
                teacher_NG=teacher.last_NG,
                teacher_head_VG=teacher.head_VG,
                temperature=self.task.objective.temperature,
                vocab_size=self.vocab_size,
            )
        return self._dense_loss(student_NH, tokens_N, teacher, loss, hard_label_weight=0.0)

    def _dense_loss(
        self,
        student_NH: Tensor,
        labels_N: Tensor,
        teacher: TeacherOutputs | None,
        divergence: str,
        hard_label_weight: float,
    ) -> LossSums:
        objective = self.task.objective
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
            kernel=self.task.kernel,
        )

    def _aligned_loss(
        self, aligned: AlignedBatch, student_NH: Tensor, teacher: DenseTeacher | SparseTargets | None
    ) -> LossSums:
        """The loss over spans of the answers. By the chain rule its sum over spans is one over tokens, and is divided
        by their number."""
        assert self.vocab is not None and teacher is not None
        self.vocab = self.vocab.to(student_NH.device)
        sums = linear_alignment_divergence(
            student_NH,
            output_head(self.student),
            teacher,
            aligned.spans,
            self.vocab,
            temperature=self.task.objective.temperature,
            hard_label_weight=self.task.objective.hard_label_weight,
        )
        return LossSums(sums.loss, sums.divergence + sums.sorted_distance, sums.cross_entropy)


def require_autocast(wanted: bool, device: torch.device) -> None:
    """Raise StepError if bf16 was requested and autocast is off."""
    if wanted and not torch.is_autocast_enabled(device.type):
        raise StepError(
            "trainer.precision is bf16, but autocast is off in the forward pass. Set precision: fp32 on this device."
        )
