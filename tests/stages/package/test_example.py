"""The model card's request is answered by the packaged file, through llama.cpp's server, as the card says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from finished_run import finished_run
from potstill.components.chat.format import load_chat
from potstill.components.checkers.judge import judge_answer
from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.conversion.file_template import file_template
from potstill.components.packages.verify import verify_package
from potstill.components.parity.prompts import compare_template
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.chat_reply import ChatReply
from potstill.components.runtimes.gguf import GGUFServer
from potstill.components.runtimes.gguf_runtime import GGUFRuntime
from potstill.core.artifacts.answers import JudgedAnswer as Judged
from potstill.core.artifacts.answers import answers_file, read_answers
from potstill.core.artifacts.exported import Exported
from potstill.core.artifacts.manifest import Manifest
from potstill.core.errors import StepError
from potstill.core.hashing import hash_file
from potstill.core.records import Row, read_rows
from potstill.stages.evaluate.answers import TestBench
from potstill.stages.package.stage import STAGE
from stage_runs import run_stage

DEMO = Path(__file__).parents[3] / "examples" / "home-assistant"
RECIPE = """
name: home
data: {prompts: data/train.jsonl, test: data/test.jsonl, tools: data/tools.json}
chat: {context: 512}
teacher: {model: teacher}
generate: {max_new_tokens: 160}
student: {init: teacher_layers, layers: 4}
licenses: {package: apache-2.0}
"""
ROWS = 24


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Path]]:
    """A finished run whose file is the demo's teacher, quantized, with its answers to the first test rows."""
    folder = tmp_path_factory.mktemp("home")
    recipe, steps = finished_run(folder, RECIPE)
    shutil.rmtree(steps["train"] / "student")
    shutil.copytree(DEMO / "teacher", steps["train"] / "student")
    shutil.copy(DEMO / "tools.json", recipe.data.tools)
    lines = (DEMO / "data" / "test.jsonl").read_text().splitlines()
    several = [line for line in lines if '"multi_call"' in line][:6]
    recipe.data.test.write_text("\n".join([*lines[: ROWS - 6], *several]) + "\n")
    chat = load_chat(DEMO / "teacher")
    file = steps["export"] / Exported.read(steps["export"]).file
    convert_checkpoint(DEMO / "teacher", file, quantization="Q8_0", chat_template=file_template(chat))
    rows = read_rows(recipe.data.test, tools=recipe.data.tools)
    with GGUFServer(file, context=4 * 512, parallel=4) as server:
        assert compare_template(server, chat, rows).identical == ROWS
        bench = TestBench(rows, Sampling(160), "hermes", steps["evaluate"])
        path = steps["evaluate"] / answers_file("gguf")
        path.unlink()
        answers = bench.answers("gguf", GGUFRuntime(server, chat, 512, 4))
    assert read_answers(path, Judged) == answers
    return recipe, steps


def test_calls_through_the_endpoint_are_right_and_read_alike(home: tuple[Any, dict[str, Path]]) -> None:
    """Of rows that ask for one call, for two, and for none."""
    answers = read_answers(home[1]["evaluate"] / answers_file("gguf"), Judged)
    for behaviour in ("tool_call", "multi_call"):
        right = [a.exact for a in answers if a.behaviour == behaviour]
        assert len(right) >= 4 and sum(map(bool, right)) >= 0.75 * len(right)
    assert sum(a.served is not None for a in answers) == 0


def shell_body(folder: Path, command: str) -> Any:
    """The body that a command of the card sends, as a shell puts it together."""
    told = 'curl() { for last; do :; done; printf %s "$last"; }\n'
    done = subprocess.run(["bash", "-c", told + command], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def commands(card: str) -> list[str]:
    """The commands of the card's shell blocks that ask something."""
    blocks = re.findall(r"```sh\n(.*?)```", card, re.DOTALL)
    return [block[block.index("curl") :] for block in blocks if "curl" in block]


def test_packaged_demo_file_answers_its_own_cards_request(home: tuple[Any, dict[str, Path]], tmp_path: Path) -> None:
    recipe, steps = home
    run_stage(STAGE, recipe, steps, tmp_path)
    folder = tmp_path / "package"
    card = (folder / "README.md").read_text()
    chat, ollama = (shell_body(folder, command) for command in commands(card))
    expected = json.loads(re.findall(r"```json\n(.*?)```", card, re.DOTALL)[0])
    with GGUFServer(next(folder.glob("*.gguf")), context=512) as server:
        message = server.post("/v1/chat/completions", chat)["choices"][0]["message"]
        reply = ChatReply.model_validate(
            server.post("/v1/chat/completions", chat | {"verbose": True, "return_tokens": True})
        )
    for call in message["tool_calls"]:
        del call["id"]
    assert message == expected
    (row,) = (r for r in read_rows(recipe.data.test, tools=folder / "tools.json") if _asks(r, chat))
    assert row.behaviour == "tool_call"
    assert judge_answer(reply.parsed, row).exact
    # what the card sends is what the student has learnt to answer
    assert reply.usage.prompt_tokens == len(load_chat(DEMO / "teacher").prompt_ids(row))
    assert (ollama["messages"], ollama["tools"]) == (chat["messages"], chat["tools"])
    assert ollama["model"] == recipe.name and ollama["stream"] is False


def _asks(row: Row, body: Any) -> bool:
    return [m.for_api() for m in row.messages] == body["messages"]


def test_tools_are_in_the_package_with_their_hash(home: tuple[Any, dict[str, Path]], tmp_path: Path) -> None:
    recipe, steps = home
    run_stage(STAGE, recipe, steps, tmp_path)
    tools = tmp_path / "package" / "tools.json"
    assert tuple(json.loads(tools.read_text())) == read_rows(recipe.data.test, tools=recipe.data.tools)[0].tools
    assert Manifest.read(tools.parent).files["tools.json"].sha256 == hash_file(tools)
    assert verify_package(tools.parent) == []


def test_a_file_that_no_longer_answers_as_it_was_judged_is_not_packaged(
    home: tuple[Any, dict[str, Path]], tmp_path: Path
) -> None:
    """Each answer was said to be right, and by changed golds none is."""
    recipe, steps = home
    before = recipe.data.test.read_text()
    rows = [json.loads(line) for line in before.splitlines()]
    for row in rows:
        row["gold"] = {"calls": [{"name": "run_scene", "arguments": {"scene": ["never"]}}]}
        row["behaviour"] = "tool_call"
    recipe.data.test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        with pytest.raises(StepError, match=r"test\.jsonl:\d+, .* right, as it did when it was evaluated"):
            run_stage(STAGE, recipe, steps, tmp_path)
    finally:
        recipe.data.test.write_text(before)
    assert not (tmp_path / "package").exists()


def test_quotes_in_a_request_survive_the_shell(home: tuple[Any, dict[str, Path]], tmp_path: Path) -> None:
    from potstill.stages.package.example import Example, tools_text
    from potstill.stages.package.usage import usage_section
    from stage_runs import stage_inputs

    said = 'it\'s "on" $HOME `ls` \\ ü\n<|x|> \'"$(cat tools.json)"\''
    row = read_rows(home[0].data.test, tools=home[0].data.tools)[0]
    request = {"messages": [{"role": "user", "content": said}], "tools": list(row.tools), "max_tokens": 9}
    (tmp_path / "tools.json").write_text(tools_text(row))
    text = usage_section(stage_inputs(STAGE, *home), Example(row, request, {"role": "assistant"}, right=None))
    assert shell_body(tmp_path, commands(text)[0]) == request
