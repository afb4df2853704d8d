"""The models a recipe names, looked at from outside: tokenizer, template, config.json; no weight is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from potstill.components.chat.format import ChatFormat, load_chat, resolve_model
from potstill.components.chat.trimming import require_trimmable
from potstill.components.models.anatomy import Anatomy
from potstill.components.models.arithmetic import ARCHITECTURES, ModelShape, gguf_header_bytes, parameter_count
from potstill.components.models.configs import from_config
from potstill.components.models.safetensors import safetensors_parameters
from potstill.core.errors import RecipeError
from potstill.core.recipe.recipe import Recipe, Student

__all__ = ["Model", "Models", "load_models"]

# what the losses do not know: the model's logits would not be a plain product of hidden state and head
_RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
_ROPES = ("default", "linear", "yarn")


@dataclass(frozen=True)
class Model:
    """A model of the run.

    name        as the recipe has it; a local folder's own name
    folder      where its tokenizer is
    shape       None for an architecture whose arithmetic is not known
    parameters  None for a hub model that is not here yet, of such an architecture
    download    bytes of weights that the hub will send, estimated at two bytes a parameter; 0 when they are here
    """

    name: str
    folder: Path
    chat: ChatFormat
    config: dict[str, Any]
    shape: ModelShape | None
    parameters: int | None
    download: int = 0

    @property
    def padded_vocab(self) -> int:
        """Rows of the embedding."""
        return int(self.config.get("vocab_size", self.chat.vocab_size))

    @cached_property
    def tokenizer_model(self) -> dict[str, Any]:
        """The `model` section of tokenizer.json: type, vocabulary, merges."""
        return dict(json.loads(self.chat.tokenizer.to_str())["model"])


@dataclass(frozen=True)
class Models:
    """Teacher (None behind an endpoint) and student; the student's `shape` and `parameters` are always known."""

    teacher: Model | None
    student: Model

    @property
    def student_shape(self) -> ModelShape:
        """The student's shape."""
        assert self.student.shape is not None
        return self.student.shape

    @cached_property
    def student_anatomy(self) -> Anatomy:
        """The student as its GGUF will hold it, header included."""
        shape, chat = self.student_shape, self.student.chat
        config = {
            "architectures": [next(name for name, kind in ARCHITECTURES.items() if kind == shape.architecture)],
            "vocab_size": shape.vocab, "hidden_size": shape.hidden, "intermediate_size": shape.ffn,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "tie_word_embeddings": shape.tied,
            "attention_bias": shape.attention_bias, "mlp_bias": shape.mlp_bias,
            "max_position_embeddings": shape.context,
            "rope_scaling": {"rope_type": "llama3"} if shape.rope_divisors else None,
        }  # fmt: skip
        tokenizer = self.student.tokenizer_model
        pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer.get("merges", [])]
        tokens = chat.tokenizer.get_vocab(with_added_tokens=True)
        header = gguf_header_bytes(shape, tokens, None if tokenizer.get("byte_fallback") else pairs, chat.template)
        return replace(from_config(config, "the student"), header_bytes=header)


def load_models(recipe: Recipe) -> Models:
    """Teacher and student of a recipe.

    Raises:
        RecipeError: a model, its tokenizer or its template cannot be had, or they cannot work together; the message
            names the recipe's key and the folder.
    """
    teacher = _teacher(recipe) if recipe.teacher.kind == "local" else None
    student = _student(recipe, teacher)
    _check_export(recipe, student)
    if recipe.student.vocabulary == "workload":
        # training trims it when all answers have been generated, and paid for
        source = student.folder / "tokenizer.json"
        require_trimmable(json.loads(source.read_text(encoding="utf-8")), str(source))
    if teacher and student.folder != teacher.folder and recipe.train.objective != "sft":
        _check_tokenizers(recipe, teacher, student)
    return Models(teacher, student)


