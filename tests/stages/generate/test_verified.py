"""Verified answers: a teacher with known errors loses its wrong rows and keeps its right ones, and nobody is asked
again."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endpoints import Endpoint, Script, reply
from fixtures import ROOMS, ROOT, light_rows, write_jsonl
from potstill.components.chat.format import load_chat
from potstill.components.runtimes import Answer
from potstill.components.runtimes.endpoint_reply import Message, hermes_text
from potstill.core.artifacts.generated import (
    REJECTED,
    TOOLS,
    Generated,
    SplitCounts,
    TeacherIdentity,
    VerdictCounts,
    read_generated,
    rows_file,
)
from potstill.core.errors import StepError
from potstill.core.recipe import Recipe
from potstill.core.records import Row, read_rows
from potstill.core.steps import Done
from potstill.stages.generate.filter import filter_answers
from potstill.stages.generate.stage import STAGE, make_inputs
from potstill.stages.generate.teachers import LoadedTeacher
from potstill.stages.generate.verified import Verified, verify_rows

HOME = ROOT / "examples" / "home-assistant"
COUNT = 800


class Work:
    """Rows of the home assistant, answered by a teacher of which 15 % of the answers are wrong."""

    def __init__(self) -> None:
        sys.path.insert(0, str(HOME))
        try:
            self.erring = importlib.import_module("erring")
        finally:
            sys.path.remove(str(HOME))
        with (HOME / "data" / "train.jsonl").open() as file:
            raw = [json.loads(line) for line, _ in zip(file, range(COUNT), strict=False)]
        tools = json.loads((HOME / "tools.json").read_text())
        self.teacher = self.erring.ErringTeacher(raw, tools, share=0.15, seed=0)
        read = read_rows(HOME / "data" / "train.jsonl", tools=HOME / "tools.json", limit=COUNT)
        self.rows = [row.model_copy(update={"completion": None}) for row in read]

    def verified(self, rows: list[Row], samples: int, checkers: dict[Any, Any]) -> dict[str | None, Counter[str]]:
        """How many answers are kept and rejected, by the kind of their error; None for right ones."""
        answers = {row.row_id: [self._answer(row, seed) for seed in range(samples)] for row in rows}
        who = TeacherIdentity(kind="api", model="m")
        asked = LoadedTeacher(None, None, load_chat(HOME / "teacher"), who)  # type: ignore[arg-type]
        fit, rejected = filter_answers(rows, answers, asked, keep_truncated=False, context=512)
        done = verify_rows(fit, checkers)
        assert len(done.kept) + len(done.rejected) + len(rejected) == samples * len(rows)
        found: dict[str | None, Counter[str]] = {kind: Counter() for kind in (None, *self.erring.KINDS)}
        for name, part in (("kept", done.kept), ("rejected", [*done.rejected, *rejected])):
            for row in part:
                found[row.provenance.get("detail")][name] += 1
        return found

    def _answer(self, row: Row, seed: int) -> Answer:
        said = self.teacher.answer(row.messages[-1].content, seed)
        return Answer(hermes_text(Message.model_validate(said.message)), said.finish_reason, 1, 1, 0, detail=said.kind)


@pytest.fixture(scope="module")
def work() -> Work:
    return Work()


def rejected_shares(found: dict[str | None, Counter[str]]) -> tuple[float, float]:
    """Of the wrong answers, and of the right ones."""
    wrong = sum((counts for kind, counts in found.items() if kind is not None), Counter[str]())
    return wrong["rejected"] / wrong.total(), found[None]["rejected"] / found[None].total()


def test_rows_with_golds_lose_the_wrong_answers_and_keep_the_right_ones(work: Work) -> None:
    found = work.verified(work.rows, 1, {"calls": "keep", "gold": "keep"})
    wrong = sum(counts.total() for kind, counts in found.items() if kind is not None)
    assert 0.12 * COUNT < wrong < 0.18 * COUNT
    assert all(counts.total() >= 15 for counts in found.values())
    of_wrong, of_right = rejected_shares(found)
    assert of_wrong >= 0.9 and of_right == 0
    for kind in ("value", "tool", "guess"):
        assert found[kind]["kept"] == 0


def test_rows_without_golds_are_verified_by_schemas_values_and_agreement(work: Work) -> None:
    """Five answers to each prompt, whose errors are independent of each other."""
    bare = [row.model_copy(update={"gold": None, "behaviour": "answer"}) for row in work.rows[:300]]
    of_wrong, of_right = rejected_shares(
        work.verified(bare, 5, {"calls": "keep", "values": "keep", "agreement": "reject"})
    )
    assert of_wrong >= 0.9 and of_right <= 0.02


def test_one_answer_without_golds_loses_what_a_program_can_tell(work: Work) -> None:
    bare = [row.model_copy(update={"gold": None, "behaviour": "answer"}) for row in work.rows]
    of_wrong, of_right = rejected_shares(work.verified(bare, 1, {"calls": "keep", "values": "keep"}))
    assert of_wrong >= 0.5 and of_right <= 0.02


# ---- the stage ----


class ErrsInTheAttic:
    """Calls the tool rightly, except in one room; counts the requests."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.asked += 1
        state, _, _, room = body["messages"][-1]["content"].split()[-4:]
        said = "cellar" if room == "attic" else room
        return 200, reply(None, [("set_light", json.dumps({"room": said, "state": state}))])


