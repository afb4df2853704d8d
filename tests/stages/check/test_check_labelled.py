"""Rows with right answers for the worth ladder are checked before anything is paid for."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures import light_rows, write_jsonl
from potstill.stages.check.check import check_recipe
from workshop import Workshop


def with_labelled(workshop: Workshop, rows: list[dict[str, Any]]) -> Any:
    path = write_jsonl(workshop.folder / "labelled.jsonl", rows)
    recipe = workshop.recipe()
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"labelled": path})})


def test_right_answers_are_measured(workshop: Workshop) -> None:
    found = check_recipe(with_labelled(workshop, light_rows(["perhaps "])))
    assert found.rows["labelled"] == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion": None, "gold": None}, "labelled.jsonl:3"),
        ({"messages": [{"role": "user", "content": "word " * 400}]}, "labelled.jsonl:3"),
    ],
    ids=["no answer", "too long"],
)
def test_a_row_that_cannot_be_learnt_is_named(workshop: Workshop, change: dict[str, Any], message: str) -> None:
    rows = light_rows(["perhaps "])
    rows[2] = {key: value for key, value in (rows[2] | change).items() if value is not None}
    assert message in workshop.refused(with_labelled(workshop, rows))
