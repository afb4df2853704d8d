"""Answers are asked for once, filtered with reasons, and stored with their origin."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from fixtures import light_rows, write_jsonl
from potstill.components.chat.format import load_chat
from potstill.components.runtimes import Answer, FinishReason, OnAnswers, Sampling
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.components.sizing.workload import read_splits
from potstill.core.artifacts.generated import (
    TOOLS,
    Generated,
    SplitCounts,
    TeacherIdentity,
    read_generated,
    rows_file,
)
from potstill.core.errors import DataError, StepError
from potstill.core.hashing import hashed_value
from potstill.core.recipe import Recipe
from potstill.core.recipe.chat import Reasoning
from potstill.core.records import Row, read_rows, write_rows
from potstill.core.steps import Done
from potstill.stages.generate import stage
from potstill.stages.generate.filter import filter_answers
from potstill.stages.generate.stage import STAGE, GenerateInputs, make_inputs
from potstill.stages.generate.teachers import LoadedTeacher, load_teachers

CALL = '<tool_call>\n{"name": "set_light", "arguments": {"room": "attic", "state": "on"}}\n</tool_call>'


class Scripted:
    """A teacher that gives the same answer to every prompt."""

    def __init__(self, say: str = CALL, finish: FinishReason = "stop") -> None:
        self.say, self.finish = say, finish
        self.asked: list[str] = []
        self.labels: list[str] = []
        self.planned = 0

    def announce(self, planned: Sequence[tuple[Sequence[Row], Sampling]]) -> None:
        self.planned = sum(len(rows) for rows, _ in planned)

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        self.labels.append(label)
        self.asked += [row.row_id for row in rows]
        return [Answer(self.say, self.finish, 5, 7, 0.1) for _ in rows]


def teacher(runtime: Scripted, folder: Path) -> LoadedTeacher:
    chat = load_chat(folder)
    return LoadedTeacher(runtime, chat, chat, TeacherIdentity(kind="local", model="scripted"))


def rows(path: Path, count: int = 12) -> list[Row]:
    prompts = [{key: value for key, value in row.items() if key != "completion"} for row in light_rows([""])]
    return read_rows(write_jsonl(path / "rows.jsonl", prompts[:count]))


def test_progress_counts_repeated_prompts(
    tiny_model: Path, workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, runtime = recipe(tiny_model, workload), Scripted()
    twice = [*read_rows(given.data.prompts), read_rows(given.data.prompts)[0]]
    write_rows(prompts := tmp_path / "twice.jsonl", twice)
    given = given.model_copy(update={"data": given.data.model_copy(update={"prompts": prompts, "validation": None})})
    monkeypatch.setattr(stage, "load_teachers", lambda inputs, out: [teacher(runtime, tiny_model)])
    STAGE.run(inputs(given), tmp_path)
    assert runtime.labels[0] == "answer train rows (1 repeated)"
    assert len(runtime.asked) == len(twice) - 1


def filtered(
    asked: Sequence[Row],
    folder: Path,
    say: str = CALL,
    finish: FinishReason = "stop",
    keep_truncated: bool = False,
    context: int = 512,
) -> tuple[list[Row], list[Row]]:
    answers = {row.row_id: [Answer(say, finish, 5, 7, 0.1)] for row in asked}
    return filter_answers(asked, answers, teacher(Scripted(), folder), keep_truncated=keep_truncated, context=context)


@pytest.mark.parametrize(
    ("say", "finish", "keep", "reason"),
    [
        (CALL, "length", False, "length"),
        (CALL, "length", True, None),
        ("  ", "stop", False, "empty"),
        ("<think>which room</think>\n", "stop", False, "empty"),
        ("<think>which room", "stop", False, "empty"),
        ("<think>which room", "length", False, "length"),
        ("<think>which room", "length", True, None),
        (CALL, "stop", False, None),
        (CALL, "unfinished", True, "unfinished"),
        ("", "refused", True, "refused"),
    ],
)
def test_unfit_answers_are_rejected_with_their_reason(
    tiny_model: Path, tmp_path: Path, say: str, finish: FinishReason, keep: bool, reason: str | None
) -> None:
    asked = rows(tmp_path, 2)
    kept, rejected = filtered(asked, tiny_model, say, finish, keep_truncated=keep)
    assert (len(kept), len(rejected)) == ((2, 0) if reason is None else (0, 2))
    for row in kept + rejected:
        assert row.provenance["finish_reason"] == finish
        assert row.provenance["teacher"] == {"kind": "local", "model": "scripted"}
        assert row.provenance.get("rejected") == reason


def test_an_answer_of_another_model_than_usual_is_rejected(tiny_model: Path, tmp_path: Path) -> None:
    asked = rows(tmp_path, 6)
    reported = ["proxied", "proxied", "Scripted-2026", "fallback", None, "proxied"]  # `scripted` is asked for
    answers = {
        row.row_id: [Answer(CALL, "stop", 5, 7, 0.1, model=model)] for row, model in zip(asked, reported, strict=True)
    }
    kept, rejected = filter_answers(asked, answers, teacher(Scripted(), tiny_model), keep_truncated=False, context=512)
    assert [row.provenance.get("reported_model") for row in kept] == [
        "proxied",
        "proxied",
        "Scripted-2026",
        None,
        "proxied",
    ]
    assert [(row.provenance["reported_model"], row.provenance["rejected"]) for row in rejected] == [
        ("fallback", "model")
    ]


def test_an_answer_too_long_for_the_student_is_rejected(tiny_model: Path, tmp_path: Path) -> None:
    asked = rows(tmp_path, 1)
    length = len(load_chat(tiny_model).example(filtered(asked, tiny_model)[0][0]).ids)
    assert len(filtered(asked, tiny_model, context=length)[0]) == 1
    kept, rejected = filtered(asked, tiny_model, context=length - 1)
    assert not kept
    assert rejected[0].provenance["rejected"] == "context"


def test_a_repeated_prompt_is_rejected(tiny_model: Path, tmp_path: Path) -> None:
    twice = rows(tmp_path, 3) + rows(tmp_path, 1)
    kept, rejected = filtered(twice, tiny_model)
    assert len(kept) == 3
    assert [r.provenance["rejected"] for r in rejected] == ["repeated"]


def test_tool_calls_are_stored_as_such_only_if_they_render_back_to_the_same_words(
    tiny_model: Path, tmp_path: Path
) -> None:
    asked = rows(tmp_path, 1)
    odd = CALL.replace('": "', '":"')
    beyond_64_bits = CALL.replace('"arguments": {', f'"arguments": {{"n": {1 << 64}, ')
    whole_number = CALL.replace('"arguments": {', '"arguments": {"n": 1.0, ')
    for say, calls in ((CALL, 1), (odd, 0), (beyond_64_bits, 0), (whole_number, 0)):
        kept, _ = filtered(asked, tiny_model, say)
        assert kept[0].completion is not None
        assert len(kept[0].completion.tool_calls) == calls
        chat = load_chat(tiny_model)
        example = chat.example(kept[0])
        prompt = list(example.ids[: example.n_prompt])
        assert chat.decode(list(example.ids[example.n_prompt :]), after=prompt) == say


@pytest.mark.parametrize("reasoning", ["learn", "drop"])
def test_thinking_is_learnt_or_dropped(tiny_model: Path, tmp_path: Path, reasoning: Reasoning) -> None:
    asked, thought = rows(tmp_path, 1), "<think>\nthe attic\n</think>\n\n"
    answers = {row.row_id: [Answer(thought + CALL, "stop", 5, 7, 0.1)] for row in asked}
    local = teacher(Scripted(), tiny_model)
    found = []
    for asker in (local, replace(local, chat=None)):
        kept, _ = filter_answers(asked, answers, asker, keep_truncated=False, context=512, reasoning=reasoning)
        assert kept[0].completion is not None
        found.append(kept[0].completion)
    if reasoning == "drop":
        assert found[0] == found[1] and found[0].content is None and found[0].reasoning_content is None
    else:
        assert found[0].content == thought + CALL
        assert (found[1].reasoning_content, len(found[1].tool_calls)) == ("the attic", 1)


def test_an_answer_that_the_teachers_template_refuses_as_a_call_stays_text(tiny_model: Path, tmp_path: Path) -> None:
    refuses = tmp_path / "model"
    shutil.copytree(tiny_model, refuses)
    refusal = "{% for m in messages if m.tool_calls %}{{ raise_exception('no calls') }}{% endfor %}"
    (refuses / "chat_template.jinja").write_text(refusal + (tiny_model / "chat_template.jinja").read_text())
    ((kept,), _) = filtered(rows(tmp_path, 1), refuses)
    assert kept.completion is not None
    assert (kept.completion.content, kept.completion.tool_calls) == (CALL, ())


def test_what_the_students_template_leaves_out_of_answers_is_counted(
    tiny_model: Path, workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "model"
    shutil.copytree(tiny_model, silent)
    template = (tiny_model / "chat_template.jinja").read_text()
    (silent / "chat_template.jinja").write_text(
        template.replace("message.content or ''", "'' if message.tool_calls else message.content")
    )
    asker = LoadedTeacher(
        Scripted("So:\n" + CALL), None, load_chat(silent), TeacherIdentity(kind="api", model="scripted")
    )
    monkeypatch.setattr(stage, "load_teachers", lambda inputs, out: [asker])
    STAGE.run(inputs(recipe(tiny_model, workload)), tmp_path)
    found = Generated.read(tmp_path)
    kept = found.splits["train"].kept
    assert kept > 0
    (said,) = found.findings()
    assert said.startswith(f"generate: the student's chat template leaves words before a call out of {kept} of {kept} ")


def test_thinking_is_counted_on_the_terminal() -> None:
    split = SplitCounts(prompts=9, kept=8, rejected={}, completion_tokens=1, thinking=7)
    who = TeacherIdentity(kind="local", model="m")
    said = [
        Generated(teacher=who, reasoning=choice, splits={"train": split}).findings() for choice in ("learn", "drop")
    ]
    assert [each[0][:40] for each in said] == ["generate: 7 of 9 answers have thinking; "] * 2
    assert said[0][0].endswith("it is learnt with the answer (chat.reasoning: learn).")
    assert said[1][0].endswith("it is left out of the rows (chat.reasoning: drop).")
    quiet = split.model_copy(update={"thinking": 0})
    assert Generated(teacher=who, splits={"train": quiet}).findings() == []


def recipe(model: Path, workload: Path, **settings: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "data": {n: workload / f"{n}.jsonl" for n in ("validation", "test")}
            | {"prompts": workload / "train.jsonl", "tools": workload / "tools.json"},
            "chat": {"context": 128},
            "teacher": {"model": str(model)},
            "generate": {"max_new_tokens": 6, "keep_truncated": True, "batch_size": 5, "verify": {}}
            | settings,
            "student": {"init": "teacher_layers", "layers": 2},
        }
    )  # fmt: skip


def step(folder: Path) -> Path:
    """A step's directory in a folder of runs; the store of answers is in that folder too."""
    out = folder / "runs" / "r" / "generate"
    out.mkdir(parents=True)
    return out


