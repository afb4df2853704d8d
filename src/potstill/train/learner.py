"""A student with its loss inside: one forward gives the loss of a batch, so that one module is all accelerate wraps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from potstill.chat import Example
from potstill.errors import StepError
from potstill.losses.divergence import LossSums, linear_divergence
from potstill.losses.divergence import Objective as Divergence
from potstill.losses.kernels import Kernel
from potstill.losses.sparse import SparseTargets, linear_sparse_divergence
from potstill.targets import TargetsReader, sequence_key
from potstill.train.batches import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Learner", "Objective", "hidden_states", "output_head"]


@dataclass(frozen=True)
class Objective:
    """What the student learns from: a teacher's distributions, computed beside it or `stored`, and the teacher's text.

    Without `teacher` and `stored` it is the text alone. With `kept`, the student has a trimmed vocabulary, and token n
    of its batches is the teacher's token `kept[n]`.
    """

    teacher: PreTrainedModel | None = None
    _: KW_ONLY
    stored: TargetsReader | None = None
    divergence: Divergence = "forward_kl"
    beta: float = 0.5
    alpha: float = 0.1
    temperature: float = 1.0
    hard_label_share: float = 0.0
    kernel: Kernel = "auto"
    kept: Sequence[int] | None = None

    def targets(self, examples: Sequence[Example]) -> SparseTargets | None:
        """Stored targets of rows, laid end to end."""
        if self.stored is None:
            return None
        return SparseTargets.from_arrays(*self.stored.lookup([sequence_key(e.ids, e.n_prompt) for e in examples]))


class Learner(nn.Module):
    """Sums of losses over a batch's supervised tokens. `vocab_size` is the student's true one, without padding.

    With `Objective.kept` the teacher reads its own ids of the same tokens, at the same positions, and its head has the
    rows of the kept tokens alone: the softmax over them is its distribution given that a kept token comes next. The
    student cannot say any other, so against the whole distribution forward KL would be infinite wherever the teacher
    has mass on a dropped token; and the text never has one there, for what it has is kept.
    """

    def __init__(self, student: PreTrainedModel, objective: Objective, vocab_size: int, autocast: bool) -> None:
        super().__init__()
        self.student = student
        self.vocab_size = vocab_size
        self.objective = objective
        self.autocast = autocast
        # in a tuple, so that the teacher is neither trained, wrapped, nor saved
        self.teacher = (objective.teacher,)
        self.teacher_ids: tuple[Tensor, Tensor] | None = None
        if objective.teacher is not None and objective.kept is not None:
            head_UG = output_head(objective.teacher)
            kept_V = torch.tensor(objective.kept, device=head_UG.device)
            self.teacher_ids = (kept_V, head_UG.detach()[kept_V])

    def forward(self, batch: Batch) -> LossSums:
        device = batch.input_ids.device.type
        if self.autocast and not torch.is_autocast_enabled(device):
            raise StepError(
                "train.precision is bf16, but autocast is off in the forward pass. Set precision: fp32 on this device."
            )
        objective = self.objective
        teacher = self.teacher[0]
        teacher_NG = teacher_head_VG = None
        if teacher is not None:
            with torch.no_grad():
                read, teacher_head_VG = batch, output_head(teacher)
                if self.teacher_ids is not None:
                    kept_V, teacher_head_VG = self.teacher_ids
                    read = replace(batch, input_ids=kept_V[batch.input_ids])
                teacher_NG = hidden_states(teacher, read)
        student_NH = hidden_states(self.student, batch)
        head_VH = output_head(self.student)
        with torch.autocast(device, enabled=False):
            if batch.targets is not None:
                return linear_sparse_divergence(
                    student_NH,
                    head_VH,
                    batch.labels,
                    batch.targets,
                    temperature=objective.temperature,
                    hard_label_share=objective.hard_label_share,
                    vocab_size=self.vocab_size,
                )
            return linear_divergence(
                student_NH,
                head_VH,
                batch.labels,
                teacher_NG=teacher_NG,
                teacher_head_VG=teacher_head_VG,
                objective=objective.divergence,
                beta=objective.beta,
                alpha=objective.alpha,
                temperature=objective.temperature,
                hard_label_share=objective.hard_label_share,
                vocab_size=self.vocab_size,
                kernel=objective.kernel,
            )


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Last hidden states (N, H) at the batch's supervised positions, under `grouped_attention`."""
    hidden: Tensor = model.base_model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, layout=batch.layout, use_cache=False
    ).last_hidden_state
    return hidden[0].index_select(0, batch.positions)


def output_head(model: PreTrainedModel) -> Tensor:
    """Output embedding (V, H), with the rows that only pad the vocabulary: a slice of it would be copied backward."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight
