"""Operators that ask the teacher for a prompt: what is asked, and the row that is made of its answer."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.components.curriculum.messy import MESSY
from potstill.components.curriculum.sampled import rows_of_tools
from potstill.components.curriculum.spec import CodeOperator, Curriculum, TeacherOperator
from potstill.core.errors import RecipeError
from potstill.core.records import BEHAVIOURS, Behaviour, Call, Gold, GoldCall, Message, Row
from potstill.core.tools import argument_validators

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["ASKING", "Asking", "Draft", "check_templates", "draw_call", "finished_row", "request_of"]

_LONGEST = 4000  # characters of a prompt
_PERSONAS = (
    "somebody in a hurry", "a polite elderly person", "a teenager", "an engineer", "somebody who is angry",
    "somebody who writes English as a second language",
)  # fmt: skip
_WISHES = {
    "behaviour": {
        "refuse": "The assistant should have to decline: the message asks for something outside of its task.",
        "clarify": "The message leaves out something that the assistant needs, so that it has to ask back.",
        "multi_call": "The message asks for two things at once.",
    },
}


@dataclass(frozen=True)
class Asking:
    """An operator that asks the teacher.

    version     raised when the built-in template changes
    variables   what its template may use
    writes      whether it writes a prompt with the wanted values; otherwise it rewords a prompt, which keeps its own
    """

    version: int
    variables: frozenset[str]
    writes: bool = True


def _using(*names: str) -> frozenset[str]:
    return frozenset(names)


ASKING: dict[TeacherOperator, Asking] = {
    "self_instruct": Asking(1, _using("task", "examples", "wishes")),
    "broader": Asking(1, _using("task", "prompt", "wishes")),
    "deeper": Asking(1, _using("task", "prompt", "wishes")),
    "slot_grid": Asking(1, _using("task", "call", "examples", "wishes")),
    "paraphrase": Asking(1, _using("prompt"), writes=False),
    "persona": Asking(1, _using("prompt", "persona"), writes=False),
}


@dataclass(frozen=True)
class Draft:
    """A prompt that is to be written.

    parent     row that it is made from, or whose tools and system message it has
    values     value of each axis that it will have
    asking     operator that asks the teacher; None: the parent's own text is changed
    messy      operators that change the text afterwards
    seed       seed of everything random in it
    call       call that will be the right answer, for `slot_grid`
    examples   what users have sent, for operators that show some
    """

    parent: Row
    values: Mapping[str, str]
    asking: TeacherOperator | None
    messy: tuple[CodeOperator, ...]
    seed: str
    call: Call | None = None
    examples: tuple[str, ...] = ()


def asked_text(row: Row) -> str:
    """The last thing that the user says in a row."""
    return next((message.content or "" for message in reversed(row.messages) if message.role == "user"), "")


def check_templates(curriculum: Curriculum, path: Path) -> None:
    """Check that the curriculum's own templates compile, and use declared variables only.

    Raises:
        RecipeError: one does not; the message names it.
    """
    from jinja2 import TemplateError, meta

    from potstill.components.chat.sandbox import LimitedEnvironment, TemplateLimit

    for name, source in curriculum.templates.items():
        try:
            used = meta.find_undeclared_variables(LimitedEnvironment().parse(source))
            _compiled(source)
        except (TemplateError, TemplateLimit) as error:
            raise RecipeError(f"{path}: templates.{name} is not a valid Jinja template: {error}.") from None
        if unknown := sorted(used - ASKING[name].variables):
            known = ", ".join(sorted(ASKING[name].variables))
            raise RecipeError(f"{path}: templates.{name} uses {unknown[0]!r}; {name} has the variables {known}.")


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    from potstill.components.chat.sandbox import LimitedEnvironment

    return LimitedEnvironment().from_string(source)


def _template(curriculum: Curriculum, name: TeacherOperator) -> Template:
    folder = resources.files("potstill.components.curriculum").joinpath("templates")
    return _compiled(curriculum.templates.get(name) or folder.joinpath(f"{name}.jinja").read_text(encoding="utf-8"))


def request_of(draft: Draft, curriculum: Curriculum) -> Row:
    """What the teacher is asked for a draft.

    Raises:
        RecipeError: the template cannot be rendered.
    """
    from jinja2 import TemplateError

    from potstill.components.chat.sandbox import TemplateLimit

    assert draft.asking is not None
    personas = curriculum.personas or _PERSONAS
    values: dict[str, Any] = {
        "task": curriculum.task,
        "prompt": asked_text(draft.parent),
        "examples": list(draft.examples),
        "wishes": _wishes(draft, curriculum),
        "persona": random.Random(draft.seed).choice(personas),
        "call": json.dumps(draft.call.model_dump(), ensure_ascii=False) if draft.call else "",
    }
    used = {name: values[name] for name in ASKING[draft.asking].variables}
    try:
        text = _template(curriculum, draft.asking).render(used)
    except (TemplateError, TemplateLimit, ValueError, TypeError) as error:
        raise RecipeError(f"data.curriculum: templates.{draft.asking} cannot be rendered: {error}.") from None
    return Row(messages=(Message(role="user", content=text),))


def _wishes(draft: Draft, curriculum: Curriculum) -> list[str]:
    """What the prompt should be like, a sentence for each value that no code makes."""
    out = []
    for axis, name in draft.values.items():
        value = curriculum.axes[axis].get(name)
        if value is None or value.operator or axis == "tool" or (value.default and not value.text):
            continue
        if value.text:
            out.append(value.text)
        elif axis == "label":
            out.append(f"The right answer to the message is: {name}")
        elif axis != "behaviour":
            out.append(f"{axis.replace('_', ' ')}: {name.replace('_', ' ')}")
        elif name in _WISHES["behaviour"]:
            out.append(_WISHES["behaviour"][name])
    return out


def finished_row(draft: Draft, answer: str | None, curriculum: Curriculum) -> Row | None:
    """The prompt of a draft; None where the answer is no prompt, or an operator does not apply.

    Args:
        draft: the draft.
        answer: what the teacher wrote; None for a draft that asks nothing.
        curriculum: the curriculum.
    """
    row = draft.parent
    if draft.asking is not None:
        text = _said(answer or "")
        if not text or len(text) > _LONGEST:
            return None
        row = _written(draft, text) if ASKING[draft.asking].writes else _reworded(row, text)
    for name in draft.messy:
        changed = MESSY[name].apply(row, f"{draft.seed} {name}")
        if changed is None:
            return None
        row = changed
    behaviour = draft.values.get("behaviour")
    operators = [f"{draft.asking}@{ASKING[draft.asking].version}"] if draft.asking else []
    operators += [f"{name}@{MESSY[name].version}" for name in draft.messy]
    provenance = {
        **draft.parent.provenance,
        "curriculum": curriculum.name,
        "operators": operators,
        "parent": draft.parent.row_id,
        "coverage": dict(draft.values),
    }
    changes: dict[str, Any] = {"provenance": provenance, "completion": None}
    if behaviour in BEHAVIOURS:
        changes["behaviour"] = behaviour
    return row.model_copy(update=changes)


def _said(answer: str) -> str:
    """The message in the teacher's answer, without the quotation marks and the label that it may have."""
    text = answer.strip().removeprefix("Message:").strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] in "\"“'" and text[-1] in "\"”'" else text


