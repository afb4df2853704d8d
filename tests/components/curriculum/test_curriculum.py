"""A curriculum is read, its quotas are met with few prompts, and one that cannot be met is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from potstill.components.curriculum.asking import ASKING, Draft, asked_text, check_templates, request_of
from potstill.components.curriculum.coverage import coverage_of, values_of
from potstill.components.curriculum.messy import MESSY
from potstill.components.curriculum.spec import CODE_OPERATORS, TEACHER_OPERATORS, Curriculum
from potstill.components.curriculum.steering import require_reachable, write_prompts
from potstill.core.errors import RecipeError
from potstill.core.records import Gold, Message, Row, parse_row

BASE: dict[str, Any] = {
    "format": 1,
    "id": "shop",
    "version": 2,
    "task": "Sort tickets of a shop.",
    "axes": {
        "label": {"refund": 12, "shipping": 10},
        "noise": {
            "clean": {"rows": 10, "default": True},
            "typos": {"rows": 5, "operator": "typos"},
            "log": {"rows": 3, "operator": "pasted_log"},
        },
    },
    "quotas": [{"of": {"label": "shipping", "noise": "typos"}, "rows": 3}],
    "operators": ["self_instruct", "paraphrase"],
}
TOOL = {"type": "function", "function": {"name": "set_light", "description": "Turn a light on or off.", "parameters": {
    "type": "object", "required": ["room"],
    "properties": {"room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}}}}}  # fmt: skip


def curriculum(**changes: Any) -> Curriculum:
    return Curriculum.model_validate({**BASE, **changes})


def ticket(text: str, label: str) -> Row:
    return Row(messages=(Message(role="user", content=text),), gold=Gold(equals=(label,)))


SEEDS = [ticket(f"please give me the money back for order {n}", "refund") for n in range(4)] + [
    ticket(f"where is the parcel with my shoes, order {n}", "shipping") for n in range(2)
]


def light(text: str, **arguments: list[str]) -> Row:
    gold = {"calls": [{"name": "set_light", "arguments": arguments}]}
    value = {"messages": [{"role": "user", "content": text}], "tools": [TOOL], "gold": gold}
    return parse_row(value, (), False, "x")


class Teacher:
    """Writes a new prompt for each request, and answers all but every `wrong`-th prompt right."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong, self.count, self.requests = wrong, itertools.count(), list[str]()

    def ask(self, requests: Sequence[Row], number: int) -> list[str]:
        self.requests += [asked_text(row) for row in requests]
        return [f'"written prompt number {next(self.count)} of the teacher"' for _ in requests]

    def judge(self, rows: list[Row]) -> list[Row]:
        return [row for n, row in enumerate(rows) if not self.wrong or n % self.wrong]


@pytest.mark.parametrize("wrong", [0, 3, 2])
def test_every_quota_is_met_with_few_prompts(wrong: int) -> None:
    teacher, wanted = Teacher(wrong), curriculum()
    rows = write_prompts(wanted, SEEDS, teacher.ask, teacher.judge, 7)
    accepted = teacher.judge(rows)
    found = coverage_of(accepted, wanted, rows[len(SEEDS) :])
    assert found.unmet == () and "6 of 6 quotas are met" in found.sentence
    assert len({row.row_id for row in rows}) == len(rows) and rows[: len(SEEDS)] == SEEDS
    needed = 22 - len(teacher.judge(SEEDS))  # the labels' quotas, without the accepted seeds
    rate = 1 - 1 / wrong if wrong else 1
    assert len(rows) - len(SEEDS) <= 1.8 * needed / rate
    again = write_prompts(wanted, SEEDS, Teacher(wrong).ask, teacher.judge, 7)
    assert [row.row_id for row in again] == [row.row_id for row in rows]


def test_rows_say_how_they_were_made() -> None:
    teacher = Teacher()
    made = write_prompts(curriculum(), SEEDS, teacher.ask, teacher.judge, 1)[len(SEEDS) :]
    parents = {row.row_id for row in SEEDS}
    for row in made:
        assert row.provenance["curriculum"] == "shop@2" and row.provenance["parent"] in parents
        assert row.gold is not None and row.gold.equals == (row.provenance["coverage"]["label"],)
        assert all(name.endswith("@1") for name in row.provenance["operators"])
        noise = row.provenance["coverage"]["noise"]
        assert (noise == "typos") == ("typos@1" in row.provenance["operators"])
    wrote = [text for text in teacher.requests if "Write one new message" in text]
    assert any("The right answer to the message is: shipping" in text for text in wrote)


def test_the_limit_ends_it() -> None:
    teacher = Teacher()
    rows = write_prompts(curriculum(limit=5), SEEDS, teacher.ask, teacher.judge, 1)
    assert len(rows) == len(SEEDS) + 5
    assert coverage_of(rows, curriculum()).unmet


def test_a_teacher_that_is_never_right_is_given_up() -> None:
    teacher = Teacher()
    rows = write_prompts(curriculum(limit=10_000), SEEDS, teacher.ask, lambda rows: [], 1)
    assert len(rows) < 2_000


