"""The models that a recipe names: tokenizer, chat template and config.json. No weight is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from potstill.components.chat.format import ChatFormat, ChatSettings
from potstill.components.chat.tokenizer_files import MOST_TOKENIZER_BYTES
from potstill.components.chat.trimming import require_trimmable
from potstill.components.models.architectures import EXPORTABLE, rescaled
from potstill.components.models.configs import from_config
from potstill.components.models.derived import pruned_config, shape_config
from potstill.components.models.folder import resolve_model
from potstill.components.models.header_size import estimated_header_bytes
from potstill.components.models.safetensors import safetensors_parameters, stored_head
from potstill.components.models.source import read_config
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import RecipeError
from potstill.core.files import read_json_object
from potstill.core.recipe import Recipe
from potstill.core.words import printable

__all__ = ["Model", "Models", "load_models"]


@dataclass(frozen=True)
class Model:
    """A model of the run.

    name        as in the recipe; for a local folder the folder's own name
    folder      where its tokenizer is
    config      its config.json; the one it will have, for a student that does not exist yet
    spec        None for an architecture that is not in the table
    parameters  None for such an architecture while its weights are not downloaded
    download    bytes of weights still to be downloaded, estimated at two bytes per parameter
    """

    name: str
    folder: Path
    chat: ChatFormat
    config: dict[str, Any]
    spec: ModelSpec | None
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
    """Teacher (None for an endpoint) and student; the student's `spec` and `parameters` are always known."""

    teacher: Model | None
    student: Model

    @cached_property
    def student_spec(self) -> ModelSpec:
        """The student as its GGUF will hold it, with the size of the header."""
        spec, chat, tokenizer = self.student.spec, self.student.chat, self.student.tokenizer_model
        assert spec is not None
        pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer.get("merges", [])]
        tokens = chat.tokenizer.get_vocab(with_added_tokens=True)
        merges = None if tokenizer.get("byte_fallback") else pairs
        header = estimated_header_bytes(spec, tokens, merges, chat.template + (chat.tool_template or ""))
        return replace(spec, name="the student", header_bytes=header)


def load_models(recipe: Recipe) -> Models:
    """Teacher and student of a recipe.

    Raises:
        RecipeError: a model, its tokenizer or its template is missing or broken, or the two models do not work
            together; the message names the recipe's key and the folder.
    """
    teacher = _teacher(recipe) if recipe.teacher.kind == "local" else None
    student = _student(recipe, teacher)
    if recipe.student.vocabulary == "workload":
        # otherwise training would find out, after all answers have been generated and paid for
        source = student.folder / "tokenizer.json"
        require_trimmable(read_json_object(source, error=RecipeError, most_bytes=MOST_TOKENIZER_BYTES), str(source))
    if teacher and student.folder != teacher.folder and recipe.train.objective.name != "sft":
        _check_tokenizers(recipe, teacher, student)
    return Models(teacher, student)


def _load(key: str, name: str, recipe: Recipe, **changes: Any) -> Model:
    """An existing model; from the hub only its small files are fetched. `changes` are made to its config."""
    local = Path(name).expanduser().is_dir()
    folder = resolve_model(name, weights=local)
    config = read_config(folder / "config.json")
    _require_type(key, folder, config)
    _require_head(key, folder, config)
    config |= changes
    chat = ChatSettings.of(recipe.chat).load(folder)
    spec = _spec(config, folder)
    downloaded = local or any(folder.glob("model*.safetensors"))
    stored = safetensors_parameters(folder) if downloaded else None
    parameters = spec.parameters if spec and (stored is None or _class_of(config) in EXPORTABLE) else stored
    model = Model(
        name=folder.name if local else name,
        folder=folder,
        chat=chat,
        config=config,
        spec=spec,
        parameters=parameters,
        download=0 if downloaded else 2 * (parameters or 0),
    )
    _check_sizes(key, model, recipe)
    return model


def _require_type(key: str, folder: Path, config: dict[str, Any]) -> None:
    """Raise RecipeError for a type that is not the class's: transformers loads by the type, our table has the class."""
    kind, found = _class_of(config), config.get("model_type")
    needed = kind.removesuffix("ForCausalLM").lower()
    if kind in EXPORTABLE and found != needed:
        raise RecipeError(
            f"{key}: {folder / 'config.json'}: model_type is {printable(repr(found), 100)}, but that of {kind} is "
            f"{needed!r}. Save or copy the model again."
        )


def _require_head(key: str, folder: Path, config: dict[str, Any]) -> None:
    """Raise RecipeError for weights without the output matrix that config.json promises: it would be random."""
    if config.get("tie_word_embeddings") is False and stored_head(folder) == "absent":
        raise RecipeError(
            f"{key}: {folder}: tie_word_embeddings is false in config.json, but the weights have no lm_head.weight, so "
            "the output matrix would be random. Set it to true if the model was trained with tied weights, or save the "
            "model again."
        )


