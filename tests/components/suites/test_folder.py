"""A suite only grows: what was frozen may not change, and the error names the item."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from potstill.components.suites import folder as module
from potstill.components.suites.compare import difference, since_version
from potstill.components.suites.folder import (
    FROZEN,
    ITEMS,
    Suite,
    add_items,
    freeze,
    new_suite,
    read_suite,
    remove_drafts,
)
from potstill.components.suites.items import Item, drawn
from potstill.components.suites.lint import lint
from potstill.core.artifacts.suite import SuiteRecord
from potstill.core.errors import DataError, StepError, UsageError


def question(number: int, **more: Any) -> Item:
    value = {
        "messages": [{"role": "user", "content": f"What is {number} plus 1?"}],
        "expected": {"kind": "numeric", "value": str(number + 1)},
        "tags": ["plus"],
    }
    return Item.parse(value | more, f"question {number}")


def frozen_suite(folder: Path, count: int = 3) -> Suite:
    suite, _ = add_items(new_suite(folder, SuiteRecord(name="sums")), [question(n) for n in range(count)])
    return freeze(suite)


def change_line(folder: Path, number: int, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / ITEMS
    values = [json.loads(line) for line in path.read_text().splitlines()]
    if change(values[number]) == "delete":
        del values[number]
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def test_versions_grow(tmp_path: Path) -> None:
    suite = frozen_suite(tmp_path / "s")
    assert (suite.record.version, len(suite.drafts)) == (1, 0)
    suite, known = add_items(suite, [question(1), question(7), question(7)])
    assert (known, len(suite.items), [i.prompt for i in suite.drafts]) == (2, 4, ["What is 7 plus 1?"])
    first = suite.record.versions[0]
    suite = freeze(suite)
    assert [v.items for v in suite.record.versions] == [3, 4]
    assert suite.record.versions[0] == first
    assert since_version(suite, 1).added == (f"{question(7).item_id} What is 7 plus 1?",)
    with pytest.raises(UsageError, match="nothing to freeze: version 2"):
        freeze(suite)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: "delete", "was removed, or its messages, tools or expected answer were changed"),
        (lambda value: value["expected"].update(value="99"), "was removed, or its messages"),
        (lambda value: value["messages"][0].update(content="What is 1 + 1?"), "was removed, or its messages"),
        (lambda value: value.update(tags=["other"]), "has other tags or labels"),
        (lambda value: value.update(core=True), "has other tags or labels"),
    ],
)
def test_a_frozen_item_that_changes_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    suite = frozen_suite(tmp_path / "s")
    change_line(suite.folder, 1, change)
    with pytest.raises(DataError, match=message) as caught:
        read_suite(suite.folder)
    assert f"item {question(1).item_id} (What is 1 plus 1?)" in str(caught.value)


def test_hiding_the_change_in_frozen_jsonl_is_found(tmp_path: Path) -> None:
    suite = frozen_suite(tmp_path / "s")
    change_line(suite.folder, 2, lambda value: "delete")
    lines = (suite.folder / FROZEN).read_text().splitlines(keepends=True)
    (suite.folder / FROZEN).write_text("".join(lines[:2]))
    with pytest.raises(DataError, match="version 1 of the suite does not have the items"):
        read_suite(suite.folder)


def test_drafts_may_change(tmp_path: Path) -> None:
    suite, _ = add_items(frozen_suite(tmp_path / "s"), [question(8), question(9)])
    change_line(suite.folder, 3, lambda value: value.update(tags=["other"]))
    change_line(suite.folder, 4, lambda value: "delete")
    assert [item.tags for item in read_suite(suite.folder).drafts] == [("other",)]


def test_a_freeze_that_was_killed_leaves_drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, _ = add_items(frozen_suite(tmp_path / "s"), [question(8)])

    def killed(self: SuiteRecord, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SuiteRecord, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            freeze(suite)
    again = read_suite(suite.folder)
    assert len(again.drafts) == 1
    assert freeze(again).record.version == 2


def test_the_same_item_twice_is_named(tmp_path: Path) -> None:
    suite, _ = add_items(new_suite(tmp_path / "s", SuiteRecord(name="sums")), [question(1)])
    (suite.folder / ITEMS).write_text(2 * (suite.folder / ITEMS).read_text())
    with pytest.raises(DataError, match="is there twice, as items 1 and 2"):
        read_suite(suite.folder)


def test_identity_is_the_test_and_not_its_labels() -> None:
    assert question(1).item_id == question(1, tags=["x"], core=True, group="g").item_id
    assert question(1).sha256 != question(1, core=True).sha256
    assert question(1).item_id != question(1, expected={"kind": "numeric", "value": "3"}).item_id


def test_another_format_is_refused(tmp_path: Path) -> None:
    suite = frozen_suite(tmp_path / "s")
    path = suite.folder / SuiteRecord.FILE
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(StepError, match="format 99"):
        read_suite(suite.folder)


def test_difference(tmp_path: Path) -> None:
    one = frozen_suite(tmp_path / "one")
    two, _ = add_items(new_suite(tmp_path / "two", SuiteRecord(name="two")), [question(1, core=True), question(5)])
    found = difference(one, two)
    assert [name.split(maxsplit=1)[1] for name in found.added] == ["What is 0 plus 1?", "What is 2 plus 1?"]
    assert [name.split()[0] for name in found.removed] == [question(5).item_id]
    assert [name.split()[0] for name in found.relabelled] == [question(1).item_id]
    assert found.same == 0


def test_drawing_more_keeps_what_was_drawn() -> None:
    items = [question(n) for n in range(50)]
    few, many = drawn(items, 10), drawn(items, 30)
    assert len(few) == 10
    assert {i.item_id for i in few} < {i.item_id for i in many}


def test_lint_names_what_is_doubtful(tmp_path: Path) -> None:
    items = [
        question(1),
        question(2, expected={"kind": "numeric", "value": "9"}),
        question(2),
        question(3, tags=[]),
        question(4, messages=[{"role": "user", "content": "Say 5"}]),
    ]
    suite, _ = add_items(new_suite(tmp_path / "s", SuiteRecord(name="sums")), items)
    found = [each.what for each in lint(suite)]
    assert any("ask the same and expect different answers" in what for what in found)
    assert any("it has no tag" in what for what in found)
    assert any("repeats the prompt is judged right" in what and "Say 5" in what for what in found)
    assert any("tag 'plus' has 4 items: a gate can never fail it" in what for what in found)
    assert module.read_suite(suite.folder) == suite


def test_processes_that_change_a_suite_at_once_lose_nothing(tmp_path: Path) -> None:
    suite = new_suite(tmp_path / "s", SuiteRecord(name="sums"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add_items(suite, [question(number)]), range(40)))
    assert {item.prompt for item in read_suite(suite.folder).items} == {question(n).prompt for n in range(40)}


def test_a_review_keeps_what_others_have_added_or_frozen_since(tmp_path: Path) -> None:
    reviewed, _ = add_items(new_suite(tmp_path / "s", SuiteRecord(name="sums")), [question(1)])
    freeze(reviewed)
    add_items(reviewed, [question(2), question(3)])
    after = remove_drafts(reviewed, [question(1).item_id, question(2).item_id])
    assert [item.prompt for item in after.items] == [question(1).prompt, question(3).prompt]


@pytest.mark.parametrize(
    "expected",
    [{"value": "1e999999999"}, {"value": "9" * 19}, {"value": "\u0664\u0662"}, {"value": "1_000"}, {"value": "nan"},
     {"value": "1/0"}, {"value": "1", "tolerance": "1e-99999999"}, {"value": "1", "tolerance": "-1"}],
)  # fmt: skip
def test_numbers_that_no_answer_can_be_compared_with_are_refused(expected: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"is not a number of up to 18 digits|is below 0"):
        question(1, expected={"kind": "numeric", **expected})


def test_a_tolerance_may_be_a_fraction() -> None:
    item = question(1, expected={"kind": "numeric", "value": "2", "tolerance": "1/3"})
    assert item.expected.kind == "numeric" and item.expected.margin == Fraction(1, 3)