def recipe(folder: Path, model: Path, workload: Path, url: str, **generate: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "data": {"prompts": workload / "train.jsonl", "test": workload / "test.jsonl"}
            | {"tools": workload / "tools.json"},
            "chat": {"context": 256},
            "teacher": {"kind": "api", "model": "m", "base_url": url},
            "generate": generate,
            "student": {"init": "checkpoint", "model": str(model)},
            "train": {"objective": "sft", "control": "none"},
        }
    )


def run(given: Recipe, out: Path) -> Generated:
    out.mkdir(parents=True)
    STAGE.run(make_inputs(given, Done({}, STAGE.reads)), out)
    return Generated.read(out)


def test_a_changed_choice_of_checkers_asks_nothing_again(
    endpoint: Callable[[Script], Endpoint], tiny_model: Path, workload: Path, tmp_path: Path
) -> None:
    script = ErrsInTheAttic()
    url, runs, count = endpoint(script).url, tmp_path / "runs" / "r", 24
    kept = {}
    for number, verify in enumerate([{}, ["calls"], ["calls", "gold"], ["values"], {"agreement": "reject"}]):
        samples = {"samples": 3, "temperature": 0.5} if "agreement" in verify else {}
        given = recipe(tmp_path, tiny_model, workload, url, verify=verify, **samples)
        found = run(given, runs / f"generate-{number}").splits["train"]
        assert found.kept + sum(found.rejected.values()) == count * (3 if samples else 1)
        kept[number] = (found.kept, found.rejected)
        assert script.asked == count * (4 if samples else 1)
    wrong = count // len(ROOMS)
    assert kept == {
        0: (count, {}),
        1: (count, {}),
        2: (count - wrong, {"gold": wrong}),
        3: (count, {}),  # one value in six is not in its prompt: the argument is not known to be copied
        4: (3 * count, {}),  # a teacher that always errs in the same way agrees with itself
    }


