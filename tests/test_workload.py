"""The quickstart workload: splits that share nothing, answers that satisfy their own gold, a lossless tokenizer."""

from __future__ import annotations

import copy
import importlib
import json
import random
import re
import sys
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.core.records import Row
from potstill.core.tools import read_tools

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "home-assistant"
SIZES = {"test": 600, "validation": 300, "train": 4000}
ALWAYS_OPEN = ("item", "song", "artist", "person", "city", "name", "text")


def example_module(name: str) -> Any:
    sys.path.insert(0, str(EXAMPLE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLE))


@pytest.fixture(scope="module")
def workload() -> Any:
    return example_module("workload")


@pytest.fixture(scope="module")
def splits(workload: Any) -> dict[str, list[dict[str, Any]]]:
    seen: set[str] = set()
    return {split: workload.generate(split, count, 0, seen) for split, count in SIZES.items()}


@pytest.fixture(scope="module")
def rows(splits: dict[str, list[dict[str, Any]]]) -> list[Row]:
    return [Row.model_validate(strip(row)) for split in splits.values() for row in split]


def strip(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("_")}


def letters(text: str) -> str:
    return re.sub(r"[^a-z0-9%]", "", text.lower())


def calls(row: Row) -> list[tuple[str, dict[str, Any]]]:
    assert row.completion is not None
    return [(call.function.name, json.loads(call.function.arguments)) for call in row.completion.tool_calls]


def satisfies(row: Row) -> bool:
    """Whether the completion meets the gold, written apart from potstill's own matcher."""
    assert row.gold is not None
    assert row.completion is not None
    if row.gold.match is not None:
        return not row.completion.tool_calls and bool(re.search(row.gold.match, row.completion.content or "", re.I))
    made = calls(row)
    if len(made) != len(row.gold.calls) or row.completion.content:
        return False
    return all(
        name == gold.name
        and arguments.keys() == gold.arguments.keys()
        and all(arguments[key] in accepted for key, accepted in gold.arguments.items())
        for (name, arguments), gold in zip(made, row.gold.calls, strict=True)
    )


def test_splits_share_no_text_template_or_open_value(splits: dict[str, list[dict[str, Any]]]) -> None:
    for one, other in combinations(splits.values(), 2):
        for view in (
            lambda row: {letters(row["messages"][0]["content"])},
            lambda row: set(row["provenance"]["template"].split("+")),
            lambda row: {
                (arg, values[0].lower())
                for call in row["gold"].get("calls", [])
                for arg, values in call["arguments"].items()
                if arg in ALWAYS_OPEN
            },
        ):
            left, right = ({entry for row in split for entry in view(row)} for split in (one, other))
            assert len(left) > 50
            assert not left & right


def test_no_text_stands_twice(splits: dict[str, list[dict[str, Any]]]) -> None:
    texts = Counter(letters(row["messages"][0]["content"]) for split in splits.values() for row in split)
    assert sum(count > 1 for count in texts.values()) <= 2  # texts that differ in spaces alone


def test_wordings_are_apart_and_made_of_known_words() -> None:
    sections = example_module("grammar").read_phrasings(EXAMPLE / "phrasings")
    owner: dict[str, set[tuple[str, str]]] = defaultdict(set)
    words: dict[str, set[str]] = defaultdict(set)
    for section in sections:
        for split, phrasings in section.phrasings.items():
            wordings = [wording.lower() for phrasing in phrasings for wording in phrasing.wordings]
            assert wordings, f"{section.name} has nothing for {split}"
            for wording in wordings:
                owner[re.sub(r"[^\w{} ]", "", wording)].add((section.name, split))
                words[split] |= set(re.findall(r"[a-z']+", re.sub(r"\{\w+\}", "", wording)))
    assert {wording: owners for wording, owners in owner.items() if len(owners) > 1} == {}
    assert words["test"] | words["validation"] <= words["train"]


def test_check_catches_a_leak_of_each_kind(workload: Any, splits: dict[str, list[dict[str, Any]]]) -> None:
    assert workload.check(splits)["test"]["rows"] == SIZES["test"]
    leak = copy.deepcopy(splits["test"][0])
    with pytest.raises(ValueError, match="share texts"):
        workload.check(splits | {"train": [*splits["train"], leak]})
    leak = next(copy.deepcopy(row) for row in splits["test"] if row["_open"])
    leak["messages"][0]["content"] = "something that nobody said"
    with pytest.raises(ValueError, match="share open values"):
        workload.check(splits | {"train": [*splits["train"], leak]})


