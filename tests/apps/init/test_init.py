"""A tokenizer and a model made from rows are ready for a recipe: rendered, checked, converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from fixtures import light_rows, write_jsonl
from potstill.apps.init.tokenizer import MIN_VOCABULARY, train_tokenizer
from potstill.cli.main import main
from potstill.components.chat.format import load_chat
from potstill.components.conversion.convert import convert_checkpoint
from potstill.core.records import Message, Row, read_rows
from potstill.core.steps import read_step

SHAPE = "llama:layers=2,hidden=32,ffn=64,heads=2"


def init(*options: Any) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, options)])


@pytest.fixture
def rows(workload: Path) -> list[Row]:
    return read_rows(workload / "train.jsonl", tools=workload / "tools.json")


def test_a_row_is_read_back_from_its_tokens(tmp_path: Path, rows: list[Row]) -> None:
    train_tokenizer(rows, tmp_path / "t", 400)
    chat = load_chat(tmp_path / "t")
    example = chat.example(rows[0])
    assert example.eos_supervised
    answer = chat.tokenizer.decode(list(example.ids[example.n_prompt :]), skip_special_tokens=False)
    assert answer == (
        '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "state": "on"}}\n</tool_call><|im_end|>'
    )


@pytest.mark.parametrize("text", ["naïve 灯 😀\u2028 \x07", "<|im_end|>", "12345 it's\r\n\n  x"])
def test_any_text_has_tokens(tmp_path: Path, rows: list[Row], text: str) -> None:
    train_tokenizer(rows, tmp_path / "t", MIN_VOCABULARY)
    tokenizer = load_chat(tmp_path / "t").tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_the_same_rows_give_the_same_files(tmp_path: Path, rows: list[Row]) -> None:
    made = [train_tokenizer(rows, tmp_path / name, 500) for name in ("a", "b")]
    assert made[0] == made[1] and made[0].tokens <= 500
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_more_merges_make_longer_tokens(tmp_path: Path, rows: list[Row]) -> None:
    assert train_tokenizer(rows, tmp_path / "a", MIN_VOCABULARY).bytes_per_token == pytest.approx(1.0)
    assert train_tokenizer(rows, tmp_path / "b", 400).bytes_per_token > 2


def test_tool_calls_and_results_are_rendered(tmp_path: Path, rows: list[Row]) -> None:
    train_tokenizer(rows, tmp_path / "t", 300)
    completion = rows[0].completion
    assert completion is not None
    turns = (Message(role="system", content="Be brief."), *rows[0].messages, completion)
    text = load_chat(tmp_path / "t").render((*turns, Message(role="tool", content="done")), rows[0].tools)
    system, *rest = text.split("<|im_start|>")[1:]
    assert system.startswith("system\nBe brief.\n\nTools:\n{")
    assert [part.partition("\n")[0] for part in rest] == ["user", "assistant", "tool"]


def test_the_command_makes_a_student_that_check_accepts(tmp_path: Path, workload: Path) -> None:
    folder = tmp_path / "start"
    done = init(
        folder, "--tokenizer", workload / "train.jsonl", "--tools", workload / "tools.json", "--vocabulary", 400,
        "--shape", SHAPE, "--context", 512, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["parameters"] > 10_000
    recipe = workload / "recipe.yaml"
    files = {"prompts": "train.jsonl", "test": "test.jsonl", "tools": "tools.json"}
    recipe.write_text(
        yaml.safe_dump(
            {
                "name": "first",
                "data": files,
                "chat": {"context": 512},
                "generate": {"max_new_tokens": 64},
                "teacher": {"kind": "api", "model": "m", "base_url": "http://127.0.0.1:1/v1"},
                "student": {"init": "checkpoint", "model": str(folder)},
                "train": {"objective": "sft"},
            }
        )
    )
    checked = CliRunner().invoke(main, ["check", str(recipe), "--runs", str(tmp_path / "runs")])
    assert checked.exit_code == 0, checked.output
    assert read_step(next((tmp_path / "runs" / "first").glob("check-*"))) is not None


def test_llama_cpp_gets_its_own_name_of_the_pre_tokenizer(tmp_path: Path, workload: Path) -> None:
    folder = tmp_path / "start"
    assert init(folder, "--tokenizer", workload / "train.jsonl", "--vocabulary", 300, "--shape", SHAPE).exit_code == 0
    convert_checkpoint(folder, tmp_path / "f16.gguf")
    import gguf

    field = gguf.GGUFReader(tmp_path / "f16.gguf").get_field("tokenizer.ggml.pre")
    assert field is not None and field.contents() == "qwen2"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--vocabulary", "200"], "a vocabulary has at least 261 tokens"),
        (["--shape", "lama:layers=1"], "did you mean 'llama'?"),
        (["--tools", "absent.json"], "no such file"),
    ],
)
def test_a_refusal_leaves_nothing(tmp_path: Path, workload: Path, options: list[str], says: str) -> None:
    refused = init(tmp_path / "start", "--tokenizer", workload / "train.jsonl", *options)
    assert refused.exit_code in (1, 2) and says in refused.output
    assert not list(tmp_path.glob("start*"))


def test_a_folder_with_files_is_not_touched(tmp_path: Path, workload: Path) -> None:
    refused = init(workload, "--tokenizer", workload / "train.jsonl")
    assert refused.exit_code == 2 and "not an empty folder" in refused.output
    write_jsonl(tmp_path / "rows.jsonl", light_rows([""]))
    assert len(list(workload.iterdir())) == 4
