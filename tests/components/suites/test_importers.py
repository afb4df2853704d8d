"""Importers read what other tools write, and count what they leave out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures import TOOLS, light_rows, write_jsonl
from potstill.components.chat.tool_calls import ParsedAnswer, parse_answer
from potstill.components.suites.checks import check_answer, check_expected
from potstill.components.suites.importers import IMPORTERS, Source
from potstill.components.suites.importers.imported import Imported
from potstill.components.suites.items import Item
from potstill.core.errors import DataError
from potstill.core.messages import Call


def imported(kind: str, path: Path, **more: Any) -> Imported:
    found = IMPORTERS[kind](Source(path, **more))
    check_expected(found.items)
    return found


def says(item: Item, text: str) -> bool:
    return check_answer(item, ParsedAnswer((), text)).right


def test_rows(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    more: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "Hi"}], "completion": {"role": "assistant", "content": "Hello!"}},
        {"messages": [{"role": "user", "content": "Hm"}]},
        {"messages": [{"role": "user", "content": "Light"}], "behaviour": "clarify", "gold": {"match": "room"}},
        {"messages": [{"role": "user", "content": "Fly"}], "behaviour": "refuse", "group": "g"},
        {"messages": [{"role": "user", "content": "1+1"}], "gold": {"equals": ["2", "two"]}, "id": "d7#2"},
    ]
    found = imported("rows", write_jsonl(tmp_path / "rows.jsonl", [*light_rows([""]), *more]))
    assert len(found.items) == 12 + 4
    assert found.left_out == {"the row does not say which answers are right": 1}
    first = found.items[0]
    assert first.tags == ("tool_call", "set_light")
    text = '<tool_call>{"name": "set_light", "arguments": {"room": "kitchen", "state": "on"}}</tool_call>'
    assert check_answer(first, parse_answer(text, "auto", first.tools)).right
    assert [i.expected.kind for i in found.items[12:]] == ["exact", "clarification", "refusal", "one_of"]
    assert [i.group for i in found.items[12:]] == [None, None, "g", "d7"]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "prompt,expected,kind,tags,core,system\r\n"
        '"Is 1,000 > 1?",yes|Yes,one_of,compare;yes no,true,Be brief.\r\n'
        "Capital of France?,Paris,,,,\r\n"
        '"Two\nlines",-1.5,numeric,,no,\r\n'
        'JSON,"{""type"": ""object""}",schema,,,\r\n'
    )
    found = imported("csv", path).items
    assert found[0].messages[0].content == "Be brief."
    assert (found[0].tags, found[0].core) == (("compare", "yes no"), True)
    assert [says(item, text) for item, text in zip(found, ["yes", "Paris", "-1.5", "{}"], strict=True)] == [True] * 4
    assert not says(found[2], "15")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,answer\na,b\n", "no column 'expected'"),
        ("prompt,expected,tag\na,b,c\n", "unknown column 'tag'; did you mean 'tags'"),
        ("prompt,expected\na,b,c\n", ":2: the line has another number of cells"),
        ("prompt,expected,core\na,b,maybe\n", ":2: core is 'maybe'"),
        ("prompt,expected,kind\na,{,schema\n", ":2: what is expected as schema is not valid JSON"),
        ("prompt,expected,kind\na,b,magic\n", ":2: unknown kind 'magic'"),
    ],
)
def test_csv_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        imported("csv", path)


BFCL_TOOL = {
    "name": "area",
    "description": "Area",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "float", "description": "b"},
            "unit": {"type": "string", "description": "u"},
            "box": {"type": "dict", "properties": {"w": {"type": "integer"}, "h": {"type": "integer"}}},
        },
        "required": ["base"],
    },
}


def write_bfcl(folder: Path, name: str, truth: Any) -> Path:
    question = {"id": "x_0", "question": [[{"role": "user", "content": "Area?"}]], "function": [BFCL_TOOL]}
    path = write_jsonl(folder / f"BFCL_v3_{name}.json", [question])
    if truth is not None:
        (folder / "possible_answer").mkdir(exist_ok=True)
        write_jsonl(folder / "possible_answer" / path.name, [{"id": "x_0", "ground_truth": truth}])
    return path


def test_bfcl(tmp_path: Path) -> None:
    truth = [{"area": {"base": [-1.5], "unit": ["cm", ""], "box": [{"w": [1, 2], "h": [3, ""]}, ""]}}]
    (item,) = imported("bfcl", write_bfcl(tmp_path, "simple", truth)).items
    assert item.tags == ("simple",)

    def right(**arguments: Any) -> bool:
        return check_answer(item, ParsedAnswer((Call(name="area", arguments=arguments),), "")).right

    assert right(base=-1.5)
    assert right(base=-1.5, unit="cm", box={"w": 2})
    assert right(base=-1.5, box={"w": 1, "h": 3})
    assert not right(base=15)
    assert not right(base="-1.5")
    assert not right(base=-1.5, box={"w": 3})
    assert not right(base=-1.5, other=1)


def test_bfcl_irrelevance_wants_words_that_can_be_read(tmp_path: Path) -> None:
    (item,) = imported("bfcl", write_bfcl(tmp_path, "irrelevance", None)).items
    assert says(item, "No function computes that.")
    assert not check_answer(item, ParsedAnswer((), "", "cannot be read")).right
    assert not check_answer(item, ParsedAnswer((Call(name="area", arguments={"base": 1}),), "")).right


def test_bfcl_without_its_answers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="possible_answer"):
        imported("bfcl", write_bfcl(tmp_path, "simple", None))


def test_ifeval(tmp_path: Path) -> None:
    lines = [
        {
            "key": 1,
            "prompt": "Write 2 words, no commas",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [{"num_words": None}, {"num_words": 2.0, "relation": "at least", "letter": None}],
        },
        {
            "key": 2,
            "prompt": "In Hindi",
            "instruction_id_list": ["language:response_language"],
            "kwargs": [{"language": "hi"}],
        },
    ]
    found = imported("ifeval", write_jsonl(tmp_path / "input_data.jsonl", lines))
    assert found.left_out == {"the instruction 'language:response_language' cannot be verified": 1}
    (item,) = found.items
    assert item.tags == ("punctuation", "length_constraints")
    assert says(item, "two words")
    assert not says(item, "one")
    assert not says(item, "one, two")


def test_promptfoo(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Translate to {{ language }}: {{text}}")
    messages = [{"role": "system", "content": "{{language}}"}, {"role": "user", "content": "{{text}}"}]
    config = {
        "prompts": ["file://p.txt", json.dumps(messages)],
        "defaultTest": {"vars": {"language": "French"}, "assert": [{"type": "icontains", "value": "{{text}}!"}]},
        "tests": [
            {
                "vars": {"text": "hello"},
                "assert": [
                    {"type": "equals", "value": "Bonjour"},
                    {"type": "contains-all", "value": ["Bon", "a.b"]},
                    {"type": "contains-any", "value": ["x", "Y"]},
                    {"type": "is-json"},
                    {"type": "llm-rubric", "value": "is polite"},
                ],
            },
            {"vars": {"text": ["a", "b"]}, "assert": [{"type": "regex", "value": "a"}]},
        ],
    }
    path = tmp_path / "promptfooconfig.yaml"
    path.write_text(yaml.safe_dump(config))
    found = imported("promptfoo", path)
    assert len(found.items) == 2 * 5
    assert found.left_out == {
        "the assertion 'llm-rubric' is not supported": 2,
        "a variable has several values": 4,
    }
    first = found.items[:5]
    assert first[0].prompt == "Translate to French: hello"
    assert len({item.group for item in first}) == 1
    assert [m.role for m in found.items[5].messages] == ["system", "user"]
    texts = [("Hello! you", "hello"), ("Bonjour", "bonjour"), ("a.b Bon", "axb Bon"), ("Y", "y"), ("[1]", "[1")]
    for item, (right, wrong) in zip(first, texts, strict=True):
        assert says(item, right), item.expected
        assert not says(item, wrong), item.expected


@pytest.mark.parametrize(
    ("kind", "folder", "count", "tag"),
    [
        ("clinc150", "clinc150", 5500, "out of scope"),
        ("rows", "snips_tools", 700, "tool_call"),
        ("rows", "sgd_tools", 400, "tool_call"),
        ("gsm8k", "gsm8k", 1319, "1 to 2 steps"),
    ],
)
def test_real_data(shared_data: Path, kind: str, folder: str, count: int, tag: str) -> None:
    split = "validation" if folder == "snips_tools" else "test"
    found = IMPORTERS[kind](Source(shared_data / folder, split))
    assert len(found.items) == count
    assert not found.left_out
    assert any(tag in item.tags for item in found.items)
    check_expected(found.items[:50])
    if kind == "gsm8k":
        assert all(says(item, f"so #### {item.expected.to_json()['value']}") for item in found.items)