def inputs(given: Recipe) -> GenerateInputs:
    return make_inputs(given, Done({}, STAGE.reads))


def test_the_stage_is_deterministic_and_counts_every_prompt(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    outs = [tmp_path / runs / "r" / "generate" for runs in ("a", "b")]
    for out in outs:
        out.mkdir(parents=True)
        STAGE.run(inputs(recipe(tiny_model, workload, temperature=1.0)), out)
    for name in ("train.jsonl", "validation.jsonl", "rejected.jsonl"):
        assert (outs[0] / name).read_text() == (outs[1] / name).read_text()
    found = Generated.read(outs[0])
    split = found.splits["train"]
    assert split.prompts == split.kept + sum(split.rejected.values()) == 24
    assert found.teacher.model == tiny_model.name and len(found.teacher.weights_sha256 or "") == 64
    answered = read_generated(outs[0] / rows_file("train"), outs[0] / TOOLS)
    assert len(answered) == split.kept and all(row.tools and row.completion for row in answered)
    assert TeacherIdentity.model_validate(answered[0].provenance["teacher"]) == found.teacher


def test_a_split_without_rows_is_read_as_none(tmp_path: Path) -> None:
    (tmp_path / "validation.jsonl").touch()
    (tmp_path / TOOLS).write_text("[]")
    assert read_generated(tmp_path / rows_file("validation"), tmp_path / TOOLS) == []


def test_no_answer_to_learn_from_is_an_error(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"none of the answers to 24 prompts .*(length|empty) 24.*keep_truncated"):
        STAGE.run(inputs(recipe(tiny_model, workload, keep_truncated=False, max_new_tokens=1)), step(tmp_path))


def test_the_fingerprint_changes_with_the_content_and_not_with_the_place(
    tiny_model: Path, workload: Path, tmp_path: Path
) -> None:
    first = hashed_value(inputs(recipe(tiny_model, workload)))
    moved = tmp_path / "moved"
    shutil.copytree(workload, moved)
    assert hashed_value(inputs(recipe(tiny_model, moved))) == first
    with (moved / "train.jsonl").open("a") as file:
        file.write("\n")
    assert hashed_value(inputs(recipe(tiny_model, moved))) != first
    assert hashed_value(inputs(recipe(tiny_model, workload, temperature=0.5))) != first


def test_batched_answers_are_those_of_transformers_own_generate(
    tiny_model: Path, workload: Path, tmp_path: Path
) -> None:
    import torch

    (loaded,) = load_teachers(inputs(recipe(tiny_model, workload)), step(tmp_path))
    assert loaded.chat is not None and isinstance(loaded.runtime, JournaledRuntime)
    asked = rows(tmp_path)
    answers = loaded.runtime.answer(asked, Sampling(12), "test")
    assert isinstance(loaded.runtime.teacher, HFRuntime)
    model = loaded.runtime.teacher.model
    for row, answer in zip(asked, answers, strict=True):
        prompt = loaded.chat.prompt_ids(row)
        out = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=12,
            do_sample=False,
            eos_token_id=sorted(loaded.chat.stop_ids), pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        if out[-1] in loaded.chat.stop_ids:
            out.pop()
        assert answer.text == loaded.chat.decode(out, after=prompt)
        assert answer.completion_tokens == len(out)


def test_sampling_follows_the_distribution(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    from potstill.components.runtimes.hf import _choose

    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    streams = [torch.Generator().manual_seed(0)]
    drawn = [_choose(logits, streams, Sampling(1, temperature=1.0))[0][0] for _ in range(4000)]
    assert [drawn.count(i) / 4000 for i in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    nucleus = {_choose(logits, streams, Sampling(1, temperature=1.0, top_p=0.7))[0][0] for _ in range(500)}
    assert nucleus == {0, 1}
    assert _choose(logits, streams, Sampling(1)) == [(0, 0.0)]


def test_what_is_lost_is_said_of_each_split_with_its_reasons() -> None:
    who = TeacherIdentity(kind="local", model="m", weights_sha256="ab" * 32)
    train = SplitCounts(prompts=20, kept=4, rejected={"length": 15, "repeated": 1}, completion_tokens=9)
    validation = SplitCounts(prompts=3, kept=1, rejected={"refused": 1, "unfinished": 1}, completion_tokens=9)
    said = Generated(teacher=who, splits={"train": train, "validation": validation}).findings()
    assert said == [
        "generate: train: 4 of 20 answers are used, and 16 are not (the answer is cut off at generate.max_new_tokens "
        "or chat.context: 15, the prompt is repeated: 1). They are in rejected.jsonl, each with its reason.",
        "generate: validation: 1 of 3 answers are used, and 2 are not (the endpoint refuses the prompt: 1, the "
        "endpoint ended the answer for a reason of its own, such as a content filter: 1). They are in rejected.jsonl, "
        "each with its reason.",
    ]


def test_a_refused_row_keeps_why_it_was_refused(tiny_model: Path, tmp_path: Path) -> None:
    asked = rows(tmp_path, 1)
    answers = {asked[0].row_id: [Answer("", "refused", 0, 0, 0.1, detail="content policy")]}
    _, (row,) = filter_answers(asked, answers, teacher(Scripted(), tiny_model), keep_truncated=False, context=512)
    assert (row.provenance["rejected"], row.provenance["detail"]) == ("refused", "content policy")


def test_each_sample_is_a_row_and_has_a_seed_of_its_own(
    tiny_model: Path, workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sampled(Scripted):
        def answer(
            self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
        ) -> list[Answer]:
            self.asked += [row.row_id for row in rows]
            return [Answer(f"said with seed {sampling.seed}", "stop", 5, 7, 0.1) for _ in rows]

    runtime = Sampled()
    monkeypatch.setattr(stage, "load_teachers", lambda inputs, out: [teacher(runtime, tiny_model)])
    STAGE.run(inputs(recipe(tiny_model, workload, temperature=0.8, samples=3)), tmp_path)
    found = Generated.read(tmp_path).splits
    assert (found["train"].prompts, found["train"].kept) == (24, 72)
    assert (found["validation"].prompts, found["validation"].kept) == (6, 6)
    assert len(runtime.asked) == runtime.planned == 72 + 6
    answered = read_generated(tmp_path / rows_file("train"), tmp_path / TOOLS)
    assert [row.completion.content for row in answered[:3] if row.completion] == [
        f"said with seed {i}" for i in range(3)
    ]
    assert len({row.row_id for row in answered[:3]}) == 1


def test_samples_that_would_all_be_the_same_are_refused(tiny_model: Path, workload: Path) -> None:
    with pytest.raises(ValidationError, match=r"generate\.samples: 2 answers to a prompt are all the same at temp"):
        recipe(tiny_model, workload, samples=2)


def test_rows_with_own_answers_are_learnt_from_without_asking(
    tiny_model: Path, workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several answers to one prompt are several rows; the same answer again is repeated."""
    first, *others = light_rows([""])
    said = [first | {"completion": {"role": "assistant", "content": text}} for text in ("one", "two", "one")]
    prompts = write_jsonl(tmp_path / "own.jsonl", [said[0], others[0], *said[1:], *others[1:]])
    given, runtime = recipe(tiny_model, workload, samples=0), Scripted()
    given = given.model_copy(update={"data": given.data.model_copy(update={"prompts": prompts, "validation": None})})
    monkeypatch.setattr(stage, "load_teachers", lambda inputs, out: [teacher(runtime, tiny_model)])
    STAGE.run(inputs(given), tmp_path)
    counts = Generated.read(tmp_path).splits["train"]
    assert (counts.own_answers, counts.kept, counts.rejected) == (3 + len(others), 2 + len(others), {"repeated": 1})
    assert runtime.asked == []
    answered = read_generated(tmp_path / rows_file("train"), tmp_path / TOOLS)
    assert [row.completion.content for row in answered[:3:2] if row.completion] == ["one", "two"]  # in their order
    assert "teacher" not in answered[0].provenance
    assert read_splits(given)["prompts"]
    write_jsonl(prompts, [{"messages": first["messages"]}])
    with pytest.raises(DataError, match=r"own\.jsonl:1: the row has no assistant turn"):
        read_splits(given)


def test_validation_rows_have_a_limit_of_their_own(tiny_model: Path, workload: Path) -> None:
    given = recipe(tiny_model, workload)
    limited = given.model_copy(
        update={"data": given.data.model_copy(update={"limit": {"prompts": 5, "validation": 2}})}
    )
    assert (inputs(limited).limit, inputs(limited).validation_limit) == (5, 2)
    assert {name: len(rows) for name, rows in read_splits(limited).items()} == {
        "prompts": 5,
        "validation": 2,
        "test": 6,
    }
