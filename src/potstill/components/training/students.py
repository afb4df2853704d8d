"""Students before training: from the teacher's layers, from random weights, or from a checkpoint; and their saving."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.chat.template import TEMPLATE_FILES
from potstill.components.chat.trimming import Vocabulary
from potstill.components.models.layers import even_layers
from potstill.components.runtimes.load import layer_list, load_causal_lm
from potstill.components.training.pruning import cut_width, influential_layers, measure_importance
from potstill.components.training.vocabulary import cut_embedding
from potstill.core.errors import RecipeError
from potstill.core.recipe import Shape, Student, TeacherLayers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "StudentStart",
    "choose_layers",
    "from_scratch",
    "from_teacher_layers",
    "retied",
    "save_model",
]

_CALIBRATION_ROWS = 256  # generated rows on which importance is measured

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    *TEMPLATE_FILES,
    "special_tokens_map.json",
    "generation_config.json",
)


def from_teacher_layers(teacher: PreTrainedModel, layers: int, chosen: Sequence[int] | None = None) -> PreTrainedModel:
    """A model of the teacher's kind and width with `layers` of its layers, and with all other weights.

    The layers are `chosen`, or evenly spaced by default.
    """
    config = type(teacher.config).from_dict(teacher.config.to_dict())
    total = config.num_hidden_layers
    kept = list(chosen) if chosen is not None else even_layers(total, layers)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]
    student: PreTrainedModel = type(teacher)._from_config(config, dtype=torch.float32)
    source, prefix = teacher.state_dict(), f"{layer_list(teacher)}."
    state: dict[str, torch.Tensor] = {}
    for name in student.state_dict():
        index, _, rest = name.removeprefix(prefix).partition(".")
        old = f"{prefix}{kept[int(index)]}.{rest}" if name.startswith(prefix) else name
        state[name] = source[old].float()
    student.load_state_dict(state)
    return student


def from_scratch(shape: Shape, chat: ChatFormat, context: int, seed: int) -> PreTrainedModel:
    """A model with random weights; the same seed gives the same weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    pad = chat.tokenizer.token_to_id("<|endoftext|>")
    bos = chat.tokenizer.token_to_id(chat.bos) if chat.bos else None
    config = AutoConfig.for_model(
        shape.architecture,
        vocab_size=chat.vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads or shape.heads,
        head_dim=shape.head_dim or shape.hidden // shape.heads,
        max_position_embeddings=context,
        tie_word_embeddings=shape.tied,
        bos_token_id=bos,
        eos_token_id=chat.eos_id,
        pad_token_id=chat.eos_id if pad is None else pad,
    )
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


@dataclass(frozen=True)
class StudentStart:
    """Where a student's weights start.

    student      the recipe's section
    chat         the student's tokenizer, trimmed if the vocabulary is
    context      maximum length of a row, in tokens
    seed         seed of random weights
    teacher      the teacher, for a student that starts from its layers
    kept_layers  the teacher's layers that the student keeps, from `choose_layers`
    examples     rows in the teacher's token ids, on which the importance of its parts is measured
    checkpoint   folder of `student.model`, for a student that starts from a checkpoint
    vocabulary   the tokens that the student keeps; None: all
    """

    student: Student
    chat: ChatFormat
    context: int
    seed: int
    _: KW_ONLY
    teacher: PreTrainedModel | None = None
    kept_layers: Sequence[int] = ()
    examples: Sequence[Example] = ()
    checkpoint: Path | None = None
    vocabulary: Vocabulary | None = None

    def build(self) -> PreTrainedModel:
        """The student before training, in fp32; each call gives the same weights."""
        student = self.student
        if student.init == "scratch":
            return from_scratch(student.shape, self.chat, self.context, self.seed)
        if student.init == "teacher_layers":
            model = self._from_teacher(student)
        else:
            assert self.checkpoint is not None
            model = load_causal_lm(self.checkpoint)
        if student.tied not in (None, bool(model.config.tie_word_embeddings)):
            model = retied(model)
        if self.vocabulary is not None:
            cut_embedding(model, self.vocabulary)
        return model

    def _from_teacher(self, student: TeacherLayers) -> PreTrainedModel:
        """Depth is pruned first; then width, by what is measured on the shallower model."""
        assert self.teacher is not None
        model = from_teacher_layers(self.teacher, len(self.kept_layers), self.kept_layers)
        if not (student.hidden or student.ffn or student.kv_heads):
            return model
        importance = measure_importance(model, self.examples[:_CALIBRATION_ROWS])
        return cut_width(model, importance, hidden=student.hidden, ffn=student.ffn, kv_heads=student.kv_heads)


def choose_layers(student: TeacherLayers, teacher: PreTrainedModel, examples: Sequence[Example]) -> list[int]:
    """The teacher's layers that the student keeps; `examples` are in the teacher's token ids.

    Raises:
        RecipeError: the student wants more layers than the teacher has.
    """
    total = teacher.config.num_hidden_layers
    layers = student.layers or total
    if layers > total:
        raise RecipeError(f"student.layers: {layers} is more than the teacher's {total} layers.")
    if student.layer_choice == "influence":
        return influential_layers(measure_importance(teacher, examples[:_CALIBRATION_ROWS]), layers)
    return list(even_layers(total, layers))


def retied(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model with the other tying: a separate head that copies the embedding, or the embedding as head."""
    from transformers import AutoModelForCausalLM

    config = type(model.config).from_dict(model.config.to_dict())
    config.tie_word_embeddings = not config.tie_word_embeddings
    other: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    other.load_state_dict(model.state_dict())
    source: Any = model.get_input_embeddings()
    with torch.no_grad():
        other.get_input_embeddings().weight.copy_(source.weight)  # type: ignore[operator]
    return other


def save_model(model: PreTrainedModel, tokenizer_from: Path, out: Path, dtype: str = "float32") -> None:
    """Save the weights in `dtype`, with an unchanged copy of the tokenizer's files."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model.to(getattr(torch, dtype)).save_pretrained(out)
    for name in _TOKENIZER_FILES:
        if (tokenizer_from / name).is_file():
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(tokenizer_from / name, out / name)