def _reworded(row: Row, text: str) -> Row:
    place = max(place for place, message in enumerate(row.messages) if message.role == "user")
    messages = [*row.messages]
    messages[place] = Message(role="user", content=text)
    return row.model_copy(update={"messages": tuple(messages)})


def _written(draft: Draft, text: str) -> Row:
    """A prompt of one message, after the system message of its parent."""
    system = [message for message in draft.parent.messages[:1] if message.role in ("system", "developer")]
    gold: Gold | None = None
    behaviour: Behaviour = "answer"
    if draft.call is not None:
        arguments = {name: [value] for name, value in draft.call.arguments.items()}
        gold, behaviour = Gold(calls=(GoldCall(name=draft.call.name, arguments=arguments),)), "tool_call"
    elif label := draft.values.get("label"):
        gold = Gold(equals=(label,))
    messages = (*system, Message(role="user", content=text))
    return Row(messages=messages, tools=draft.parent.tools, behaviour=behaviour, gold=gold)


def draw_call(name: str, seeds: Sequence[Row], draw: random.Random) -> Call | None:
    """A call of a tool whose values were seen in the right answers of the seeds, in a new combination.

    Where the seeds have none, the values come from the tool's schema. None where neither gives a valid call.
    """
    golds = [call for row in seeds if row.gold for call in row.gold.calls if call.name == name]
    tools = next((row.tools for row in seeds if any(tool["function"]["name"] == name for tool in row.tools)), ())
    own = tuple(tool for tool in tools if tool["function"]["name"] == name)
    if not golds:
        made = rows_of_tools(own, 8, draw.randrange(1 << 30))
        chosen = draw.choice(made).completion if made else None
        return chosen.tool_calls[0].call if chosen else None
    validators = argument_validators(own, "tools")
    pools: dict[str, list[Any]] = {}
    for gold in golds:
        for argument, accepted in gold.arguments.items():
            pools.setdefault(argument, []).extend(accepted[:1])
    for _ in range(8):
        shape = draw.choice(golds)
        arguments = {argument: draw.choice(pools[argument]) for argument in shape.arguments}
        if name not in validators or validators[name].is_valid(arguments):
            return Call(name=name, arguments=arguments)
    return None