def _load(key: str, name: str, revision: str | None, recipe: Recipe) -> Model:
    """A model with weights of its own; from the hub only its small files are fetched."""
    local = Path(name).expanduser().is_dir()
    folder = resolve_model(name, revision, weights=local)
    config = _read_config(folder / "config.json")
    chat = load_chat(folder, recipe.chat.template)
    shape = _shape(config, folder)
    here = local or any(folder.glob("model*.safetensors"))
    if shape:
        parameters: int | None = parameter_count(shape)
        if here:
            safetensors_parameters(folder)  # tells of files that are missing or cut
    else:
        parameters = safetensors_parameters(folder) if here else None
    model = Model(
        name=folder.name if local else name,
        folder=folder,
        chat=chat,
        config=config,
        shape=shape,
        parameters=parameters,
        download=0 if here else 2 * (parameters or 0),
    )
    if model.padded_vocab < chat.vocab_size:
        raise RecipeError(
            f"{key}: {folder}: the tokenizer has {chat.vocab_size} tokens, but the model's vocabulary (vocab_size in "
            f"config.json) only {model.padded_vocab}. The folder mixes two models, or tokens were added without "
            "model.resize_token_embeddings(len(tokenizer))."
        )
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and longest < recipe.chat.context:
        raise RecipeError(
            f"chat.context: {recipe.chat.context} tokens are more than the {longest} that {key} ({folder}) was made "
            f"for (max_position_embeddings). Set chat.context to {longest} at most."
        )
    rescaled = [name for name in _RESCALED if config.get(name)]
    if rescaled:
        raise RecipeError(
            f"{key}: {folder}: the model rescales its logits ({rescaled[0]} in config.json), which the losses do not "
            "know. Choose another model."
        )
    return model


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RecipeError(f"{path}: no such file, so this is not a whole Hugging Face model. Save or copy it again.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{path}: not valid JSON ({error}). Save or copy the model again.") from None
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: must hold a JSON object. Save or copy the model again.")
    return value


def _shape(config: dict[str, Any], folder: Path) -> ModelShape | None:
    """The shape, None for an unknown architecture."""
    if (config.get("architectures") or [None])[0] not in ARCHITECTURES:
        return None
    try:
        return ModelShape.from_config(config)
    except ValueError as error:
        raise RecipeError(f"{folder / 'config.json'}: {error}. Save or copy the model again.") from None


def _teacher(recipe: Recipe) -> Model:
    """The teacher; with `teacher.finetune.shape` only its tokenizer is there."""
    settings, tune = recipe.teacher, recipe.teacher.finetune
    if tune is None or tune.shape is None:
        return _load("teacher.model", settings.model, settings.revision, recipe)
    folder = resolve_model(settings.model, settings.revision, weights=False)
    chat = load_chat(folder, recipe.chat.template)
    shape = ModelShape.from_recipe_shape(tune.shape, chat.vocab_size, recipe.chat.context)
    return Model(_name(settings.model, folder), folder, chat, {}, shape, parameter_count(shape))


def _name(model: str, folder: Path) -> str:
    return folder.name if Path(model).expanduser().is_dir() else model


