"""What was found in files: requests, tools, the task in words, and what could not be used."""

from __future__ import annotations

from dataclasses import dataclass, field

from potstill.core.records import Row
from potstill.core.tools import Tool

__all__ = ["Found", "Request"]


@dataclass(frozen=True)
class Request:
    """A prompt with what is known of the answer that was given to it.

    row                  the prompt; its completion is the answer
    logged               whether a model gave the answer in production, so that it may be wrong
    model                name of that model
    prompt_tokens        tokens of the prompt as the endpoint counted them
    completion_tokens    tokens of the answer as the endpoint counted them
    time                 when it was answered, in seconds since 1970
    wants_json           whether JSON was asked for
    """

    row: Row
    logged: bool = False
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    time: float | None = None
    wants_json: bool = False


@dataclass
class Found:
    """All that was found in the files so far.

    requests    prompts, in the order of the files
    tools       tools of the prompts that name none
    task        the task in words
    guesses     what was guessed about the files, as sentences
    left_out    the reason for each entry that could not be used
    """

    requests: list[Request] = field(default_factory=list)
    tools: tuple[Tool, ...] = ()
    task: str | None = None
    guesses: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
