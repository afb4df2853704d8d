"""With `chat.reasoning: drop`, speed and package take the same messages as evaluate: without earlier thinking."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from finished_run import RECIPE, finished_run
from fixtures import light_row, write_jsonl
from potstill.components.chat.format import ChatFormat
from potstill.components.chat.reasoning import as_chosen
from potstill.components.runtimes import gguf, latency
from potstill.core.artifacts.answers import JudgedAnswer, answers_file, write_answers
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.records import Row, read_rows
from potstill.stages.package import example
from potstill.stages.package.stage import STAGE as PACKAGE
from potstill.stages.speed.stage import STAGE as SPEED
from stage_runs import run_stage, stage_inputs

THOUGHT = {"role": "assistant", "content": "<think>" + "a long thought " * 20 + "</think>\n\nOn."}


@pytest.fixture
def run(tmp_path: Path) -> tuple[Any, dict[str, Path], list[Row]]:
    """A finished run whose test rows have thinking in an earlier turn, and the rows as evaluate takes them."""
    recipe, steps = finished_run(tmp_path, RECIPE.replace("context: 512", "context: 512, reasoning: drop"))
    row = light_row("hall", "on", "kindly ")
    write_jsonl(recipe.data.test, [row | {"messages": [*row["messages"], THOUGHT, *row["messages"]]}])
    return recipe, steps, as_chosen(read_rows(recipe.data.test, tools=recipe.data.tools), "drop")


def test_speed_counts_prompts_without_it(
    run: tuple[Any, dict[str, Path], list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, steps, rows = run
    counted: list[int] = []

    def measure(model: Any, prompt_tokens: list[int], **_: Any) -> MeasuredSpeed:
        counted.extend(prompt_tokens)
        return MeasuredSpeed.read(steps["speed"])

    monkeypatch.setattr(latency, "measure_speed", measure)
    run_stage(SPEED, recipe, steps, tmp_path / "out")
    chat = stage_inputs(SPEED, recipe, steps).chat.load(steps["train"] / "student")
    assert counted == [len(chat.prompt_ids(row)) for row in rows]


def test_the_cards_request_is_a_row_without_it(
    run: tuple[Any, dict[str, Path], list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, steps, rows = run
    path = steps["evaluate"] / answers_file("gguf")
    judged = JudgedAnswer(
        row_id=rows[0].row_id,
        behaviour="tool_call",
        prompt="",
        text="",
        finish_reason="stop",
        exact=True,
        parses=True,
        schema_valid=True,
        expected="",
    )
    write_answers(path, [judged])

    def ask(server: Any, chat: ChatFormat, row: Row, limit: int) -> example.Example:
        return example.Example(row, {}, {}, right=True)

    monkeypatch.setattr(gguf, "GGUFServer", lambda *_, **__: nullcontext())
    monkeypatch.setattr(example, "_ask", ask)
    inputs = stage_inputs(PACKAGE, recipe, steps)
    chat = inputs.chat.load(steps["train"] / "student")
    assert example.find_example(inputs, chat, inputs.gguf.path).row.messages == rows[0].messages