def test_seed_decides_the_rows(workload: Any) -> None:
    first, again, other = (workload.generate("train", 60, seed, set()) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_shares_of_behaviours_and_tools(splits: dict[str, list[dict[str, Any]]]) -> None:
    for split, size in SIZES.items():
        counts = Counter(row["behaviour"] for row in splits[split])
        shares = (0.42, 0.26, 0.17, 0.15) if split == "train" else (0.5, 0.18, 0.16, 0.16)
        for behaviour, share in zip(("tool_call", "multi_call", "clarify", "refuse"), shares, strict=True):
            assert counts[behaviour] == round(size * share), behaviour
        tools = Counter(
            call["name"] for row in splits[split] if row["behaviour"] == "tool_call" for call in row["gold"]["calls"]
        )
        assert len(tools) == 14
        # a text that was there already is drawn again, for the next tool
        assert max(tools.values()) - min(tools.values()) <= max(2, size // 100)


def test_every_gold_and_made_call_fits_its_schema(rows: list[Row]) -> None:
    functions = {tool["function"]["name"]: tool["function"] for tool in read_tools(EXAMPLE / "tools.json")}
    check = {name: jsonschema_rs.validator_for(function["parameters"]) for name, function in functions.items()}
    for row in rows:
        for name, arguments in calls(row):
            check[name].validate(arguments)
            assert list(arguments) == [key for key in functions[name]["parameters"]["properties"] if key in arguments]
        for gold in row.gold.calls if row.gold else ():
            for index in range(max(len(accepted) for accepted in gold.arguments.values())):
                values = {key: accepted[min(index, len(accepted) - 1)] for key, accepted in gold.arguments.items()}
                check[gold.name].validate(values)


def test_completion_satisfies_its_own_gold(rows: list[Row]) -> None:
    for row in rows:
        assert satisfies(row), row
        assert (len(calls(row)) > 0) is (row.behaviour in ("tool_call", "multi_call"))
        assert (len(calls(row)) > 1) is (row.behaviour == "multi_call")


def test_the_two_refusals_do_not_pass_for_each_other(workload: Any) -> None:
    (cannot, cannot_match), (unsafe, unsafe_match) = workload.CANNOT, workload.UNSAFE
    assert not re.search(cannot_match, unsafe, re.I)
    assert not re.search(unsafe_match, cannot, re.I)


def test_a_question_does_not_pass_for_another_of_its_tool() -> None:
    sections = [s for s in example_module("grammar").read_phrasings(EXAMPLE / "phrasings") if s.kind == "clarify"]
    asked = {(section.target, section.missing): section for section in sections}
    assert len(asked) == len(sections) >= 16
    for one in sections:
        for other in sections:
            if one.target == other.target and one is not other:
                assert not re.search(one.match, other.ask, re.I), (one.name, other.name)


def test_copied_values_stand_in_the_text_as_written(rows: list[Row]) -> None:
    copied = (*ALWAYS_OPEN, "room", "door", "list", "scene")
    for row in rows:
        for _, arguments in calls(row):
            for key in copied:
                assert arguments.get(key, "") in (row.messages[0].content or ""), row


def test_noise_marks_what_it_did(splits: dict[str, list[dict[str, Any]]]) -> None:
    for row in splits["train"]:
        text, noise = row["messages"][0]["content"], row["provenance"].get("noise", "")
        if "plain@1" in noise:
            assert text == text.lower()
            assert not text.endswith((".", "!", "?"))
    names = {name for row in splits["train"] for name in row["provenance"].get("noise", "none").split(",")}
    assert names == {"none", "plain@1", "typos@1", "foreign@1", "run_on@1", "articles@1"}


@pytest.mark.parametrize(
    "slot", ["time", "minutes", "minutes_adj", "degrees", "level", "position", "brightness", "day", "move", "moved"]
)
def test_what_is_said_has_one_value(slot: str) -> None:
    filler = example_module("slots").Filler(random.Random(1), "test")
    values: dict[str, set[Any]] = defaultdict(set)
    for _ in range(4000):
        fill = filler.fill(slot, False)
        values[fill.surface].add(fill.value)
    assert len(values) > 2
    assert {surface: found for surface, found in values.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("hour", "minute", "said"),
    [
        (19, 45, "quarter to eight pm"),
        (19, 45, "seven forty five in the evening"),
        (7, 30, "half past seven in the morning"),
        (13, 5, "five past one in the afternoon"),
        (21, 0, "9 pm"),
        (9, 7, "9:07am"),
        (0, 30, "00:30"),
        (12, 0, "noon"),
    ],
)
def test_times_are_said_as_people_do(hour: int, minute: int, said: str) -> None:
    filler = example_module("slots").Filler(random.Random(2), "train")
    assert said in {filler._clock(hour, minute) for _ in range(300)}


def test_number_words() -> None:
    number_words = example_module("slots").number_words
    assert [number_words(n) for n in (0, 13, 20, 42, 99, 100)] == [
        "zero", "thirteen", "twenty", "forty two", "ninety nine", "one hundred",
    ]  # fmt: skip


def test_typos_leave_protected_words_alone() -> None:
    noise = example_module("noise")
    pieces = [("please remind ", False), ("banana bread", True), (" tomorrow", False)]
    rng = random.Random(0)
    noisy = [noise.typos(pieces, rng) for _ in range(200)]
    assert all(result[1] == pieces[1] for result in noisy)
    assert sum(result != pieces for result in noisy) > 150


def test_articles_are_dropped_from_what_is_not_a_value() -> None:
    noise = example_module("noise")
    pieces = [("put ", False), ("the my song", True), (" on the list", False)]
    rng = random.Random(0)
    noisy = [noise.articles(pieces, rng) for _ in range(50)]
    assert all(result[:2] == pieces[:2] for result in noisy)
    assert {result[2][0].split()[1] for result in noisy} == {"list", "the", "my", "our", "that", "this"}


@pytest.fixture(scope="module")
def tokenizer(splits: dict[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("teacher")
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(strip(row), ensure_ascii=False) + "\n" for row in splits["train"]), "utf-8")
    example_module("make_tokenizer").make_tokenizer(path, folder / "out")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder / "out"))


