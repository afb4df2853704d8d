"""Translate a chat template to Ollama's Go syntax, by rendering it and reading what it puts around each turn.

Ollama's TEMPLATE is a Go template, and no program translates Jinja to Go templates. But most chat templates only put
fixed text around the system prompt, the tools' names and each message. This text is found by rendering marked messages.
The result is then tested on other conversations. If one of them renders differently, there is no Go template, because
an almost correct one would be worse than none.

Ollama gives a template `.System` (all system messages, joined), `.Tools`, and `.Messages` (with the system messages
again, and neighbours of the same role joined), each with `.Role`, `.Content` and `.ToolCalls`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from potstill.components.chat.format import ChatFormat
from potstill.core.records import Function, Message, ToolCall

__all__ = ["Turns", "UnwritableTemplate", "find_turns", "prints_schemas"]

_SYSTEM, _TOOLS = object(), object()
_Head = tuple[Any, ...]  # of text, _SYSTEM and _TOOLS
_S, _U1, _U2, _A1, _RESULT = "Zsystem0", "Zuser1", "Zuser2", "Zassistant1", "Zresult1"
_NAMES = ("ztool_one", "ztool_two", "ztool_three")


class UnwritableTemplate(Exception):
    """The chat template does more than put fixed text around turns; the message is a clause with the reason."""


@dataclass(frozen=True)
class _Calls:
    """Text around a call's name and arguments, between calls, and between an answer's text and its first call."""

    before: str
    between: str
    after: str
    joint: str
    gap: str
    result: tuple[str, str]
    """Text before and after the result of a call."""


@dataclass(frozen=True)
class Turns:
    """Text around the parts of a conversation.

    Args:
        heads: text before the first turn, by (has a system prompt, has tools).
        user, assistant: text before and after a message.
        generation: text after the last message, where the assistant begins.
        tool_joint: text between two tools' names; None for a template whose tools cannot be translated.
        calls: None for a template whose calls and results cannot be translated.
        notes: sentences about what the template does and the Go template does not.
    """

    heads: dict[tuple[bool, bool], _Head]
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str
    tool_joint: str | None
    calls: _Calls | None
    notes: tuple[str, ...] = ()

    def render(self, system: str, tools: Sequence[str], messages: Sequence[Message]) -> str:
        """Text of a conversation, up to where the assistant begins. `messages` has no system message."""
        parts = []
        for part in self.heads[bool(system), bool(tools) and self.tool_joint is not None]:
            parts.append(system if part is _SYSTEM else (self.tool_joint or "").join(tools) if part is _TOOLS else part)
        for message in messages:
            around = self.assistant if message.role == "assistant" else self.user
            if message.role == "tool" and self.calls:
                around = self.calls.result
            parts += [around[0], message.content or "", self._calls(message), around[1]]
        return "".join([*parts, self.generation])

    def _calls(self, message: Message) -> str:
        calls = self.calls
        if calls is None or not message.tool_calls:
            return ""
        blocks = [
            calls.before + c.function.name + calls.between + json.dumps(json.loads(c.function.arguments)) + calls.after
            for c in message.tool_calls
        ]
        return (calls.gap if message.content else "") + calls.joint.join(blocks)

    def go_template(self, leave_out: str | None = None) -> str:
        """The Go template; `leave_out` is text at the beginning that the runtime adds itself."""
        return f"{self._go_head(leave_out or '')}{self._go_messages()}{_go(self.generation)}"

    def _go_head(self, leave_out: str) -> str:
        def text(system: bool, tools: bool) -> str:
            parts = list(self.heads[system, tools])
            if parts and isinstance(parts[0], str):
                parts[0] = parts[0].removeprefix(leave_out)
            joint = _go(self.tool_joint or "")
            names = f"{{{{ range $i, $tool := .Tools }}}}{_when('$i', joint)}{{{{ $tool.Function.Name }}}}{{{{ end }}}}"
            return "".join("{{ .System }}" if p is _SYSTEM else names if p is _TOOLS else _go(p) for p in parts)

        def by_system(tools: bool) -> str:
            bare = text(False, tools)
            return f"{{{{ if .System }}}}{text(True, tools)}{'{{ else }}' + bare if bare else ''}{{{{ end }}}}"

        if self.tool_joint is None:
            return by_system(False)
        return f"{{{{ if .Tools }}}}{by_system(True)}{{{{ else }}}}{by_system(False)}{{{{ end }}}}"

    def _go_messages(self) -> str:
        """Template of all messages.

        Ollama reads the tag that marks a call from the first text after `if .ToolCalls`. Nothing may come between the
        two, so the text between calls is written after a call and not before one.
        """
        content = answer = "{{ .Content }}"
        if self.calls:
            c = self.calls
            gap = _when("$calls", _go(c.gap))
            joint = _when("gt (len (slice $calls $i)) 1", _go(c.joint))
            call = (
                f"{_go(c.before)}{{{{ $call.Function.Name }}}}{_go(c.between)}{{{{ json $call.Function.Arguments }}}}"
                f"{_go(c.after)}{joint}"
            )
            made = f"{{{{ range $i, $call := .ToolCalls }}}}{call}{{{{ end }}}}"
            answer = f"{{{{ $calls := .ToolCalls }}}}{_when('.Content', content + gap)}{_when('.ToolCalls', made)}"
        branches = [("user", self.user, content), ("assistant", self.assistant, answer)]
        if self.calls:
            branches.append(("tool", self.calls.result, content))
        written = "{{ else ".join(
            f'if eq .Role "{role}" }}}}{_go(around[0])}{inner}{_go(around[1])}' for role, around, inner in branches
        )
        return f"{{{{ range .Messages }}}}{{{{ {written}{{{{ end }}}}{{{{ end }}}}"


def _go(text: str) -> str:
    """Text with its braces escaped for a Go template."""
    return text.replace("{{", '{{ "{{" }}')


def _when(condition: str, text: str) -> str:
    return f"{{{{ if {condition} }}}}{text}{{{{ end }}}}" if text else ""


def _message(role: str, content: str | None, *calls: ToolCall) -> Message:
    return Message(role=role, content=content, tool_calls=calls)  # type: ignore[arg-type]


def _call(name: str, arguments: dict[str, Any]) -> ToolCall:
    return ToolCall(function=Function(name=name, arguments=json.dumps(arguments)))


def _tools(count: int) -> tuple[dict[str, Any], ...]:
    schema = {"type": "object", "properties": {"Zargument": {"type": "string", "description": "Zdescription"}}}
    return tuple(
        {"type": "function", "function": {"name": name, "description": "Zdescription", "parameters": schema}}
        for name in _NAMES[:count]
    )


_USER, _USER_2, _ASSISTANT = _message("user", _U1), _message("user", _U2), _message("assistant", _A1)


class _Prober:
    """Renders marked conversations and splits them at the marks."""

    def __init__(self, chat: ChatFormat) -> None:
        self.chat = chat

    def text(self, messages: Sequence[Message], tools: int = 0, generate: bool = True) -> str:
        try:
            return self.chat.render(tuple(messages), _tools(tools), generate=generate)
        except ValueError as error:
            reason = str(error).removeprefix("the chat template cannot render this conversation: ")
            raise UnwritableTemplate(f"it refuses a plain conversation ({reason})") from None

    def cut(self, messages: Sequence[Message], *marks: str, tools: int = 0, generate: bool = True) -> list[str]:
        """The text before, between and after the marks, each of which must occur once and in order."""
        rest, parts = self.text(messages, tools, generate), []
        for mark in marks:
            before, found, rest = rest.partition(mark)
            if not found or mark in rest:
                raise UnwritableTemplate("it leaves out, repeats or moves messages")
            parts.append(before)
        return [*parts, rest]


def _without(text: str, start: str = "", end: str = "") -> str:
    if not (text.startswith(start) and text.endswith(end) and len(text) >= len(start) + len(end)):
        raise UnwritableTemplate("the text around a message depends on its neighbours")
    return text[len(start) : len(text) - len(end)]


def find_turns(chat: ChatFormat) -> Turns:
    """What the chat template writes around each turn, tested on other conversations than it was found with.

    Raises:
        UnwritableTemplate: the template does more than that.
    """
    if "strftime_now" in chat.template:
        raise UnwritableTemplate("it writes today's date")
    probe = _Prober(chat)
    user_after = probe.cut([_USER], _U1, generate=False)[1]
    assistant_after = probe.cut([_USER, _ASSISTANT], _U1, _A1, generate=False)[2]
    first, answer, next_user, end = probe.cut([_USER, _ASSISTANT, _USER_2], _U1, _A1, _U2)
    user = (_without(next_user, start=assistant_after), user_after)
    bare = Turns(
        heads={(False, False): (_without(first, end=user[0]),), (True, False): _head(probe, user[0], True, 0)},
        user=user,
        assistant=(_without(answer, start=user_after), assistant_after),
        generation=_without(end, start=user_after),
        tool_joint=None,
        calls=None,
    )
    _verify(bare, chat, 0)
    return _with_tools(probe, bare)


def prints_schemas(chat: ChatFormat) -> bool:
    """Whether the template writes the schemas of tools, and not their names alone."""
    try:
        return "Zargument" in chat.render((_USER,), _tools(1), generate=True)
    except ValueError:  # a template that refuses these tools may write the schemas of others
        return True


def _head(probe: _Prober, user_before: str, system: bool, tools: int) -> _Head:
    """The parts before the first user turn, with the tools' names in one list."""
    messages = [_message("system", _S), _USER] if system else [_USER]
    text = _without(probe.cut(messages, _U1, tools=tools)[0], end=user_before)
    if text.count(_S) != int(system):
        raise UnwritableTemplate("it leaves out or repeats the system prompt")
    if any(mark in text for mark in ("Zargument", "Zdescription")):
        raise UnwritableTemplate("it writes the tools' schemas")
    parts: list[Any] = [text]
    if tools:
        names = _NAMES[:tools]
        start, stop = text.find(names[0]), text.find(names[-1]) + len(names[-1])
        if start < 0 or stop < start or any(text.count(name) != 1 for name in names):
            raise UnwritableTemplate("it does not write each tool's name once")
        parts = [text[:start], _TOOLS, text[stop:]]
    out: list[Any] = []
    for part in parts:
        if isinstance(part, str) and _S in part:
            before, _, after = part.partition(_S)
            out += [before, _SYSTEM, after]
        else:
            out.append(part)
    return tuple(part for part in out if part != "")