def test_verdicts_are_in_the_rows_the_summary_and_the_words(
    endpoint: Callable[[Script], Endpoint], tiny_model: Path, workload: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "r" / "generate"
    found = run(recipe(tmp_path, tiny_model, workload, endpoint(ErrsInTheAttic()).url), out)
    assert found.splits["train"].verified == {
        "calls": VerdictCounts(passed=24, failed=0, unknown=0),
        "gold": VerdictCounts(passed=20, failed=4, unknown=0),
    }
    assert found.findings() == [
        "generate: train: answers verified (calls: 24 pass, 0 fail, 0 unknown; gold: 20 pass, 4 fail, 0 unknown).",
        "generate: train: 20 of 24 answers are used, and 4 are not (the row's gold says that the answer is wrong: 4). "
        "They are in rejected.jsonl, each with its reason.",
    ]
    rejected = read_generated(out / REJECTED, out / TOOLS)
    assert [row.provenance["rejected"] for row in rejected] == ["gold"] * 4
    assert rejected[0].provenance["verify"] == [
        {"checker": "calls@1", "verdict": "pass"},
        {"checker": "gold@1", "verdict": "fail", "evidence": "wrong value"},
    ]
    kept = read_generated(out / rows_file("train"), out / TOOLS)
    assert all([each["verdict"] for each in row.provenance["verify"]] == ["pass", "pass"] for row in kept)


def test_a_checker_that_could_judge_no_answer_is_not_spoken_of() -> None:
    calls, gold = VerdictCounts(passed=3, failed=1, unknown=0), VerdictCounts(passed=0, failed=0, unknown=4)
    found = SplitCounts(
        prompts=4, kept=3, rejected={"calls": 1}, completion_tokens=9, verified={"calls": calls, "gold": gold}
    )
    assert found.verdicts == "calls: 3 pass, 1 fail, 0 unknown"
    assert found.model_copy(update={"verified": {"gold": gold}}).verdicts is None


def test_no_answer_that_passes_is_an_error_that_names_the_checkers(
    endpoint: Callable[[Script], Endpoint], tiny_model: Path, workload: Path, tmp_path: Path
) -> None:
    answer = reply("The attic is nice.")
    given = recipe(tmp_path, tiny_model, workload, endpoint(lambda body: (200, answer)).url)
    with pytest.raises(
        StepError, match=r"none of the answers .*\(gold 24\).*choose others in generate\.verify; no ans"
    ):
        run(given, tmp_path / "runs" / "r" / "generate")


def test_own_answers_are_verified_too(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    wrong = light_rows([""])[:4]
    wrong[1]["completion"] = {"role": "assistant", "content": "No."}
    write_jsonl(workload / "train.jsonl", wrong)
    given = recipe(tmp_path, tiny_model, workload, "http://localhost:9/v1", samples=0)
    found = run(given, tmp_path / "runs" / "r" / "generate").splits["train"]
    assert (found.own_answers, found.kept, found.rejected) == (4, 3, {"gold": 1})


def test_answers_that_cannot_be_judged_are_kept_or_rejected(workload: Path) -> None:
    rows = read_rows(workload / "train.jsonl", tools=workload / "tools.json")
    bare = [row.model_copy(update={"gold": None, "behaviour": "answer"}) for row in rows]

    def kept(**checkers: str) -> int:
        done: Verified = verify_rows(bare, checkers)  # type: ignore[arg-type]
        assert len(done.kept) + len(done.rejected) == len(bare)
        assert {row.provenance["rejected"] for row in done.rejected} <= {"unknown"}
        return len(done.kept)

    assert kept(gold="keep") == kept(calls="reject") == kept(calls="reject", gold="keep") == len(bare)
    assert kept(gold="reject") == kept(calls="keep", gold="reject") == 0


def test_a_split_that_no_checker_can_judge_has_no_line() -> None:
    counts = {"gold": VerdictCounts(unknown=3)}
    split = SplitCounts(prompts=3, kept=3, rejected={}, completion_tokens=1, verified=counts)
    assert split.verdicts is None
    assert Generated(teacher=TeacherIdentity(kind="api", model="m"), splits={"train": split}).findings() == []


def test_agreement_needs_enough_answers(workload: Path, tiny_model: Path, tmp_path: Path) -> None:
    url = "http://localhost:9/v1"
    with pytest.raises(ValueError, match=r"generate\.verify: agreement needs at least 3 answers .*samples is 1"):
        recipe(tmp_path, tiny_model, workload, url, verify=["agreement"])
    assert recipe(tmp_path, tiny_model, workload, url, verify=["gold"]).generate.verify == {"gold": "keep"}
    with pytest.raises(ValueError, match="verify"):
        recipe(tmp_path, tiny_model, workload, url, verify=["judge"])
