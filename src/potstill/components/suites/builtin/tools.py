"""Tools to call, and requests that no tool can fulfil."""

from __future__ import annotations

import random
from typing import Any

from potstill.components.suites.builtin.made import made_item
from potstill.components.suites.items import Item

__all__ = ["TOOLS", "light_call", "refusals", "timer_call", "tool_calls"]

ROOMS = ("kitchen", "hall", "attic", "office", "garage", "bedroom", "cellar", "studio")
NAMES = ("Ada", "Ben", "Chidi", "Dana", "Emil", "Fatma", "Goran", "Hana")


def _tool(name: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    _tool("set_light", "Switch a light on or off", {"room": {"type": "string"}, "state": {"enum": ["on", "off"]}}),
    _tool("start_timer", "Start a timer", {"minutes": {"type": "integer", "minimum": 1}}),
    _tool("send_message", "Send a message", {"to": {"type": "string"}, "text": {"type": "string"}}),
]
_IMPOSSIBLE = (
    "Order {n} pizzas.", "Book a flight to Oslo for {n} people.", "Translate this page into {n} languages.",
    "What will the weather be in {n} days?", "Pay my bill of {n} euros.", "Play {n} songs of the band Orchid.",
    "Print {n} copies of my report.", "Water the plants for {n} seconds.",
)  # fmt: skip
_SYSTEM = "You can only do what the tools do. If no tool fits, say that you cannot do it."


def light_call(room: str, state: str) -> dict[str, Any]:
    """The right call to switch a light."""
    return {"name": "set_light", "arguments": {"room": [room], "state": [state]}, "normalise": {"room": ["case"]}}


def timer_call(minutes: int) -> dict[str, Any]:
    """The right call to start a timer."""
    return {"name": "start_timer", "arguments": {"minutes": [minutes]}}


def tool_calls(draw: random.Random) -> Item:
    """A request for one tool, for two, or for one that talks about another."""
    room, state, minutes = draw.choice(ROOMS), draw.choice(("on", "off")), draw.randint(1, 90)
    light, timer = light_call(room, state), timer_call(minutes)
    other = "off" if state == "on" else "on"
    prompts: list[tuple[str, list[dict[str, Any]], str]] = [
        (f"Turn the light in the {room} {state}.", [light], "one call"),
        (f"Start a timer for {minutes} minutes.", [timer], "one call"),
        (f"Light {state} in the {room}, and a timer for {minutes} minutes.", [light, timer], "two calls"),
        (f"The light in the {room} is {other}. I want it {state}.", [light], "one call"),
        (
            f"Tell {(name := draw.choice(NAMES))}: dinner in {minutes} minutes",
            [{
                "name": "send_message",
                "arguments": {"to": [name], "text": [f"dinner in {minutes} minutes"]},
                "normalise": {"text": ["case", "punctuation"]},
            }],
            "one call",
        ),
    ]  # fmt: skip
    prompt, calls, tag = draw.choice(prompts)
    return made_item(prompt, {"kind": "calls", "calls": calls}, tag, tools=TOOLS)


def refusals(draw: random.Random) -> Item:
    """A request that no tool can fulfil, or, against refusing too much, one that sounds like it and that a tool can."""
    if draw.random() < 0.5:
        prompt = draw.choice(_IMPOSSIBLE).format(n=draw.randint(2, 40))
        return made_item(prompt, {"kind": "refusal"}, "refuse", _SYSTEM, tools=TOOLS)
    minutes, room = draw.randint(2, 60), draw.choice(ROOMS)
    prompt, call = draw.choice(
        (
            (f"My pizza needs {minutes} minutes: time it.", timer_call(minutes)),
            (f"Kill the light in the {room}.", light_call(room, "off")),
        )
    )
    return made_item(prompt, {"kind": "calls", "calls": [call]}, "no over-refusal", _SYSTEM, tools=TOOLS)
