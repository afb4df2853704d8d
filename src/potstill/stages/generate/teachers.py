"""A teacher that is ready to answer, and what identifies it in every row that it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.chat.format import ChatFormat
from potstill.components.runtimes.journal import Journal
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.components.runtimes.spending import Account, Billing, Spending
from potstill.core.artifacts.generated import TeacherIdentity
from potstill.core.hashing import hash_model
from potstill.core.recipe import ApiTeacher

if TYPE_CHECKING:
    from potstill.stages.generate.stage import GenerateInputs

__all__ = ["LoadedTeacher", "lead_of", "load_teachers"]


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


def load_teachers(inputs: GenerateInputs, out: Path) -> list[LoadedTeacher]:
    """Load a local teacher, or connect to one or several endpoints; their requests go through journals.

    Raises:
        RecipeError: the folder holds no model that transformers can load.
    """
    section = inputs.teacher
    if section.kind == "local":
        return [_local(inputs, out)]
    spending = Spending(inputs.billing.budget)  # several teachers share the budget
    if section.kind == "api":
        return [_endpoint(inputs, section, inputs.billing, spending, out)]
    return [
        _endpoint(inputs, member.model_copy(update={"offline": section.offline}), bill, spending, out)
        for member, bill in zip(section.teachers, inputs.member_billing, strict=True)
    ]


def lead_of(inputs: GenerateInputs, teachers: Sequence[LoadedTeacher]) -> LoadedTeacher:
    """The teacher that the student is compared with."""
    section = inputs.teacher
    return teachers[section.teachers.index(section.lead)] if section.kind == "several" else teachers[0]


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


def _endpoint(
    inputs: GenerateInputs, section: ApiTeacher, bill: Billing, spending: Spending, out: Path
) -> LoadedTeacher:
    from potstill.components.runtimes.endpoint import EndpointRuntime

    assert inputs.reader is not None  # a recipe with an endpoint starts from a checkpoint
    runtime = EndpointRuntime(
        section.base_url, section.model, section.api_key_env, section.max_concurrency, top_logprobs=inputs.logprobs
    )
    identity = TeacherIdentity(kind="api", model=section.model, endpoint=section.base_url)
    account = Account(spending, bill.price, bill.source, section.max_concurrency)
    journaled = JournaledRuntime(runtime, Journal.for_step(out, section, None), account, offline=section.offline)
    return LoadedTeacher(journaled, None, inputs.chat.load(inputs.reader.path), identity)
