"""Models to train: from the teacher's layers, from scratch, from a checkpoint; and how each is saved."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from potstill.components.chat.format import ChatFormat, Example
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
    "build_student",
    "from_scratch",
    "from_teacher_layers",
    "kept_layers",
    "save_model",
]

_CALIBRATION_ROWS = 256  # of the generated data, on which importance is measured

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
)


def from_teacher_layers(teacher: PreTrainedModel, layers: int, chosen: Sequence[int] | None = None) -> PreTrainedModel:
    """A model of the teacher's own kind and width that holds `layers` of its layers; the rest is carried over whole.

    `chosen` says which; otherwise they are evenly spaced.
    """
    config = type(teacher.config).from_dict(teacher.config.to_dict())
    total = config.num_hidden_layers
    kept = list(chosen) if chosen is not None else even_layers(total, layers)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]
    student: PreTrainedModel = type(teacher)._from_config(config, dtype=torch.float32)
    source, prefix = teacher.state_dict(), f"{layer_list(teacher)}."
    state: dict[str, Any] = {}
    for name in student.state_dict():
        index, _, rest = name.removeprefix(prefix).partition(".")
        old = f"{prefix}{kept[int(index)]}.{rest}" if name.startswith(prefix) else name
        state[name] = source[old].float()
    student.load_state_dict(state)
    return student


def from_scratch(shape: Shape, chat: ChatFormat, context: int, seed: int) -> PreTrainedModel:
    """A randomly initialised model; the same seed gives the same weights."""
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


def build_student(
    student: Student,
    teacher: PreTrainedModel | None,
    checkpoint: Path | None,
    chat: ChatFormat,
    context: int,
    seed: int,
    examples: Sequence[Example],
    kept: Sequence[int],
    vocabulary: Vocabulary | None = None,
) -> PreTrainedModel:
    """The student before training, in fp32.

    Args:
        student: the recipe's section.
        teacher: the teacher; None for an endpoint.
        checkpoint: folder of `student.model`, where it starts from one.
        chat: the student's own tokenizer, trimmed where it is to be.
        context: most tokens of a row.
        seed: of random weights.
        examples: rows in the teacher's ids, on which its parts are measured.
        kept: of `kept_layers`.
        vocabulary: the tokens to keep of those that the teacher or the checkpoint has; None: all.
    """
    if student.init == "scratch":
        return from_scratch(student, chat, context, seed)
    if student.init == "teacher_layers":
        assert teacher is not None
        model = _cut(student, teacher, examples, kept)
    else:
        assert checkpoint is not None
        model = load_causal_lm(checkpoint)
    if student.tied not in (None, bool(model.config.tie_word_embeddings)):
        model = _retied(model)
    if vocabulary is not None:
        cut_embedding(model, vocabulary)
    return model


def kept_layers(student: TeacherLayers, teacher: PreTrainedModel, examples: Sequence[Example]) -> list[int]:
    """Layers of the teacher that a student cut out of it has; `examples` are in the teacher's ids.

    Raises:
        RecipeError: more layers than the teacher has.
    """
    total = teacher.config.num_hidden_layers
    layers = student.layers or total
    if layers > total:
        raise RecipeError(f"student.layers: {layers} is more than the teacher's {total} layers.")
    if student.layer_choice == "influence":
        return influential_layers(measure_importance(teacher, examples[:_CALIBRATION_ROWS]), layers)
    return list(even_layers(total, layers))


def _cut(
    student: TeacherLayers, teacher: PreTrainedModel, examples: Sequence[Example], kept: Sequence[int]
) -> PreTrainedModel:
    """Depth first, then width, by its own measurement."""
    cut = from_teacher_layers(teacher, len(kept), kept)
    if not (student.hidden or student.ffn or student.kv_heads):
        return cut
    importance = measure_importance(cut, examples[:_CALIBRATION_ROWS])
    return cut_width(cut, importance, hidden=student.hidden, ffn=student.ffn, kv_heads=student.kv_heads)


def _retied(model: PreTrainedModel) -> PreTrainedModel:
    """The model with a head of its own, at first a copy of the embedding; or, where it has one, with the embedding."""
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
    """Save weights in `dtype` and, beside them, the tokenizer's own files unchanged."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model.to(getattr(torch, dtype)).save_pretrained(out)
    for name in _TOKENIZER_FILES:
        if (tokenizer_from / name).is_file():
            shutil.copyfile(tokenizer_from / name, out / name)