def _with_tools(probe: _Prober, bare: Turns) -> Turns:
    """The turns with tools, calls and results, where the template writes only the names of tools."""
    try:
        if probe.text([_USER], 2) == probe.text([_USER]):
            return bare
        heads = {(system, True): _head(probe, bare.user[0], system, 3) for system in (False, True)}
        joint = probe.cut([_USER], *_NAMES, tools=3)[1]
        turns = Turns(
            bare.heads | heads, bare.user, bare.assistant, bare.generation, joint, _find_calls(probe, bare)
        )  # fmt: skip
        _verify(turns, probe.chat, 3)
    except UnwritableTemplate as reason:
        note = f"Tools, calls and their results are left out, because {reason}."
        return Turns(bare.heads, bare.user, bare.assistant, bare.generation, None, None, (note,))
    note = "Ollama writes the arguments of earlier calls without spaces; the student was trained with spaces."
    return Turns(turns.heads, turns.user, turns.assistant, turns.generation, joint, turns.calls, (note,))


def _find_calls(probe: _Prober, bare: Turns) -> _Calls:
    arguments = {"Zkey": "Zvalue"}
    shown = json.dumps(arguments)
    before, after = bare.user[1] + bare.assistant[0], bare.assistant[1] + bare.user[0]
    calls = [_call(name, arguments) for name in _NAMES[:2]]

    def rendered(content: str | None, *made: ToolCall) -> str:
        marks = (_U1, _U2)
        text = probe.cut([_USER, _message("assistant", content, *made), _USER_2], *marks)[1]
        return _without(text, start=before, end=after)

    one, two = rendered(None, calls[0]), rendered(None, *calls)
    opening, found, rest = one.partition(_NAMES[0])
    between, found_too, closing = rest.partition(shown)
    if not found or not found_too:
        raise UnwritableTemplate("it does not write a call as its name and then its arguments")
    joint = _without(two, start=one, end=opening + _NAMES[1] + between + shown + closing)
    gap = _without(rendered(_A1, calls[0]), start=_A1, end=one)
    made = _message("assistant", None, calls[0])
    result = probe.cut([_USER, made, _message("tool", _RESULT)], _U1, _RESULT)
    return _Calls(
        opening,
        between,
        closing,
        joint,
        gap,
        (
            _without(result[1], start=before + one + bare.assistant[1]),
            _without(result[2], end=bare.generation),
        ),
    )


def _verify(turns: Turns, chat: ChatFormat, tools: int) -> None:
    """Raise UnwritableTemplate unless conversations render the same, up to where the assistant begins."""
    probe = _Prober(chat)
    long = _message("user", "Line one\nline two: {{ x }} <b>&'\"</b> größer 灯")
    short = _message("assistant", "Yes.")
    conversations: list[list[Message]] = [[long], [_USER, short, long], [long, short, _USER, _ASSISTANT, _USER_2]]
    if tools:
        call, nested = _call("ztool_two", {}), _call("ztool_one", {"a": [1, 2.5], "b": {"c": None}})
        result = _message("tool", '{"ok": true}')
        conversations += [
            [long, _message("assistant", None, call, nested), result, short, _USER_2],
            [_USER, _message("assistant", "So:", nested), result],
        ]
    for count in range(tools + 1):
        for system in ("", "Be brief.\nBe kind."):
            for conversation in conversations:
                head = [_message("system", system)] if system else []
                if probe.text([*head, *conversation], count) != turns.render(system, _NAMES[:count], conversation):
                    raise UnwritableTemplate("a conversation is not the sum of its turns")
