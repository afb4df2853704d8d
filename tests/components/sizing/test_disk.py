"""Disk of a run: the plan and the check find the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures import light_rows, write_jsonl
from potstill.components.hardware.devices import find_device
from potstill.components.models.recipe_models import load_models
from potstill.components.sizing.cost import Size, training
from potstill.components.sizing.disk import disk_need
from potstill.components.sizing.workload import Workload
from potstill.stages.check.check import check_recipe

if TYPE_CHECKING:
    from workshop import Workshop

CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a tuned teacher": {"teacher": {"finetune": {"rows": "train.jsonl"}}},
    "stored targets": {"train": {"objective": {"targets": "top_k"}}},
    "validation": {"data": {"validation": "validation.jsonl"}, "export": {"quantization": "Q4_K_M"}},
    "a file over its limit": {"target": {"file_mb": 0.01}},
}


@pytest.mark.parametrize("case", CHANGES)
def test_disk_of_a_run_is_what_the_check_finds(workshop: Workshop, case: str) -> None:
    write_jsonl(workshop.folder / "validation.jsonl", light_rows(["do "])[:5])
    recipe = workshop.recipe(**CHANGES[case])
    models = load_models(recipe)
    assert models.teacher
    work = Workload.of(recipe, models.teacher.chat)
    disk = disk_need(recipe, models, work.splits)
    free = recipe.model_copy(update={"target": workshop.recipe().target})
    assert disk == check_recipe(free).disk
    sizes = Size(models.student.parameters or 0, 2), Size(models.teacher.parameters or 0, 4)
    args = *sizes, recipe, work, find_device("RTX 3060"), 384
    spent = training(*args, disk)
    assert (spent.disk_bytes, spent.disk_stays) == (disk.needed, disk.stays)
    assert spent.disk_bytes > training(*args).disk_bytes


def test_the_student_before_training_and_the_best_weights_are_counted(workshop: Workshop) -> None:
    write_jsonl(workshop.folder / "validation.jsonl", light_rows(["do "])[:5])

    def need(**changes: dict[str, Any]) -> tuple[int, int, int]:
        recipe = workshop.recipe(**changes)
        models = load_models(recipe)
        disk = disk_need(recipe, models, Workload.of(recipe, models.student.chat).splits)
        return disk.stays["train"], disk.needed - sum(disk.stays.values()), models.student.parameters or 0

    shape = "llama:layers=2,hidden=64,ffn=96,heads=4,kv_heads=2"
    from_teacher, random = need(), need(student={"init": "scratch", "shape": shape, "layers": None})
    assert from_teacher[0] == 3 * 4 * from_teacher[2]
    assert random[0] == 2 * 4 * random[2]
    assert need(data={"validation": "validation.jsonl"})[1] - need()[1] == 3 * 4 * from_teacher[2]