def _student(recipe: Recipe, teacher: Model | None) -> Model:
    settings = recipe.student
    if settings.init == "checkpoint":
        assert settings.model is not None
        model = _load("student.model", settings.model, None, recipe)
        if settings.tied is None or model.shape is None:
            return model
        retied = replace(model.shape, tied=settings.tied)
        return replace(model, shape=retied, parameters=parameter_count(retied))
    assert teacher is not None  # the recipe refuses an endpoint here
    if settings.init == "scratch":
        assert settings.shape is not None
        shape = ModelShape.from_recipe_shape(settings.shape, teacher.chat.vocab_size, recipe.chat.context)
        return Model("from scratch", teacher.folder, teacher.chat, {}, shape, parameter_count(shape))
    _check_cut(settings, teacher)
    shape_or_none = None
    if teacher.shape:
        was = teacher.shape
        kv_heads = settings.kv_heads or was.kv_heads
        shape_or_none = replace(
            was,
            layers=settings.layers or was.layers,
            hidden=settings.hidden or was.hidden,
            ffn=settings.ffn or was.ffn,
            kv_heads=kv_heads,
            heads=kv_heads * (was.heads // was.kv_heads),
            tied=was.tied if settings.tied is None else settings.tied,
        )
    parameters = parameter_count(shape_or_none) if shape_or_none else None
    return Model("teacher's layers", teacher.folder, teacher.chat, teacher.config, shape_or_none, parameters)


def _check_cut(settings: Student, teacher: Model) -> None:
    """Raise RecipeError where more is to be kept than the teacher has."""
    was, config = teacher.shape, teacher.config
    has = {
        "layers": was.layers if was else config.get("num_hidden_layers"),
        "hidden": was.hidden if was else config.get("hidden_size"),
        "ffn": was.ffn if was else config.get("intermediate_size"),
        "kv_heads": was.kv_heads if was else config.get("num_key_value_heads"),
    }
    for key, total in has.items():
        wanted = getattr(settings, key)
        if wanted is not None and total is not None and wanted > total:
            raise RecipeError(f"student.{key}: {wanted} is more than the teacher's {total} {_PARTS[key]}.")


_PARTS = {"layers": "layers", "hidden": "hidden channels", "ffn": "FFN channels", "kv_heads": "key-value heads"}


def _check_export(recipe: Recipe, student: Model) -> None:
    """Raise RecipeError for a student that the export step would refuse after everything has been paid for."""
    config, own = student.config, recipe.student.model is not None
    key = "student.model" if own else "student.init"
    if student.shape is None:
        found = (config.get("architectures") or ["(none named)"])[0]
        raise RecipeError(
            f"{key}: {student.folder}: a student of architecture {found} cannot be exported to GGUF; "
            f"{', '.join(ARCHITECTURES)} can. {'Choose another checkpoint.' if own else 'Set student.init: scratch.'}"
        )
    kind, window = student.shape.architecture, config.get("sliding_window")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    activation = config.get("hidden_act", "silu")
    ropes = (*_ROPES, "llama3") if kind == "llama" else _ROPES
    slides = kind == "llama" and isinstance(window, int) and window < (student.shape.context or 0)
    problems = {
        f"hidden_act is {activation!r}, not SiLU": activation not in ("silu", "swish"),
        "the weights are quantized already (quantization_config)": bool(config.get("quantization_config")),
        "attention_bias is set, unknown to llama.cpp's qwen3": kind == "qwen3" and student.shape.attention_bias,
        f"attention slides over {window} tokens": slides,
        f"rope type {rope_type!r} is not known": rope_type not in ropes,
        f"its tokenizer is {student.tokenizer_model['type']}, not BPE": student.tokenizer_model["type"] != "BPE",
    }
    problem = next((text for text, there in problems.items() if there), None)
    if problem:
        raise RecipeError(
            f"{key}: {student.folder}: the student cannot be exported to GGUF: {problem}. Choose another model to "
            "start from."
        )


def _check_tokenizers(recipe: Recipe, teacher: Model, student: Model) -> None:
    """Raise RecipeError where an id does not mean the same token to both, and the recipe compares them by id."""
    reader = recipe.token_by_token
    if teacher.chat.tokenizer_hash == student.chat.tokenizer_hash or reader is None:
        return
    ours, theirs = (_by_id(model.chat) for model in (student, teacher))
    first = min(i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i))
    raise RecipeError(
        f"student.model: its tokenizer is not the teacher's, so {reader} cannot compare them token by token: "
        f"{student.folder} has {len(ours)} tokens, {teacher.folder} has {len(theirs)}, and they differ first at id "
        f"{first} ({ours.get(first)!r} against {theirs.get(first)!r}). Choose a student of the teacher's family, or "
        "use train.objective: forward_kl, which compares spans of text, without hidden, on_policy or fidelity's gates."
    )


def _by_id(chat: ChatFormat) -> dict[int, str]:
    return {index: token for token, index in chat.tokenizer.get_vocab(with_added_tokens=True).items()}
