"""A teacher ready to answer, and what identifies it in every row it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.runtimes import Runtime
from potstill.core.hashing import hash_model
from potstill.core.recipe import Recipe

__all__ = ["LoadedTeacher", "load_teacher"]


@dataclass(frozen=True)
class LoadedTeacher:
    """`chat` is None for an endpoint, which renders its own template; `student_chat` is how the student reads rows.
    `batch_size` is what must be answered together."""

    runtime: Runtime
    chat: ChatFormat | None
    student_chat: ChatFormat
    identity: dict[str, Any]
    batch_size: int


def load_teacher(recipe: Recipe, folder: Path | None, base: Path | None = None) -> LoadedTeacher:
    """Load a local teacher from its folder, or (folder None) connect to the endpoint.

    `base` is the folder of `student.model`, whose tokenizer and template the student has if it is given.

    Raises:
        TeacherError: the endpoint cannot be used.
        RecipeError: the folder holds no model that transformers can load.
    """
    teacher, batch_size = recipe.teacher, recipe.generate.batch_size
    if teacher.kind == "api":
        from potstill.components.runtimes.endpoint import EndpointRuntime

        assert base is not None, "a recipe with an endpoint starts from a checkpoint"
        student_chat = load_chat(base, recipe.chat.template)
        endpoint = EndpointRuntime(
            teacher.base_url,
            teacher.model,
            teacher.api_key_env,
            teacher.max_concurrency,
            top_logprobs=recipe.requested_logprobs,
        )
        identity = {"kind": "api", "model": teacher.model, "endpoint": teacher.base_url}
        return LoadedTeacher(endpoint, None, student_chat, identity, 1)
    from potstill.components.runtimes.hf import HFRuntime
    from potstill.components.runtimes.load import load_causal_lm, on_device

    assert folder is not None
    chat = load_chat(folder, recipe.chat.template)
    model = on_device(load_causal_lm(folder, teacher.dtype, teacher.offload))
    runtime = HFRuntime(model, chat, recipe.chat.context, batch_size)
    local_identity = {
        "kind": "local",
        "model": Path(teacher.model).name if Path(teacher.model).is_dir() else teacher.model,
        "revision": teacher.revision,
        "weights_sha256": hash_model(folder, (".safetensors",)),
        "template_sha256": chat.template_hash,
        "tokenizer_sha256": chat.tokenizer_hash,
    }
    return LoadedTeacher(
        runtime, chat, load_chat(base, recipe.chat.template) if base else chat, local_identity, batch_size
    )
