"""A teacher that is ready to answer, and what identifies it in every row that it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.chat.format import ChatFormat
from potstill.components.runtimes.journal import Journal
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.components.runtimes.spending import Account
from potstill.core.artifacts.generated import TeacherIdentity
from potstill.core.hashing import hash_model

if TYPE_CHECKING:
    from potstill.stages.generate.stage import GenerateInputs

__all__ = ["LoadedTeacher", "load_teacher"]


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher that is ready to answer.

    chat           its chat format; None for an endpoint, which renders its own template
    student_chat   the chat format in which the student reads the rows
    """

    runtime: JournaledRuntime
    chat: ChatFormat | None
    student_chat: ChatFormat
    identity: TeacherIdentity


def load_teacher(inputs: GenerateInputs, out: Path) -> LoadedTeacher:
    """Load a local teacher, or connect to the endpoint; its requests go through a journal.

    Raises:
        TeacherError: the endpoint cannot be used.
        RecipeError: the folder holds no model that transformers can load.
    """
    return _local(inputs, out) if inputs.teacher.kind == "local" else _endpoint(inputs, out)


def _local(inputs: GenerateInputs, out: Path) -> LoadedTeacher:
    from potstill.components.runtimes.hf import HFRuntime
    from potstill.components.runtimes.load import load_causal_lm, on_device

    section, weights = inputs.teacher, inputs.weights
    assert section.kind == "local"
    assert weights is not None
    chat = inputs.chat.load(weights.path)
    model = on_device(load_causal_lm(weights.path, section.dtype, section.offload))
    identity = TeacherIdentity(
        kind="local",
        model=inputs.name,
        revision=inputs.revision,
        weights_sha256=hash_model(weights.path, (".safetensors",)),
        template_sha256=chat.template_hash,
        tokenizer_sha256=chat.tokenizer_hash,
    )
    student_chat = inputs.chat.load(inputs.reader.path) if inputs.reader else chat
    runtime = HFRuntime(model, chat, inputs.chat.context, inputs.settings.batch_size)
    journal = Journal.for_step(out, section, weights)
    return LoadedTeacher(JournaledRuntime(runtime, journal), chat, student_chat, identity)


def _endpoint(inputs: GenerateInputs, out: Path) -> LoadedTeacher:
    from potstill.components.runtimes.endpoint import EndpointRuntime

    section = inputs.teacher
    assert section.kind == "api"
    assert inputs.reader is not None  # a recipe with an endpoint starts from a checkpoint
    runtime = EndpointRuntime(
        section.base_url, section.model, section.api_key_env, section.max_concurrency, top_logprobs=inputs.logprobs
    )
    identity = TeacherIdentity(kind="api", model=section.model, endpoint=section.base_url)
    account = Account.of(inputs.billing, section.max_concurrency)
    journaled = JournaledRuntime(runtime, Journal.for_step(out, section, None), account, offline=section.offline)
    return LoadedTeacher(journaled, None, inputs.chat.load(inputs.reader.path), identity)
