"""A GGUF file alone answers as llama.cpp's chat endpoint does, and its answers are kept with what was parsed."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from potstill.cli.main import main
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.gguf import GGUFServer
from potstill.components.runtimes.gguf_chat import GGUFChat
from potstill.components.runtimes.journal import Journal
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.core.artifacts.suite_results import read_results
from potstill.core.records import Message, Row

SAMPLING = Sampling(max_new_tokens=8)


def row(text: str) -> Row:
    return Row(messages=(Message(role="user", content=text),))


def test_answers_are_kept(random_model: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.sqlite", "model", "run")
    rows = [row("one"), row("two"), row("word " * 400)]
    with GGUFServer(random_model.with_suffix(".gguf"), context=512, parallel=2) as server:
        runtime = GGUFChat(server, 2)
        first = JournaledRuntime(runtime, journal).answer(rows, SAMPLING, "test")
        # a prompt that does not fit is an answer that was cut off, and no error
        assert (first[2].text, first[2].finish_reason) == ("", "length")
        assert all(answer.parsed is not None and answer.prompt_tokens > 0 for answer in first[:2])
    # the server has gone: all answers come from the journal, with their calls and words
    assert JournaledRuntime(runtime, journal).answer(rows, SAMPLING, "test") == first


def test_a_gguf_file_is_evaluated(chain_model: Path, tmp_path: Path) -> None:
    lines = [
        {"messages": [{"role": "user", "content": "a"}], "expected": {"kind": "exact", "text": "x"}, "tags": ["t"]}
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run, suite, gguf = CliRunner().invoke, str(tmp_path / "s"), chain_model.with_suffix(".gguf")
    run(main, ["suite", "import", suite, str(tmp_path / "items.jsonl"), "--from", "items"])
    done = run(main, ["evaluate", str(gguf), "--suite", suite, "--out", str(tmp_path / "out"), "--threads", "1"])
    assert done.exit_code == 0, done.output
    results, items = read_results(tmp_path / "out")
    found = results.conditions
    assert (found.runtime, found.quantization, results.model.name) == ("llama.cpp", "F32", gguf.name)
    assert items[0].text
