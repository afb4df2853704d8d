"""The base model's rows: general skills, and never a request to the home assistant with its answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[1] / "examples" / "home-assistant"


@pytest.fixture(scope="module")
def rows(monkeypatch_module: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch_module.syspath_prepend(str(HERE))
    from skills import SHARES, Skills  # type: ignore[import-not-found]

    skills = Skills(["ab", "cd", "ef"], 0)
    return [skills.row(kind) | {"kind": kind} for kind in SHARES for _ in range(60)]


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def home_tools() -> set[str]:
    return {tool["function"]["name"] for tool in json.loads((HERE / "tools.json").read_text())}


def calls(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [call["function"] for call in row["messages"][1].get("tool_calls", [])]


def test_a_home_tool_is_called_only_where_the_text_names_it_or_is_a_log(rows: list[dict[str, Any]]) -> None:
    called = [(row["messages"][0]["content"], call["name"]) for row in rows for call in calls(row)]
    home = [(text, name) for text, name in called if name in home_tools()]
    logs = [text for text, _ in home if text.startswith("log: ")]
    assert len(home) > len(logs) + 20 > 40
    assert all(name in text for text, name in home if not text.startswith("log: "))


def test_a_row_calls_only_tools_that_it_lists(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        listed = {tool["function"]["name"] for tool in row.get("tools", [])}
        assert {call["name"] for call in calls(row)} <= listed
        if row["kind"] == "absent":
            assert "cannot" in row["messages"][1]["content"]


def test_no_sentence_of_the_home_assistant_is_answered(rows: list[dict[str, Any]]) -> None:
    answered = {row["messages"][0]["content"] for row in rows if row["kind"] in ("other", "clarify", "absent")}
    for name in ("train", "validation", "test"):
        lines = (HERE / "data" / f"{name}.jsonl").read_text().splitlines()
        assert answered.isdisjoint(json.loads(line)["messages"][0]["content"] for line in lines)


def test_values_are_those_of_train(rows: list[dict[str, Any]]) -> None:
    held = sys.modules["slots"]._held_words()
    values = {value for row in rows for call in calls(row) for value in json.loads(call["arguments"]).values()}
    words = {word.lower() for value in values if isinstance(value, str) for word in value.split()}
    common = {
        word
        for group in ("ROOMS", "DOORS", "LISTS", "SCENES")
        for name in getattr(sys.modules["slots"], group)
        for word in name.split()
    }
    assert len(words) > 200
    kept = {word for word in words & held if word not in common}
    texts = {
        word.lower() for lines in sys.modules["pools"].TRAIN_TEXTS.values() for line in lines for word in line.split()
    }
    messages = {
        word.lower() for line in (*sys.modules["pools"].MESSAGES, *sys.modules["pools"].TODOS) for word in line.split()
    }
    assert kept <= texts | messages  # words of sentences, which are not values


def test_the_same_seed_gives_the_same_rows(rows: list[dict[str, Any]]) -> None:
    from skills import SHARES, Skills

    again = Skills(["ab", "cd", "ef"], 0)
    assert [again.row(kind) | {"kind": kind} for kind in SHARES for _ in range(60)] == rows


def test_a_request_in_other_words_is_no_answer_to_it(rows: list[dict[str, Any]]) -> None:
    from grammar import read_phrasings  # type: ignore[import-not-found]
    from workload import CANNOT, UNSAFE  # type: ignore[import-not-found]

    answers = {CANNOT[0], UNSAFE[0], *(section.ask for section in read_phrasings(HERE / "phrasings"))}
    said = [row["messages"][1] for row in rows if row["kind"] in ("reword", "ask")]
    assert len(said) == 120
    assert all("tool_calls" not in answer and answer["content"] not in answers for answer in said)


def test_a_request_is_reworded_with_its_values(rows: list[dict[str, Any]]) -> None:
    from grammar import Phrasing
    from skills import Skills
    from slots import Fill  # type: ignore[import-not-found]
    from workload import Clause

    skills = Skills(["ab", "cd", "ef"], 0)

    def plainly(name: str, fills: list[Fill], implied: tuple[tuple[str, str], ...] = (), calls: int = 1) -> str:
        return str(skills._plainly(Clause((), tuple(fills), ({},) * calls, Phrasing(name, ("",), True, implied))))

    attic, hall = Fill("room", "attic", "room", "attic"), Fill("room2", "hall", "room", "hall")
    assert plainly("tool.set_light/train/25", [attic], (("state", "off"),)) == "turn off the attic light"
    heat = Fill("degrees", "seventeen degrees", "degrees", 17)
    assert plainly("tool.set_thermostat/train/9", [heat, attic]) == "set the attic thermostat to 17"
    assert plainly("tool.start_vacuum/train/9", [attic, hall], calls=2) == "vacuum the attic; vacuum the hall"
    assert (
        plainly("clarify.set_light.room/train/0", [Fill("state", "on", "state", "on")], calls=0) == "turn on the light"
    )
    first, second = Fill("n", "3", "n", 3), Fill("n2", "4", "n", 4)
    assert plainly("refuse.arithmetic/train/9", [first, second], calls=0) == "what is 3 times 4"