def _check_sizes(key: str, model: Model, recipe: Recipe) -> None:
    """Raise RecipeError for a model that the recipe cannot use, whatever its part in the run."""
    if model.padded_vocab < model.chat.vocab_size:
        raise RecipeError(
            f"{key}: {model.folder}: the tokenizer has {model.chat.vocab_size} tokens, but the model's vocabulary "
            f"(vocab_size in config.json) only {model.padded_vocab}. The folder mixes two models, or tokens were added "
            "without model.resize_token_embeddings(len(tokenizer))."
        )
    longest = model.config.get("max_position_embeddings")
    if isinstance(longest, int) and longest < recipe.chat.context:
        raise RecipeError(
            f"chat.context: {recipe.chat.context} tokens are more than the {longest} that {key} ({model.folder}) was "
            f"made for (max_position_embeddings). Set chat.context to {longest} at most."
        )
    if rescaling := rescaled(model.config):
        raise RecipeError(
            f"{key}: {model.folder}: the model rescales its logits ({rescaling} in config.json), which the losses do "
            "not support. Choose another model."
        )


def _class_of(config: dict[str, Any]) -> str:
    """The class that a config.json names."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "(none named)"


def _spec(config: dict[str, Any], folder: Path) -> ModelSpec | None:
    """The spec; None for a teacher that the table does not cover."""
    try:
        return from_config(config, folder.name)
    except ValueError as error:
        if _class_of(config) not in EXPORTABLE:
            return None
        raise RecipeError(f"{folder / 'config.json'}: {error}. Save or copy the model again.") from None


def _teacher(recipe: Recipe) -> Model:
    """The teacher; with `teacher.finetune.shape` only its tokenizer exists."""
    settings, tune = recipe.teacher, recipe.teacher.finetune
    if tune is None or tune.shape is None:
        return _load("teacher.model", settings.model, recipe)
    folder = resolve_model(settings.model, weights=False)
    chat = ChatSettings.of(recipe.chat).load(folder)
    name = folder.name if Path(settings.model).expanduser().is_dir() else settings.model
    return _planned(name, folder, chat, shape_config(tune.shape, chat.vocab_size, recipe.chat.context))


def _planned(name: str, folder: Path, chat: ChatFormat, config: dict[str, Any]) -> Model:
    """A model that will be made with the tokenizer in `folder`."""
    spec = from_config(config, name)
    return Model(name, folder, chat, config, spec, spec.parameters)


def _student(recipe: Recipe, teacher: Model | None) -> Model:
    settings = recipe.student
    tied = {} if settings.tied is None else {"tie_word_embeddings": settings.tied}
    if settings.init == "checkpoint":
        model = _load("student.model", settings.model, recipe, **tied)
        _require_exportable("student.model", model, "Choose another checkpoint.")
        return model
    assert teacher is not None  # the recipe refuses an endpoint here
    if settings.init == "scratch":
        config = shape_config(settings.shape, teacher.chat.vocab_size, recipe.chat.context)
        return _planned("from scratch", teacher.folder, teacher.chat, config)
    _require_exportable("student.init", teacher, "Set student.init: scratch.")
    kept = {key: getattr(settings, key) for key in _PARTS}
    _check_cut(kept, teacher)
    return _planned("teacher's layers", teacher.folder, teacher.chat, pruned_config(teacher.config, **kept) | tied)


def _require_exportable(key: str, model: Model, advice: str) -> None:
    """Raise RecipeError for a student of a class that cannot be exported."""
    kind = _class_of(model.config)
    if kind not in EXPORTABLE:
        raise RecipeError(
            f"{key}: {model.folder}: a student of architecture {kind} cannot be exported to GGUF; "
            f"{', '.join(EXPORTABLE)} can. {advice}"
        )


_PARTS = {"layers": "layers", "hidden": "hidden channels", "ffn": "FFN channels", "kv_heads": "key-value heads"}


def _check_cut(kept: dict[str, int | None], teacher: Model) -> None:
    """Raise RecipeError where the student would keep more than the teacher has."""
    spec = teacher.spec
    assert spec is not None
    has = {"layers": spec.layers, "hidden": spec.hidden, "ffn": spec.ffn, "kv_heads": spec.attention[0].kv_heads}
    for key, total in has.items():
        size = kept[key]
        if size is not None and size > total:
            raise RecipeError(f"student.{key}: {size} is more than the teacher's {total} {_PARTS[key]}.")


def _check_tokenizers(recipe: Recipe, teacher: Model, student: Model) -> None:
    """Raise RecipeError where the recipe compares token by token and an id means different tokens to both models."""
    reader = recipe.same_tokenizer_key
    if teacher.chat.tokenizer_hash == student.chat.tokenizer_hash or reader is None:
        return
    raise RecipeError(
        f"student.model: its tokenizer is not the teacher's, so {reader} cannot compare them token by token: "
        f"{_tokenizer_difference(student, teacher)}. Choose a student of the teacher's family, or "
        "use train.objective: forward_kl, which compares spans of text, without hidden, on_policy or fidelity's gates."
    )


def _tokenizer_difference(student: Model, teacher: Model) -> str:
    """A clause about the first token that differs, or else about the part that cuts text differently."""
    ours, theirs = (_by_id(model.chat) for model in (student, teacher))
    if ours == theirs:
        return (
            f"{student.folder} and {teacher.folder} have the same tokens, but cut text into them differently (merges, "
            "normalizer, pre-tokenizer or added tokens in tokenizer.json)"
        )
    first = min(i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i))
    return (
        f"{student.folder} has {len(ours)} tokens, {teacher.folder} has {len(theirs)}, and they differ first at id "
        f"{first} ({ours.get(first)!r} against {theirs.get(first)!r})"
    )


def _by_id(chat: ChatFormat) -> dict[int, str]:
    return {index: token for token, index in chat.tokenizer.get_vocab(with_added_tokens=True).items()}