def test_tokenizer_has_the_promised_size_and_marks(tokenizer: Any) -> None:
    assert len(tokenizer) == 960
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.bos_token is None
    ids = tokenizer("<|im_start|><tool_call>x</tool_call><|im_end|>").input_ids
    assert len(ids) == 5
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call>x</tool_call>"


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_tokenizer_gives_back_every_text(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, split_special_tokens=True).input_ids) == text


def test_tokenizer_knows_all_bytes(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    vocabulary = tokenizer.get_vocab()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    assert len(alphabet) == 256
    assert set(alphabet) <= set(vocabulary)


def test_chat_template_renders_prompt_and_calls(tokenizer: Any, rows: list[Row]) -> None:
    tools = list(read_tools(EXAMPLE / "tools.json"))
    names = ",".join(tool["function"]["name"] for tool in tools)
    for row in rows[:: len(rows) // 100]:
        assert row.completion is not None
        user = [message.for_template() for message in row.messages]
        prompt = tokenizer.apply_chat_template(user, tools=tools, tokenize=False, add_generation_prompt=True)
        assert prompt == (
            f"<|im_start|>system\nTools:{names}<|im_end|>\n"
            f"<|im_start|>user\n{user[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
        )
        whole = tokenizer.apply_chat_template([*user, row.completion.for_template()], tools=tools, tokenize=False)
        assert whole.startswith(prompt)
        assert whole.endswith("<|im_end|>\n")
        answer = whole.removeprefix(prompt).removesuffix("<|im_end|>\n")
        if row.behaviour in ("clarify", "refuse"):
            assert answer == row.completion.content
            continue
        blocks = [json.dumps({"name": n, "arguments": a}, ensure_ascii=False) for n, a in calls(row)]
        assert answer == "\n".join(f"<tool_call>\n{block}\n</tool_call>" for block in blocks)


def test_prompts_are_short(tokenizer: Any, rows: list[Row]) -> None:
    words = sorted(len((row.messages[0].content or "").split()) for row in rows)
    assert words[len(words) // 2] <= 10
    assert words[-1] <= 45