def test_calls_come_first_and_their_prompts_afterwards() -> None:
    seeds = [
        light(f"lights {state} in the {room}", room=[room], state=[state])
        for room, state in (("attic", "on"), ("hall", "off"), ("cellar", "on"))
    ]
    wanted = curriculum(axes={"tool": {"set_light": 12}}, quotas=(), operators=["slot_grid"])
    teacher = Teacher()
    made = write_prompts(wanted, seeds, teacher.ask, teacher.judge, 0)[3:]
    assert len(made) == 9
    for row, text in zip(made, teacher.requests, strict=True):
        assert row.behaviour == "tool_call" and row.gold is not None and row.tools == seeds[0].tools
        (call,) = row.gold.calls
        assert call.arguments["room"][0] in ("attic", "hall", "cellar")
        assert f'"room": "{call.arguments["room"][0]}"' in text


def test_missing_information_is_asked_for() -> None:
    changed = MESSY["missing_information"].apply(light("Lights on in the attic!", room=["attic"]), "1")
    assert changed is not None and changed.behaviour == "clarify" and changed.gold is None
    assert "attic" not in asked_text(changed)


@given(st.text(min_size=1, max_size=120), st.integers(), st.sampled_from(CODE_OPERATORS))
def test_code_operators_are_seeded_and_never_fail(text: str, seed: int, name: Any) -> None:
    row = Row(messages=(Message(role="system", content="s"), Message(role="user", content=text)))
    one, two = (MESSY[name].apply(row, str(seed)) for _ in range(2))
    assert one == two
    if one is not None:
        assert asked_text(one) not in ("", text) and one.messages[0] == row.messages[0]


def test_typos_leave_the_values_of_the_right_answer() -> None:
    row = light("please turn the light in the attic on before everybody comes home", room=["attic"])
    made = [MESSY["typos"].apply(row, str(seed)) for seed in range(50)]
    texts = {asked_text(each) for each in made if each}
    assert len(texts) > 25 and all("attic" in each for each in texts)


def test_every_operator_is_there_and_its_template_uses_what_it_declares() -> None:
    assert set(ASKING) == set(TEACHER_OPERATORS) and set(MESSY) == set(CODE_OPERATORS)
    from importlib import resources

    folder = resources.files("potstill.components.curriculum").joinpath("templates")
    sources = {name: folder.joinpath(f"{name}.jinja").read_text() for name in TEACHER_OPERATORS}
    check_templates(curriculum(templates=sources), Path("c.yaml"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ secret }}", "uses 'secret'; paraphrase has the variables prompt"),
        ("{{ prompt", "not a valid Jinja template"),
        ("{{ prompt.__class__.__mro__ }}", "cannot be rendered"),
    ],
)
def test_templates_are_sandboxed_and_declare_their_variables(source: str, message: str) -> None:
    wanted = curriculum(templates={"paraphrase": source}, operators=["paraphrase"])

    def use() -> None:
        check_templates(wanted, Path("c.yaml"))
        request_of(Draft(SEEDS[0], {}, "paraphrase", (), "1"), wanted)

    with pytest.raises(RecipeError, match=message):
        use()


@pytest.mark.parametrize(
    ("axes", "operators", "message"),
    [
        ({"label": {"refund": 5}}, [], r"quota of 5 rows with label: refund cannot be met: 4 of the 6 prompts"),
        ({"label": {"complaint": 1}}, ["paraphrase"], "label: complaint cannot be met: 0 of the 6"),
        ({"tool": {"set_light": 1}}, ["self_instruct"], "tool: set_light cannot be met"),
        ({"behaviour": {"clarify": {"rows": 3, "operator": "missing_information"}}}, [], "behaviour: clarify"),
    ],
)
def test_a_quota_that_no_operator_can_meet_is_refused(axes: Any, operators: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        require_reachable(curriculum(axes=axes, quotas=(), operators=operators), SEEDS, Path("c.yaml"))
    require_reachable(curriculum(), SEEDS, Path("c.yaml"))


def test_values_come_from_provenance_then_the_gold_then_the_default() -> None:
    row = SEEDS[0].model_copy(update={"provenance": {"coverage": {"noise": "log"}}})
    assert values_of(row, curriculum()) == {"label": "refund", "noise": "log"}
    assert values_of(SEEDS[0], curriculum()) == {"label": "refund", "noise": "clean"}


def _drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda value: value.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("task"), "task is missing"),
        (lambda v: v.update(colour=1), r"c\.yaml:\d+: unknown key 'colour'"),
        (lambda v: v["axes"].update(behaviour={"refus": 3}), "did you mean 'refuse'"),
        (lambda v: v.update(operators=["evolve"]), "there is no 'evolve'"),
        (lambda v: v["quotas"][0]["of"].update(label="x"), "label: x is not a value of an axis"),
        (lambda v: v.update(axes={"label": {"a": {"text": "b"}}}, quotas=[]), "no value has a quota"),
        (lambda v: v["axes"]["noise"]["log"].update(default=True), "two values with default"),
    ],
)
def test_a_broken_curriculum_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    value = yaml.safe_load(yaml.safe_dump(BASE))
    change(value)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(value))
    with pytest.raises(RecipeError, match=message):
        Curriculum.read(tmp_path / "c.yaml")
