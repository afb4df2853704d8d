"""Speed: time the shipped file in llama.cpp on this machine, and read its peak memory.

It is a stage of its own, so that measuring again repeats no answers. The machine is among its inputs: on another one,
it runs again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from potstill.components.chat.format import ChatSettings
from potstill.components.chat.reasoning import as_chosen
from potstill.components.models.handover import optional_file
from potstill.core.artifacts.exported import Exported
from potstill.core.hashing import HashedPath
from potstill.core.machine import cpu_cores, cpu_name
from potstill.core.recipe import Recipe
from potstill.core.records import read_rows
from potstill.core.steps import Done, Stage

__all__ = ["STAGE", "SpeedInputs"]

_PROMPTS = 200
"""Test rows whose prompts are counted, evenly spaced over the file."""


@dataclass(frozen=True)
class SpeedInputs:
    """What the measurement depends on.

    test, test_limit, tools   the test rows; prompts are as long as theirs
    student                   the checkpoint, for its tokenizer and chat template
    threads                   threads of llama.cpp
    cpu, cores                the machine
    """

    test: HashedPath
    test_limit: int | None
    tools: HashedPath | None
    chat: ChatSettings
    student: HashedPath
    gguf: HashedPath
    threads: int
    cpu: str
    cores: int


def _inputs(recipe: Recipe, done: Done) -> SpeedInputs:
    return SpeedInputs(
        test=HashedPath.of_file(recipe.data.test),
        test_limit=recipe.data.limit.get("test"),
        tools=optional_file(recipe.data.tools),
        chat=ChatSettings.of(recipe.chat),
        student=done.path("train", "student"),
        gguf=done.path("export", done.read("export", Exported).file),
        threads=recipe.evaluate.threads,
        cpu=cpu_name(),
        cores=cpu_cores(),
    )


def _run(inputs: SpeedInputs, out: Path) -> None:
    from potstill.components.runtimes.latency import measure_speed

    chat = inputs.chat.load(inputs.student.path)
    rows = read_rows(inputs.test.path, tools=inputs.tools.path if inputs.tools else None, limit=inputs.test_limit)
    rows = as_chosen(rows, inputs.chat.reasoning)
    lengths = [len(chat.prompt_ids(row)) for row in rows[:: -(-len(rows) // _PROMPTS)]]
    measure_speed(inputs.gguf, lengths, context=inputs.chat.context, threads=inputs.threads).write(out)


STAGE = Stage(name="speed", reads=("train", "export"), inputs=_inputs, run=_run, version=2)
