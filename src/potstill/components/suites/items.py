"""Items of a suite: a prompt, what is expected of the answer, and labels.

A file of items has one JSON object per line:

    {"messages": [{"role": "user", "content": "What is 6 times 7?"}],
     "expected": {"kind": "numeric", "value": "42"}, "tags": ["arithmetic"], "core": true}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from potstill.components.suites.expected import Expected
from potstill.core.artifacts.base import Part
from potstill.core.errors import DataError
from potstill.core.files import read_json_lines
from potstill.core.hashing import fingerprint
from potstill.core.messages import Message
from potstill.core.records import first_problem
from potstill.core.tools import Tool, canonical_tools
from potstill.core.words import printable

__all__ = ["Item", "drawn", "read_items", "without_repeats"]

_ID_DIGITS = 16
_SHOWN = 80

Tag = Annotated[str, Field(pattern=r"^[^\s,;|][^,;|\n]{0,63}$")]


class Item(Part):
    """One test of a suite.

    messages   the conversation up to the answer
    tools      tools that the model is given
    expected   which answers are right
    tags       behaviours that the item tests; every rate and every gate is per tag
    weight     weight of the item in a rate, relative to the others
    core       whether a release may never lose this item
    group      items of one group, such as phrasings of one question, are not independent
    source     where the item comes from
    """

    messages: tuple[Message, ...] = Field(min_length=1)
    expected: Expected
    tools: tuple[Tool, ...] = ()
    tags: tuple[Tag, ...] = ()
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    core: bool = False
    group: str | None = None
    source: str | None = None
    _where: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _asks(self) -> Item:
        if self.messages[-1].role == "assistant":
            raise ValueError("the last message is the assistant's. Put what is right into expected")
        if len(set(self.tags)) != len(self.tags):
            raise ValueError("tags: a tag is there twice")
        return self

    @cached_property
    def item_id(self) -> str:
        """16 hex digits that identify the test: a hash of messages, tools and what is expected.

        Tags and other labels do not count, and neither do ids of calls.
        """
        return fingerprint(
            {
                "messages": [m.without_ids().for_template() for m in self.messages],
                "tools": self.tools,
                "expected": self.expected.to_json(),
            }
        )[:_ID_DIGITS]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the whole item."""
        return fingerprint(self.to_line())

    @property
    def prompt(self) -> str:
        """Last message of the user."""
        return next((m.content or "" for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def shown_prompt(self) -> str:
        """Beginning of the prompt on one line, for messages."""
        return printable(self.prompt, _SHOWN)

    @property
    def name(self) -> str:
        """How a message names the item: its id and prompt, after the file and the line where they are known."""
        name = f"item {self.item_id} ({self.shown_prompt})"
        return f"{self._where}: {name}" if self._where else name

    def to_line(self) -> dict[str, Any]:
        """The item's JSON object, without values that are the default."""
        value = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        return {"messages": value.pop("messages"), **value, "expected": self.expected.to_json()}

    @classmethod
    def parse(cls, value: Mapping[str, Any], where: str) -> Item:
        """An item from its JSON object.

        Raises:
            DataError: the object is not an item; `where` names the file and the line.
        """
        tools = value.get("tools")
        try:
            known = {"tools": canonical_tools(tools, where)} if isinstance(tools, list) and tools else {}
            item = cls.model_validate({**value, **known})
            item._where = where
            return item
        except ValidationError as error:
            problem = first_problem(error)
        raise DataError(f"{where}: not an item of a suite ({problem}). See docs/howto/suites.md for the shape of one.")


def read_items(path: Path) -> list[Item]:
    """The items of a JSONL file.

    Raises:
        DataError: the file is absent or a line is not an item.
    """
    return [Item.parse(value, f"{path}:{number}") for number, value in read_json_lines(path)]


def without_repeats(items: Iterable[Item], known: Iterable[str] = ()) -> list[Item]:
    """The items whose id is not known yet, each once."""
    seen = set(known)
    found = []
    for item in items:
        if item.item_id not in seen:
            seen.add(item.item_id)
            found.append(item)
    return found


def drawn(items: Sequence[Item], count: int) -> list[Item]:
    """At most this many of the items, in their order: those whose hashes are the smallest.

    An item that is drawn stays drawn when `count` grows.
    """
    kept = {item.item_id for item in sorted(items, key=lambda item: item.item_id)[:count]}
    return [item for item in items if item.item_id in kept]
