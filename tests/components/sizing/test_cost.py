"""What a distillation takes, counted by hand and on a small workload."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from fixtures import light_rows, write_jsonl
from potstill.apps.plan.budget import plan_recipe
from potstill.apps.plan.options import Ask
from potstill.components.chat.format import load_chat
from potstill.components.chat.trimming import trim_folder
from potstill.components.hardware.devices import find_device
from potstill.components.models.recipe_models import load_models
from potstill.components.sizing import cost, needs
from potstill.components.sizing.cost import Training, Workload, disk_needed, kept_tokens, training
from potstill.core.errors import DataError, RecipeError
from potstill.core.records import read_rows
from potstill.stages.check.checks import check_recipe

if TYPE_CHECKING:
    from workshop import Workshop

WORK = Workload(rows=1000, prompt=100, answer=50, epochs=3)
TOKENS = 150_000
STUDENT, TEACHER = 10**8, 10**9
ALONE = {"control": "none"}


def spent(workshop: Workshop, work: Workload = WORK, teacher: int = TEACHER, **changes: Any) -> Training:
    card = find_device("RTX 3060")
    return training(STUDENT, teacher, workshop.recipe(**changes), work, card, 32000)


# ---- operations and hours ----


def test_operations_are_counted_as_in_kaplan(workshop: Workshop) -> None:
    online = spent(workshop, train=ALONE)
    assert online.parts == pytest.approx({"student": TOKENS * 3 * 6e8, "teacher": TOKENS * 3 * 2e9})
    assert online.operations == pytest.approx(TOKENS * 3 * (6e8 + 2e9))
    assert online.target_bytes == 0
    both = spent(workshop, train={"control": "sft"})
    assert both.parts["control"] == both.parts["student"] == pytest.approx(TOKENS * 3 * 6e8)
    assert both.operations - online.operations == pytest.approx(TOKENS * 3 * 6e8)
    card = find_device("RTX 3060")
    low, high = card.compute_efficiency
    assert online.hours == pytest.approx(
        (online.operations / (card.compute * high) / 3600, online.operations / (card.compute * low) / 3600)
    )


def test_a_teacher_reads_the_rows_as_often_as_it_must(workshop: Workshop) -> None:
    once = TOKENS * 2e9
    counts, more = ({"kind": "counts", "draws": draws} for draws in (50, 200))
    stored = spent(workshop, train={**ALONE, "objective": {"targets": counts}})
    assert stored.parts["teacher"] == pytest.approx(once)
    assert 0 < stored.target_bytes < spent(workshop, train={**ALONE, "objective": {"targets": more}}).target_bytes
    # hidden states are in no store, so for them the teacher runs beside the student as well
    assert spent(workshop, train={**ALONE, "objective": {"targets": counts, "hidden": {}}}).parts[
        "teacher"
    ] == pytest.approx(4 * once)
    # plain fine-tuning is on the teacher's text alone
    plain = spent(workshop, train={**ALONE, "objective": "sft"})
    assert plain.parts == {"student": pytest.approx(TOKENS * 3 * 6e8)}
    assert "teacher" not in spent(workshop, teacher=0, train=ALONE).parts


def test_the_teachers_own_training_is_counted(workshop: Workshop) -> None:
    rows = write_jsonl(workshop.folder / "gold.jsonl", light_rows(["kindly "]))
    tune: dict[str, Any] = {"teacher": {"finetune": {"rows": "gold.jsonl", "epochs": 2}}}
    recipe, chat, card = workshop.recipe(**tune), load_chat(workshop.model), find_device("RTX 3060")
    work = Workload.of(recipe, chat)
    tokens = sum(len(chat.example(row).ids) for row in read_rows(rows, tools=workshop.folder / "tools.json"))
    assert work.finetune_tokens == pytest.approx(tokens)
    found, without = training(STUDENT, TEACHER, recipe, work, card, 384), spent(workshop, work)
    assert found.parts["finetune"] == pytest.approx(6e9 * tokens * 2)
    assert found.operations - without.operations == pytest.approx(found.parts["finetune"])
    assert found.hours[1] / without.hours[1] == pytest.approx(found.operations / without.operations)


def test_the_teachers_own_training_is_paid_before_the_first_answer(workshop: Workshop) -> None:
    target = {"device": "pi5", "economy": {"train_hour_price": 1e9}}
    teacher = {"price": {"input": 2.0, "output": 10.0}}
    tuned = {**teacher, "finetune": {"rows": "train.jsonl", "epochs": 50}}
    plain, more = (
        plan_recipe(workshop.recipe(teacher=each, target=target), train_on="RTX 3060")["cost"]
        for each in (teacher, tuned)
    )
    operations = more["training"]["operations"] / plain["training"]["operations"]
    assert operations > 2
    assert more["answer"]["once"] / plain["answer"]["once"] == pytest.approx(operations, rel=1e-3)


def test_what_the_hours_do_not_hold_is_named(workshop: Workshop) -> None:
    work = Workload(rows=1000, prompt=100, answer=50, epochs=3, validation_rows=200)
    found = spent(workshop, work, train=ALONE)
    assert found.left_out == pytest.approx({"teacher's answers": 2e9 * 1200 * 150})
    own = spent(workshop, work, train={**ALONE, "objective": {"on_policy": {"share": 0.25}}})
    assert own.left_out["student's own answers"] == pytest.approx(2e8 * TOKENS * 3 * 0.25)
    assert own.hours == found.hours
    told = found.to_json()
    assert told["left_out"] == found.left_out and "neither operations nor hours" in told["left_out_why"]
    assert told["operations"] == pytest.approx(sum(told["parts"].values()))
    api = spent(workshop, teacher=0, train=ALONE).to_json()
    assert api["left_out"] == {} and api["left_out_why"] is None


def test_a_workload_is_counted_in_the_teachers_tokens(workshop: Workshop) -> None:
    recipe, chat = workshop.recipe(), load_chat(workshop.model)
    work = Workload.of(recipe, chat)
    assert work.rows == work.answered_rows == len(workshop.rows("train.jsonl"))
    assert (work.answer_from, work.answer < recipe.generate.max_new_tokens) == ("as in the test file", True)
    rows = [{key: value for key, value in row.items() if key != "completion"} for row in workshop.rows("test.jsonl")]
    write_jsonl(workshop.test, rows)
    blind = Workload.of(recipe, chat)
    assert (blind.prompt, blind.answer) == (work.prompt, recipe.generate.max_new_tokens / 2)
    # tools are in every prompt, which is what an endpoint charges for
    assert work.prompt > 1.5 * Workload.of(workshop.recipe(data={"tools": None}), chat).prompt
    # so are the prompts of the validation curve
    write_jsonl(workshop.folder / "validation.jsonl", light_rows(["do "])[:5])
    assert Workload.of(workshop.recipe(data={"validation": "validation.jsonl"}), chat).answered_rows == work.rows + 5


def test_a_row_that_the_template_refuses_is_told(workshop: Workshop) -> None:
    path = workshop.model / "chat_template.jinja"
    path.write_text("{{ raise_exception('no such role') }}" + path.read_text())
    recipe, chat = workshop.recipe(), load_chat(workshop.model)
    for count in (Workload.of, kept_tokens):
        with pytest.raises(DataError, match=r"(train|test)\.jsonl:1: .*no such role.*chat\.template"):
            count(recipe, chat)


# ---- disk ----


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_disk_of_a_students_training(workshop: Workshop) -> None:
    """Two checkpoints of 12 bytes a parameter beside the models that are left, and targets where they are stored."""
    assert spent(workshop, train=ALONE).to_json()["disk_bytes"] == (24 + 4) * STUDENT
    assert spent(workshop).to_json()["disk_bytes"] == (24 + 2 * 4) * STUDENT
    stored = spent(workshop, train={"objective": {"targets": "counts"}})
    assert stored.to_json()["disk_bytes"] == (24 + 2 * 4) * STUDENT + stored.target_bytes


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
    recipe, runs = workshop.recipe(**CHANGES[case]), workshop.folder / "runs"
    models, notes = load_models(recipe), list[str]()
    assert models.teacher
    work = Workload.of(recipe, models.teacher.chat)
    disk = disk_needed(recipe, models, work, notes, runs)
    free = recipe.model_copy(update={"target": workshop.recipe().target})
    checked = check_recipe(free, runs).disk
    assert disk and notes == [] and (disk.needed, disk.stays) == (checked.needed, checked.stays)
    args = models.student.parameters or 0, models.teacher.parameters or 0, recipe, work, find_device("RTX 3060"), 384
    told = training(*args, disk).to_json()
    assert (told["disk_bytes"], told["disk_stays"]) == (checked.needed, checked.stays)
    assert told["disk_bytes"] > training(*args).to_json()["disk_bytes"]


def test_too_little_disk_is_a_note(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, notes = workshop.recipe(), list[str]()
    models = load_models(recipe)
    work = Workload.of(recipe, models.student.chat)
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: Usage(1000, 0, 1000))
    assert disk_needed(recipe, models, work, notes) is None
    assert "MB of disk" in notes[0] and len(notes) == 1


# ---- an answer on the device ----


def test_an_answer_takes_the_slow_end_of_prompt_and_answer(workshop: Workshop) -> None:
    # so large that rounded seconds tell its ends apart; nothing of it is made
    shape = {"layers": 24, "hidden": 2048, "ffn": 8192, "heads": 16}
    teacher = {"finetune": {"rows": "train.jsonl", "shape": shape}}
    found = plan_recipe(workshop.recipe(teacher=teacher, target={"device": "pi5"}), train_on="RTX 3060")
    chosen = next(row for row in found["quantizations"] if row["chosen"])
    answer = found["cost"]["answer"]
    (soon, late), (slow, fast) = chosen["ttft_seconds"], chosen["decode_tokens_per_s"]
    seconds = late + answer["tokens"] / slow
    assert answer["seconds"] == pytest.approx(seconds, rel=1e-3)
    # neither a faster end nor an answer without its prompt would pass for it
    for other in (answer["tokens"] / slow, soon + answer["tokens"] / slow, late + answer["tokens"] / fast):
        assert other < 0.98 * seconds


def test_of_a_device_that_is_not_known_the_targets_own_limits_are_taken(workshop: Workshop) -> None:
    limits = {"device": "a board of ours", "decode_tokens_per_s": 50, "ttft_ms": 500}
    answer = plan_recipe(workshop.recipe(target=limits), Ask())["cost"]["answer"]
    assert answer["seconds"] == pytest.approx(0.5 + answer["tokens"] / 50, abs=0.002)
    del limits["ttft_ms"]
    assert plan_recipe(workshop.recipe(target=limits), Ask())["cost"]["answer"]["seconds"] == pytest.approx(
        answer["seconds"] - 0.5, abs=0.002
    )


# ---- a vocabulary of the workload's own ----


def used_by(workshop: Workshop, *files: str, answers_of: str = "") -> set[int]:
    chat, tools = load_chat(workshop.model), workshop.folder / "tools.json"
    used: set[int] = set()
    for file in files:
        for row in read_rows(workshop.folder / file, tools=tools):
            used.update(chat.example(row).ids if row.completion else chat.prompt_ids(row))
    for row in read_rows(workshop.folder / answers_of, tools=tools) if answers_of else ():
        example = chat.example(row)
        used.update(example.ids[example.n_prompt :])
    return used


def test_tokens_that_are_kept_are_what_training_will_keep(workshop: Workshop) -> None:
    write_jsonl(workshop.folder / "validation.jsonl", light_rows(["silently "])[:3])
    recipe, chat = workshop.recipe(data={"validation": "validation.jsonl"}), load_chat(workshop.model)
    used = used_by(workshop, "train.jsonl", "validation.jsonl")
    kept = trim_folder(workshop.model, used, workshop.folder / "trimmed").kept
    found = kept_tokens(recipe, chat)
    assert (found.tokens, found.counted, found.rows, found.note) == (len(kept), 27, 27, None)
    assert kept_tokens(recipe, chat).tokens == len(kept) < chat.vocab_size
    # more than rows and bytes say: what merges pass through is kept too
    single = {index for text, index in chat.tokenizer.get_vocab().items() if len(text) == 1}
    assert len(kept) > len(used | single | set(chat.tokenizer.get_added_tokens_decoder()))
    # rows of the test file are not trained on
    assert len(kept) == kept_tokens(workshop.recipe(data={"validation": "validation.jsonl"}), chat).tokens
    write_jsonl(workshop.test, light_rows(["now would you be so kind as to "]))
    assert kept_tokens(recipe, chat).tokens == len(kept)


def test_tokens_that_end_a_turn_are_kept_too(workshop: Workshop) -> None:
    chat = load_chat(workshop.model)
    before = kept_tokens(workshop.recipe(), chat).tokens
    word = max(index for text, index in chat.tokenizer.get_vocab().items() if not text.startswith("<"))
    assert word not in used_by(workshop, "train.jsonl")
    (workshop.model / "generation_config.json").write_text(json.dumps({"eos_token_id": [chat.eos_id, word]}))
    kept = trim_folder(workshop.model, used_by(workshop, "train.jsonl"), workshop.folder / "trimmed").kept
    assert kept_tokens(workshop.recipe(), load_chat(workshop.model)).tokens == len(kept) > before


def test_answers_that_are_not_there_yet_are_taken_to_be_like_the_tests(workshop: Workshop) -> None:
    prompts = [{key: value for key, value in row.items() if key != "completion"} for row in light_rows([""])]
    write_jsonl(workshop.prompts, prompts)
    recipe, chat = workshop.recipe(), load_chat(workshop.model)
    used = used_by(workshop, "train.jsonl", answers_of="test.jsonl")
    assert used > used_by(workshop, "train.jsonl")
    kept = trim_folder(workshop.model, used, workshop.folder / "trimmed").kept
    assert kept_tokens(recipe, chat).tokens == len(kept)


def test_a_count_on_a_sample_says_so(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, chat = workshop.recipe(), load_chat(workshop.model)
    whole = kept_tokens(recipe, chat)
    monkeypatch.setattr(cost, "_MOST", 10)
    part = kept_tokens(recipe, chat)
    assert (part.counted, part.rows) == (8, 24) and part.tokens <= whole.tokens
    assert part.note and "counted on 8 of 24 rows" in part.note


def test_a_tokenizer_that_cannot_be_trimmed_is_not_counted(workshop: Workshop) -> None:
    path = workshop.model / "tokenizer.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"pre_tokenizer": {"type": "Whitespace"}}))
    with pytest.raises(RecipeError, match=r"the tokenizer of .*teacher is BPE with neither a ByteLevel"):
        kept_tokens(workshop.recipe(), load_chat(workshop.model))
