"""Money: over all that a user changes, an endpoint receives each distinct prompt and sampling once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endpoints import Endpoint, Script, reply
from fixtures import ROOMS, make_model, write_jsonl
from potstill.apps.plan.recipe import PlanOptions, plan_recipe
from potstill.core.errors import TeacherError
from potstill.core.recipe import Recipe
from potstill.pipeline import run as pipeline


class Teacher:
    """Answers every prompt; `left` is the number of answers until the money is spent, None for no end."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.left: int | None = None

    def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.left is not None:
            if not self.left:
                return 402, {"error": {"message": "out of credit"}}
            self.left -= 1
        self.paid.append(json.dumps(body, sort_keys=True))
        return 200, reply(f"Done: {body['messages'][-1]['content']}.")


def rows(polite: str) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"{polite}{state} in the {room}"}], "gold": {"equals": ["Done"]}}
        for room in ROOMS
        for state in ("on", "off")
    ]


TESTS = rows("now ")[:4]


class Work:
    """A recipe and its prompts, which a test changes."""

    def __init__(self, folder: Path, student: Path, url: str) -> None:
        self.folder, self.prompts = folder, rows("")
        self.url, self.student, self.context = url, student, 128
        self.train: dict[str, Any] = {}
        self.samples = 1
        self.verify: list[str] = []

    def recipe(self) -> Recipe:
        return Recipe.model_validate(
            {
                "name": "paid",
                "data": {
                    "prompts": write_jsonl(self.folder / "prompts.jsonl", self.prompts),
                    "test": write_jsonl(self.folder / "test.jsonl", TESTS),
                },
                "chat": {"context": self.context},
                "teacher": {"kind": "api", "model": "m", "base_url": self.url, "max_concurrency": 1},
                "generate": {"max_new_tokens": 4, "temperature": 0.8, "samples": self.samples}
                | {"verify": self.verify},
                "student": {"init": "checkpoint", "model": str(self.student)},
                "train": {"objective": "sft", "epochs": 1, "batch_tokens": 512, "control": "none", **self.train},
                "trainer": {"tracker": "none"},
            }
        )

    def run(self, until: str) -> None:
        pipeline.run(self.recipe(), self.folder / "runs", until=until)

    def billed(self) -> tuple[int, int]:
        """Rows that the plan says are to be answered, and those that are in the store."""
        cost = plan_recipe(self.recipe(), PlanOptions(train_on="RTX 3060"), self.folder / "runs").cost
        return cost.rows, cost.stored


def test_every_request_is_paid_once(endpoint: Callable[[Script], Endpoint], tiny_model: Path, tmp_path: Path) -> None:
    teacher = Teacher()
    work = Work(tmp_path, tiny_model, endpoint(teacher).url)
    count = len(work.prompts)

    def paid(until: str) -> int:
        before = len(teacher.paid)
        work.run(until)
        assert len(teacher.paid) == len(set(teacher.paid))
        return len(teacher.paid) - before

    def interrupted(until: str, answers: int) -> None:
        teacher.left = answers
        with pytest.raises(TeacherError, match="out of credit"):
            work.run(until)
        teacher.left = None

    assert work.billed() == (count + len(TESTS), 0)
    interrupted("generate", 5)
    assert work.billed() == (count + len(TESTS) - 5, 5)
    assert paid("generate") == count - 5
    work.student = make_model(tmp_path / "other", layers=1)
    assert paid("generate") == 0
    work.context = 96
    assert paid("generate") == 0
    work.verify = ["calls", "values"]
    assert paid("generate") == 0
    del work.prompts[3]
    assert paid("generate") == 0
    work.prompts.append(rows("please ")[0])
    assert paid("generate") == 1
    work.samples = 2
    assert work.billed() == (count + len(TESTS), count)
    assert paid("generate") == count  # the second samples
    interrupted("evaluate", 2)
    assert paid("evaluate") == len(TESTS) - 2
    assert work.billed() == (0, 2 * count + len(TESTS))
    work.train = {"learning_rate": 2e-4}  # a sweep
    assert paid("evaluate") == 0
    assert len(teacher.paid) == count + 1 + count + len(TESTS)
