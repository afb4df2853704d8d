"""A folder with a recipe is made from files: split without near-duplicates across, whole or not at all."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import ROOT, SHARED, write_jsonl
from potstill.apps.init.gates import suggested_gates
from potstill.apps.init.guess import guess_answers
from potstill.apps.init.split import asked_text, split_rows
from potstill.cli.main import main
from potstill.components.checkers.judge import judge
from potstill.components.curriculum.sampled import rows_of_tools
from potstill.components.filters.near_duplicates import THRESHOLD, resemblance
from potstill.core.errors import DataError
from potstill.core.recipe import load_recipe
from potstill.core.records import Message, Row, parse_row, read_rows
from potstill.core.tools import argument_validators, canonical_tools

HOME = ROOT / "examples" / "home-assistant"
SPLITS = ("train", "validation", "test")


def init(*options: Any) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, options)])


def row(text: str, answer: Any = None, **others: Any) -> Row:
    completion = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
    return parse_row(
        {"messages": [{"role": "user", "content": text}], "completion": completion, **others}, (), False, "x"
    )


SENTENCE = "please turn the kitchen lights on off now and set a timer for ten minutes"
WORDS = st.sampled_from(SENTENCE.split())


@settings(max_examples=30)
@given(
    st.lists(st.lists(WORDS, min_size=4, max_size=9).map(" ".join), min_size=12, max_size=60, unique=True),
    st.integers(0, 5),
)
def test_near_duplicates_and_groups_stay_in_one_split(texts: list[str], seed: int) -> None:
    rows = [row(text, group=str(number // 3) if number < 9 else None) for number, text in enumerate(texts)]
    try:
        split = split_rows(rows, seed)
    except DataError:  # the texts are too much alike
        return
    parts = [split.train, split.validation, split.test]
    assert sorted(r.row_id for part in parts for r in part) == sorted(r.row_id for r in rows)
    assert split.train and split.validation and split.test
    for one, other in ((a, b) for a in range(3) for b in range(a)):
        for a, b in product(parts[one], parts[other]):
            assert resemblance(asked_text(a), asked_text(b)) < THRESHOLD + 0.1
            assert a.group is None or a.group != b.group


def test_the_shares_of_the_splits() -> None:
    rows = [
        row(f"question {number} {random.Random(number).random()} {number * 7919 % 1000003}") for number in range(200)
    ]
    split = split_rows(rows, 0)
    assert (len(split.test), len(split.validation), len(split.train)) == (40, 20, 140)
    assert [r.row_id for r in split_rows(rows, 0).test] == [r.row_id for r in split.test]
    assert [r.row_id for r in split_rows(rows, 1).test] != [r.row_id for r in split.test]


def test_turns_of_one_conversation_stay_together() -> None:
    rows = []
    for number in range(12):
        first = [Message(role="user", content=f"hello {number} {'abcdefghijkl'[number] * 9}")]
        later = [*first, Message(role="assistant", content="Hi."), Message(role="user", content="Tell me more please")]
        rows += [Row(messages=tuple(first)), Row(messages=tuple(later))]
    split = split_rows(rows, 3)
    for part in (split.train, split.validation, split.test):
        assert len(part) % 2 == 0 and part


def test_too_few_different_rows_are_refused() -> None:
    with pytest.raises(DataError, match="in 2 groups, and at least 3"):
        split_rows([row("turn it on"), row("Turn it on!"), row("what is the weather")], 0)


@pytest.mark.parametrize("endpoint", ["notaurl", "http://me:secret@host/v1"])
def test_a_bad_endpoint_is_named_as_the_option(tmp_path: Path, endpoint: str) -> None:
    rows = [{"prompt": f"{word} {word * 2}", "answer": "yes"} for word in ("ab", "cd", "ef", "gh", "ij", "kl")]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    done = init(tmp_path / "new", "--from", source, "--teacher", "large", "--endpoint", endpoint)
    assert done.exit_code == 2
    assert done.stderr.startswith("potstill: --endpoint: ") and "recipe.yaml" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_an_empty_object_is_said_to_be_empty(tmp_path: Path) -> None:
    done = init(tmp_path / "new", "--from", write_jsonl(tmp_path / "rows.jsonl", [{}, {"prompt": "Hi"}]))
    assert done.exit_code == 2 and "rows.jsonl:1: the first entry is empty." in done.stderr


def test_behaviours_and_golds_come_from_right_answers() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]}
    rows = [
        row("1", call, tools=[tool]), row("2", "Which room do you mean?", tools=[tool]),
        row("3", "Sorry, I cannot do that.", tools=[tool]), row("4", '{"a": 1}'), row("5", "Paris"),
        row("6", "There are many ways to look at this. " * 5), row("7"),
    ]  # fmt: skip
    found = guess_answers(rows, right=True)
    assert [r.behaviour for r in found.rows] == ["tool_call", "clarify", "refuse", *["answer"] * 4]
    assert found.rows[0].gold and found.rows[0].gold.calls[0].arguments == {"a": [1]}
    assert found.rows[4].gold and found.rows[4].gold.equals == ("Paris",)
    assert found.rows[5].gold and found.rows[5].gold.continuation
    assert found.counts["free text"] == found.counts["no answer"] == 1
    assert all(r.gold is None for r in guess_answers(rows, right=False).rows)


@pytest.mark.parametrize(
    ("written", "right", "wrong"),
    [
        ("1,200", ["1200", "$1,200", "1200.00", "1200 eggs"], ["200", "12000", "1,2000", "1200.5", "1200/7", "-1200"]),
        ("-3.50", ["-3.5", "-$3.50"], ["3.5", "-3.51", "-3"]),
        ("0", ["0", "0.0"], ["10", "01", "0.5"]),
    ],
)
def test_reasoning_that_ends_in_a_number_is_judged_by_the_number(
    written: str, right: list[str], wrong: list[str]
) -> None:
    found = guess_answers([row("How many?", f"First this.\nThen <<3*4=12>>12 of that.\n#### {written}")], right=True)
    assert found.kinds == ["final number"]
    for answer in right:
        assert judge(f"Some other way: 7 + 5.\n#### {answer}", found.rows[0]).exact, answer
    for answer in wrong:
        assert judge(f"Some other way.\n#### {answer}", found.rows[0]).exact is False, answer
    assert judge(f"#### {written}\nNo.\n#### 99", found.rows[0]).exact is False
    assert judge(f"It is {written}.", found.rows[0]).exact is False


@pytest.mark.skipif(not (SHARED / "gsm8k").is_dir(), reason="needs gsm8k")
def test_every_answer_of_gsm8k_can_be_judged() -> None:
    lines = (SHARED / "gsm8k" / "test.jsonl").read_text().splitlines()[:200]
    rows = [row(value["question"], value["answer"]) for value in map(json.loads, lines)]
    found = guess_answers(rows, right=True)
    assert found.counts == {"final number": len(rows)}
    for each, line in zip(found.rows, lines, strict=True):
        assert judge(f"By reasoning.\n#### {json.loads(line)['answer'].rpartition('#### ')[2]}", each).exact


def test_answers_that_are_a_few_classes_are_labels() -> None:
    rows = [row(str(number), ["refund", "shipping"][number % 2]) for number in range(20)]
    assert guess_answers(rows, right=True).counts == {"label": 20}


def test_calls_made_from_schemas_fit_them() -> None:
    tools = canonical_tools(json.loads((HOME / "tools.json").read_text()), "x")
    rows = rows_of_tools(tools, 5, 0)
    validators = argument_validators(tools, "x")
    assert {r.completion.tool_calls[0].function.name for r in rows if r.completion} == set(validators)
    for each in rows:
        assert each.completion is not None and each.gold is not None
        call = each.completion.tool_calls[0].call
        assert validators[call.name].is_valid(call.arguments)
        assert each.gold.calls[0].arguments == {name: [value] for name, value in call.arguments.items()}


def test_gates_are_those_that_the_rows_can_decide() -> None:
    def judged(count: int) -> list[Row]:
        return [row(str(number), "yes", gold={"equals": ["yes"]}) for number in range(count)]

    assert suggested_gates(judged(5)) is None
    few, many = suggested_gates(judged(30)), suggested_gates(judged(1000))
    assert few is not None and (few.retention, few.quantization_drop) == (0.8, None)
    assert many is not None and (many.retention, many.quantization_drop) == (0.9, 0.02)


def test_a_recipe_is_written_that_check_accepts(tmp_path: Path) -> None:
    models = ["--teacher", HOME / "teacher", "--student", HOME / "base"]
    made = init(tmp_path / "new", "--from", HOME / "data" / "labelled.jsonl", HOME / "tools.json", *models)
    assert made.exit_code == 0, made.output
    assert "rows; their answers are taken as right" in made.output
    recipe = load_recipe(tmp_path / "new" / "recipe.yaml")
    rows = {
        name: read_rows(tmp_path / "new" / f"{name}.jsonl", tools=tmp_path / "new" / "tools.json") for name in SPLITS
    }
    assert sum(map(len, rows.values())) == 300 and all(r.gold for r in rows["test"] if r.behaviour == "tool_call")
    checked = CliRunner().invoke(main, ["check", str(recipe.folder / "recipe.yaml"), "--runs", str(tmp_path / "runs")])
    assert checked.exit_code == 0, checked.output


def test_repeated_prompts_with_other_answers_are_counted(tmp_path: Path) -> None:
    lines = [f"What is {word}?,{word}" for word in ("wombat", "glacier", "harpsichord", "nebula", "quince")]
    (tmp_path / "t.csv").write_text("\n".join(("prompt,answer", *lines, lines[0], "What is quince?,fruit\n")))
    made = init(tmp_path / "new", "--from", tmp_path / "t.csv")
    assert "same tools: 2 rows, 1 of them with another answer than the first" in made.output


def test_a_log_is_learnt_from_without_asking_again(tmp_path: Path) -> None:
    entries = []
    for word in ("wombat", "glacier", "harpsichord", "nebula", "quince", "trebuchet"):
        message = {"role": "assistant", "content": f"A {word}."}
        asked = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"{word} is what?"}]}
        entries.append({"request": asked, "response": {"choices": [{"message": message, "finish_reason": "stop"}]}})
    write_jsonl(tmp_path / "log.jsonl", [*entries, entries[0]])
    made = init(tmp_path / "new", "--from", tmp_path / "log.jsonl", "--student", HOME / "base")
    assert made.exit_code == 0, made.output
    assert "gpt-4o-mini" in made.output and "same tools: 1 row" in made.output
    recipe = load_recipe(tmp_path / "new" / "recipe.yaml")
    assert recipe.teacher.kind == "api" and recipe.generate.samples == 0  # type: ignore[union-attr]
    checked = CliRunner().invoke(main, ["check", str(recipe.folder / "recipe.yaml"), "--runs", str(tmp_path / "runs")])
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"messages": [}\n', "not valid JSON"), ('{"prompt": "a"}\n', "1 row in 1 group"), ("", "the file is empty")],
)
def test_bad_input_is_one_paragraph_and_leaves_nothing(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    made = init(tmp_path / "new", "--from", tmp_path / "x.jsonl")
    assert made.exit_code == 2 and message in made.output and "Traceback" not in made.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jsonl"]


def test_one_of_the_two_ways_is_chosen(tmp_path: Path) -> None:
    assert init(tmp_path / "new").exit_code == 2
    assert init(tmp_path / "new", "--tokenizer", "a", "--from", "b").exit_code == 2
    assert init(tmp_path / "new", "x.jsonl", "--tokenizer", "a").exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((".", "--from", "t.csv"), ". is a link or the current folder"),
        (("link", "--from", "t.csv"), "link is a link or the current folder"),
        (("new", "--from", "t.csv", "--vocabulary", "9"), "--vocabulary is for --tokenizer"),
        (("new", "--tokenizer", "t.csv", "--teacher", "x"), "--teacher is for a recipe"),
        (("--from-log", "t.csv", "--student", "x"), "--student is for a recipe"),
        (("--from-log", "t.csv", "--price", "nan", "1"), "'nan' is not a finite number"),
        (("--from-log", "t.csv", "--price", "1", "-1"), "-1.0 is not in the range x>=0"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("prompt\nWhat is a wombat?\nIs it open now?\nTurn the light on\nPlay music\n")
    Path("link").symlink_to("nowhere")
    done = CliRunner().invoke(main, ["init", *options])
    assert done.exit_code == 2 and message in done.output and not Path("new").exists()
