"""Several teachers: who is asked, whose answers are learnt from, and how often they win and agree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from endpoints import Endpoint, Script, reply
from fixtures import ROOMS, write_jsonl
from potstill.components.licences.licences import licence_verdict
from potstill.core.artifacts.generated import REJECTED, TOOLS, Generated, SplitCounts, read_generated, rows_file
from potstill.core.errors import BudgetError
from potstill.core.recipe import Recipe
from potstill.core.records import Row
from potstill.core.steps import Done
from potstill.stages.generate.stage import STAGE, make_inputs

COUNT = 24  # training rows, of which each room has as many as any other
PER_ROOM = COUNT // len(ROOMS)


class Wrong:
    """Calls the tool rightly, except for some rooms, for which it names another one; counts the requests."""

    def __init__(self, *rooms: str, instead: str = "cellar") -> None:
        self.rooms, self.instead = rooms, instead
        self.asked: Counter[str] = Counter()

    def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        state, _, _, room = body["messages"][-1]["content"].split()[-4:]
        self.asked[room] += 1
        said = self.instead if room in self.rooms else room
        return 200, reply(None, [("set_light", json.dumps({"room": said, "state": state}))])


@pytest.fixture
def make(endpoint: Callable[[Script], Endpoint], tiny_model: Path, workload: Path) -> Callable[..., Recipe]:
    def made(scripts: Sequence[Script], policy: str, changes: Any = None, **sections: Any) -> Recipe:
        members = [
            {"model": f"m{number}", "base_url": endpoint(script).url, **((changes or {}).get(number, {}))}
            for number, script in enumerate(scripts)
        ]
        values = {
            "name": "r",
            "data": {"prompts": workload / "train.jsonl", "test": workload / "test.jsonl"}
            | {"tools": workload / "tools.json"},
            "chat": {"context": 256},
            "teacher": {"teachers": members, "policy": policy},
            "student": {"init": "checkpoint", "model": str(tiny_model)},
            "train": {"objective": "sft", "control": "none"},
        }
        return Recipe.model_validate(values | sections)

    return made


def run(given: Recipe, tmp_path: Path) -> tuple[SplitCounts, list[Row], list[Row]]:
    """Counts, kept rows, rejected rows."""
    out = tmp_path / "runs" / "r" / "generate"
    out.mkdir(parents=True)
    STAGE.run(make_inputs(given, Done({}, STAGE.reads)), out)
    rejected = read_generated(out / REJECTED, out / TOOLS)
    return Generated.read(out).splits["train"], read_generated(out / rows_file("train"), out / TOOLS), rejected


def teachers(rows: Sequence[Row]) -> Counter[str]:
    return Counter(row.provenance["teacher"]["model"] for row in rows)


def test_a_cascade_asks_the_next_teacher_for_what_fails(make: Callable[..., Recipe], tmp_path: Path) -> None:
    small, large = Wrong("attic", "kitchen"), Wrong("attic")
    found, kept, rejected = run(make([small, large], "cascade"), tmp_path)
    assert small.asked.total() == COUNT
    assert large.asked == {"attic": PER_ROOM, "kitchen": PER_ROOM}
    assert teachers(kept) == {"m0": COUNT - 2 * PER_ROOM, "m1": PER_ROOM}
    assert teachers(rejected) == {"m0": 2 * PER_ROOM, "m1": PER_ROOM}
    assert (found.kept, found.rejected) == (COUNT - PER_ROOM, {"gold": 3 * PER_ROOM})
    assert [(each.teacher.model, each.prompts, each.wins) for each in found.teachers] == [
        ("m0", COUNT, COUNT - 2 * PER_ROOM),
        ("m1", 2 * PER_ROOM, PER_ROOM),
    ]
    assert (found.compared, found.agreed) == (2 * PER_ROOM, PER_ROOM)  # both are wrong about the attic
    assert [row.row_id for row in kept] == sorted((r.row_id for r in kept), key=[r.row_id for r in kept].index)


def test_a_cascade_asks_the_next_teacher_for_what_no_checker_can_tell(
    make: Callable[..., Recipe], workload: Path, tmp_path: Path
) -> None:
    bare = [json.loads(line) for line in (workload / "train.jsonl").read_text().splitlines()]
    write_jsonl(workload / "train.jsonl", [{"messages": row["messages"]} for row in bare])
    large = Wrong()
    found, kept, _ = run(make([lambda body: (200, reply("Done.")), large], "cascade"), tmp_path)
    assert large.asked.total() == found.kept == len(kept) == COUNT
    assert found.rejected == {"superseded": COUNT}
    assert "another teacher's answer was taken, or asked for: 24" in (found.lost or "")


def test_a_vote_takes_the_right_answer_or_that_of_the_majority(
    make: Callable[..., Recipe], workload: Path, tmp_path: Path
) -> None:
    """Half of the rows have a gold. The attic is right in one answer of three, and the kitchen in two."""
    rows = [json.loads(line) for line in (workload / "train.jsonl").read_text().splitlines()]
    for row in rows[: COUNT // 2]:
        row |= {"gold": None, "behaviour": "answer"}
        row.pop("gold")
    write_jsonl(workload / "train.jsonl", rows)
    scripts = [Wrong("attic"), Wrong("attic", "kitchen"), Wrong()]
    found, kept, rejected = run(make(scripts, "vote"), tmp_path)
    assert [script.asked.total() for script in scripts] == [COUNT] * 3
    assert len(kept) == COUNT and len(rejected) == 2 * COUNT
    said = {row.row_id: json.loads(row.completion.tool_calls[0].function.arguments)["room"]  # type: ignore[union-attr]
            for row in kept}  # fmt: skip
    for row in kept:
        room = str(row.messages[-1].content).split()[-1]
        expected = "cellar" if room == "attic" and row.gold is None else room
        assert said[row.row_id] == expected
    assert found.compared == COUNT and found.agreed == COUNT - 2 * PER_ROOM
    wins = [each.wins for each in found.teachers]
    golds = sum(str(row.messages[-1].content).endswith("attic") and row.gold is not None for row in kept)
    assert wins == [COUNT - golds, COUNT - golds - PER_ROOM, COUNT - (PER_ROOM - golds)]


def test_teachers_that_all_differ_are_rejected(make: Callable[..., Recipe], workload: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (workload / "train.jsonl").read_text().splitlines()]
    write_jsonl(workload / "train.jsonl", [{"messages": row["messages"]} for row in rows])
    scripts = [Wrong(), Wrong("attic"), Wrong("attic", instead="hall")]
    found, kept, _ = run(make(scripts, "vote"), tmp_path)
    assert len(kept) == COUNT - PER_ROOM and found.rejected["no majority"] == 3 * PER_ROOM


def test_a_route_goes_by_the_rows_task_or_behaviour(
    make: Callable[..., Recipe], workload: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (workload / "train.jsonl").read_text().splitlines()]
    for row in rows[:6]:
        row["provenance"] = {"task": "lights"}
    for row in rows[6:9]:
        row["behaviour"] = "clarify"
    write_jsonl(workload / "train.jsonl", rows)
    scripts = [Wrong(), Wrong(), Wrong()]
    changes = {0: {"tasks": ["lights"]}, 1: {"tasks": ["clarify", "refuse"]}}
    found, _, _ = run(make(scripts, "route", changes, generate={"verify": []}), tmp_path)
    assert [script.asked.total() for script in scripts] == [6, 3, COUNT - 9]
    assert [each.prompts for each in found.teachers] == [each.wins for each in found.teachers] == [6, 3, COUNT - 9]
    assert found.compared == 0


def test_teachers_share_the_budget_and_have_journals_of_their_own(make: Callable[..., Recipe], tmp_path: Path) -> None:
    small, large = Wrong("attic"), Wrong()
    given = make([small, large], "cascade", budget={"requests": COUNT + 1})
    with pytest.raises(BudgetError, match=rf"budget\.requests: {COUNT + 1}, of which {COUNT + 1} are spent"):
        run(given.model_copy(update={"teacher": _one_at_a_time(given)}), tmp_path)
    assert (small.asked.total(), large.asked.total()) == (COUNT, 1)
    assert len(list((tmp_path / "runs" / ".answers").glob("*.sqlite"))) == 2


def _one_at_a_time(given: Recipe) -> Any:
    assert given.teacher.kind == "several"
    members = tuple(member.model_copy(update={"max_concurrency": 1}) for member in given.teacher.teachers)
    return given.teacher.model_copy(update={"teachers": members})


def test_wins_and_agreement_are_said(make: Callable[..., Recipe], tmp_path: Path) -> None:
    found, _, _ = run(make([Wrong("attic"), Wrong()], "cascade"), tmp_path)
    assert found.shares == (
        f"m0: {COUNT - PER_ROOM} of {COUNT} prompts won (83.3 %); m1: {PER_ROOM} of {PER_ROOM} prompts won (100.0 %); "
        f"all that answered agree on 0 of {PER_ROOM} prompts (0.0 %)"
    )
    summary = Generated.read(tmp_path / "runs" / "r" / "generate")
    assert f"generate: train: teachers ({found.shares})." in summary.findings()
    assert summary.teacher.model == "m1"  # the student is compared with the last of a cascade


def test_obligations_are_those_of_all_teachers(make: Callable[..., Recipe]) -> None:
    licences = {"data": "cc0-1.0", "student": "apache-2.0", "teacher": "apache-2.0"}
    given = make([Wrong(), Wrong()], "cascade", licenses=licences)
    alone = set(licence_verdict(given).obligations)
    bound = make([Wrong(), Wrong()], "cascade", {0: {"license": "llama3.1"}}, licenses=licences)
    found = licence_verdict(bound)
    assert set(found.obligations) > alone and any("the teacher m0 (llama3.1)" in reason for reason in found.reasons)
    assert bound.license_of("teacher") == "llama3.1, apache-2.0"
    blocked = make([Wrong(), Wrong()], "cascade", {1: {"license": "cc-by-nc-4.0x"}}, licenses=licences)
    assert licence_verdict(blocked).answer == "blocked or unknown"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {"policy": "cascade", "teachers": [{"model": "m", "base_url": "http://h/v1"}]}}, "at least 2"),
        ({"teacher": {"teachers": 2 * [{"model": "m", "base_url": "http://h/v1"}]}}, "the same model and base_url"),
        ({"train": {"objective": "forward_kl"}}, "teach by their text alone"),
        ({"generate": {"samples": 0}}, "asks no teacher"),
    ],
)
def test_what_does_not_go_with_several_teachers(
    make: Callable[..., Recipe], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make([Wrong(), Wrong()], "cascade", **changes)


@pytest.mark.parametrize(
    ("policy", "changes", "message"),
    [
        ("cascade", {0: {"tasks": ["a"]}}, "tasks are for policy: route"),
        ("route", {}, "exactly one teacher without tasks"),
        ("route", {0: {"tasks": ["a"]}, 1: {"tasks": ["b"]}}, "exactly one teacher without tasks"),
    ],
)
def test_tasks_go_with_a_route(make: Callable[..., Recipe], policy: str, changes: dict[int, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make([Wrong(), Wrong()], policy, changes)
