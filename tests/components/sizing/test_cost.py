"""What making a student takes, counted by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures import light_rows, write_jsonl
from potstill.components.chat.format import load_chat
from potstill.components.hardware.devices import find_device
from potstill.components.sizing.cost import Size, Training, training
from potstill.components.sizing.workload import Workload
from potstill.core.records import read_rows

if TYPE_CHECKING:
    from workshop import Workshop

WORK = Workload(rows=1000, prompt=100, answer=50, epochs=3)
TOKENS = 150_000
STUDENT, TEACHER = 10**8, 10**9
SMALL, LARGE = Size(STUDENT, 12), Size(TEACHER, 24)
ALONE = {"control": "none"}


def spent(workshop: Workshop, work: Workload = WORK, teacher: Size | None = LARGE, **changes: Any) -> Training:
    gpu = find_device("RTX 3060")
    alone = {"worth": {"rungs": []}} | changes
    return training(SMALL, teacher, workshop.recipe(**alone), work, gpu, 32000)


# ---- operations and hours ----


def test_operations_are_counted_as_in_kaplan(workshop: Workshop) -> None:
    online = spent(workshop, train=ALONE)
    assert online.parts == pytest.approx({"student": TOKENS * 3 * 6e8, "teacher": TOKENS * 3 * 2e9})
    assert online.operations == pytest.approx(TOKENS * 3 * (6e8 + 2e9))
    assert online.target_bytes == 0
    both = spent(workshop, train={"control": "sft"})
    assert both.parts["control"] == both.parts["student"] == pytest.approx(TOKENS * 3 * 6e8)
    assert both.operations - online.operations == pytest.approx(TOKENS * 3 * 6e8)
    gpu = find_device("RTX 3060")
    low, high = gpu.training
    assert online.hours == pytest.approx((online.operations / high / 3600, online.operations / low / 3600))


def test_a_teacher_reads_the_rows_as_often_as_it_must(workshop: Workshop) -> None:
    once = TOKENS * 2e9
    counts, more = ({"kind": "counts", "k": draws} for draws in (50, 200))
    stored = spent(workshop, train={**ALONE, "objective": {"targets": counts}})
    assert stored.parts["teacher"] == pytest.approx(once)
    assert 0 < stored.target_bytes < spent(workshop, train={**ALONE, "objective": {"targets": more}}).target_bytes
    # hidden states are in no store, so for them the teacher runs beside the student as well
    assert spent(workshop, train={**ALONE, "objective": {"targets": counts, "hidden": {}}}).parts[
        "teacher"
    ] == pytest.approx(4 * once)
    # the other rungs read a store again, and the student with hidden states has the teacher along for each seed
    seeds: dict[str, Any] = {"worth": {"seeds": 3, "rungs": []}}
    assert spent(workshop, train={**ALONE, "objective": {"targets": counts}}, **seeds).parts["worth"] == pytest.approx(
        2 * TOKENS * 3 * 6e8
    )
    assert spent(workshop, train={**ALONE, "objective": {"targets": counts, "hidden": {}}}, **seeds).parts[
        "worth"
    ] == pytest.approx(2 * (TOKENS * 3 * 6e8 + 3 * once))
    # plain fine-tuning is on the teacher's text alone
    plain = spent(workshop, train={**ALONE, "objective": "sft"})
    assert plain.parts == {"student": pytest.approx(TOKENS * 3 * 6e8)}
    assert "teacher" not in spent(workshop, teacher=None, train=ALONE).parts


def test_the_teachers_own_training_is_counted(workshop: Workshop) -> None:
    rows = write_jsonl(workshop.folder / "gold.jsonl", light_rows(["kindly "]))
    tune: dict[str, Any] = {"teacher": {"finetune": {"rows": "gold.jsonl", "epochs": 2}}, "worth": {"rungs": []}}
    recipe, chat, gpu = workshop.recipe(**tune), load_chat(workshop.model), find_device("RTX 3060")
    work = Workload.of(recipe, chat)
    tokens = sum(len(chat.example(row).ids) for row in read_rows(rows, tools=workshop.folder / "tools.json"))
    assert work.finetune_tokens == pytest.approx(tokens)
    found, without = training(SMALL, LARGE, recipe, work, gpu, 384), spent(workshop, work)
    assert found.parts["finetune"] == pytest.approx(6e9 * tokens * 2)
    assert found.operations - without.operations == pytest.approx(found.parts["finetune"])
    assert found.hours[1] / without.hours[1] == pytest.approx(found.operations / without.operations)


def test_writing_answers_takes_hours_of_its_own(workshop: Workshop) -> None:
    """Each step reads the weights, or computes a token of each row where the batch is large; prompts come first."""
    work = Workload(rows=1000, prompt=100, answer=50, epochs=3, validation_rows=200, test_rows=40)
    gpu = find_device("RTX 3060")
    few, many = ({"generate": {"batch_size": size}} for size in (1, 100_000))
    read = 1240 * 50 * (4 * TEACHER / (0.85 * 360e9) + 24 * 2e-4) + 1240 * 100 * 2 * TEACHER / gpu.training[1]
    assert 3600 * spent(workshop, work, train=ALONE, **few).writing["teacher"][0] == pytest.approx(read)
    found = spent(workshop, work, train=ALONE, **many)
    computed = 1240 * 150 * 2 * TEACHER / gpu.training[1]
    assert 3600 * found.writing["teacher"][0] >= computed
    assert found.writing["teacher"][1] < spent(workshop, work, train=ALONE, **few).writing["teacher"][1] / 10
    assert found.all_hours[1] == pytest.approx(found.hours[1] + found.writing["teacher"][1])
    on_policy = {**ALONE, "objective": {"on_policy": {"share": 0.25}}}
    own = spent(workshop, work, train=on_policy, worth={"rungs": []})
    assert own.writing["student"][1] > 0 and own.hours == found.hours
    assert spent(workshop, teacher=None, train=ALONE).writing == {}


def test_disk_of_a_students_training(workshop: Workshop) -> None:
    """Two checkpoints of 12 bytes a parameter beside the models that are left, and targets where they are stored."""
    assert spent(workshop, train=ALONE).disk_bytes == (24 + 4) * STUDENT
    assert spent(workshop).disk_bytes == (24 + 2 * 4) * STUDENT
    stored = spent(workshop, train={"objective": {"targets": "counts"}})
    assert stored.disk_bytes == (24 + 2 * 4) * STUDENT + stored.target_bytes
