"""What a verdict says about its gates, and without a gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from finished_run import metrics, pair, speed, write_exported
from potstill.core.artifacts.metrics import FidelityDifference, LeakedRows, Paired, PairedCounts, Rate
from potstill.core.artifacts.verdict import Verdict
from potstill.core.recipe import load_recipe
from potstill.stages.gate.stage import STAGE
from stage_runs import run_stage

RECIPE = "name: t\ndata: {prompts: p.jsonl, test: t.jsonl}\nteacher: {model: m}\nstudent: {layers: 1}\n"
NO_LEAKS = LeakedRows(rows=0, of=430, row_ids=())


def gated(folder: Path) -> Verdict:
    """The verdict on the folder's recipe and evaluate step, with a file and its speed."""
    write_exported(folder / "export", "t.gguf")
    (folder / "speed").mkdir()
    speed().write(folder / "speed")
    folders = {name: folder / name for name in ("export", "speed", "evaluate")}
    run_stage(STAGE, load_recipe(folder / "recipe.yaml"), folders, folder / "gate")
    return Verdict.read(folder / "gate")


def judged(
    folder: Path, sections: str, student: str, control: str, leaked: LeakedRows = NO_LEAKS, *, fidelity: bool = True
) -> Verdict:
    """The verdict on models whose answers are right where a letter is `x`; teacher and file answer as the student."""
    (folder / "recipe.yaml").write_text(RECIPE + sections)
    evaluated = folder / "evaluate"
    evaluated.mkdir()
    right = {"gguf": student, "teacher": student, "student": student, "control": control}
    marks = {name: [mark == "x" for mark in text] for name, text in right.items()}
    same, compared = (PairedCounts.of(marks["student"], marks[name], None, 0.9) for name in ("gguf", "control"))
    paired = Paired(gguf_vs_teacher=same, gguf_vs_student=same, student_vs_control=compared)
    whole = metrics().model_copy(update={"leaked": leaked, "paired": paired})
    if not fidelity:
        gguf = whole.models.gguf.model_copy(update={"fidelity": None, "exact": None, "behaviours": {}})
        whole = whole.model_copy(update={"models": whole.models.model_copy(update={"gguf": gguf})})
    whole.write(evaluated)
    return gated(folder)


@pytest.mark.parametrize(
    ("student", "control", "says"),
    [
        ("x" * 20, "x" * 8 + "-" * 12, "Better than plain fine-tuning"),
        ("x" * 8 + "-" * 12, "x" * 20, "Worse than plain fine-tuning"),
        ("x" * 12 + "-" * 8, "x" * 11 + "-" * 9, "No difference from plain fine-tuning shown"),
    ],
)
def test_a_note_says_whether_distillation_paid(tmp_path: Path, student: str, control: str, says: str) -> None:
    found = judged(tmp_path, "gates: {beats_control: false}\n", student, control)
    assert found.gates == ()
    assert len(found.notes) == 1 and says in found.notes[0] and "(no gate)" in found.notes[0]


def test_no_note_where_a_gate_says_it(tmp_path: Path) -> None:
    found = judged(tmp_path, "gates: {beats_control: true}\n", "x" * 20, "x" * 8 + "-" * 12)
    assert [gate.verdict for gate in found.gates] == ["PASS"]
    assert found.notes == ()


def test_each_gate_has_the_key_of_its_threshold(tmp_path: Path) -> None:
    sections = (
        "gates: {exact: 0.9, behaviours: {refuse: 0.8}, retention: 0.95, beats_control: true, quantization_drop: 0.5,\n"
        "        kl_mean: 0.05, top1_agreement: 0.9}\n"
        "target: {file_mb: 3, memory_mb: 60, ttft_ms: 50, decode_tokens_per_s: 200}\n"
    )
    found = judged(tmp_path, sections, "x" * 100, "x" * 50 + "-" * 50)
    assert [gate.key for gate in found.gates] == [
        "gates.exact", "gates.behaviours.refuse", "gates.retention", "gates.beats_control", "gates.quantization_drop",
        "gates.kl_mean", "gates.top1_agreement", "target.file_mb", "target.memory_mb", "target.ttft_ms",
        "target.decode_tokens_per_s",
    ]  # fmt: skip
    assert len({gate.name for gate in found.gates}) == len(found.gates)


def test_a_gate_with_nothing_to_judge_does_not_pass(tmp_path: Path) -> None:
    sections = (
        "gates: {exact: 0.9, behaviours: {refuse: 0.8}, retention: 0.95, beats_control: true, quantization_drop: 0.5,\n"
        "        kl_mean: 0.05, top1_agreement: 0.9}\n"
    )
    found = judged(tmp_path, sections, "", "", fidelity=False)
    assert found.verdict == "INCONCLUSIVE" and len(found.gates) == 7
    assert all(gate.verdict == "INCONCLUSIVE" and gate.detail.startswith("Not judged: ") for gate in found.gates)


@pytest.mark.parametrize(
    ("kl", "lost", "says"),
    [
        (
            FidelityDifference(kl=0.01, low=0.004, high=0.02),
            0,
            "Training moved the student away from its teacher by 0.01",
        ),
        (FidelityDifference(kl=0.01, low=-0.002, high=0.02), 3, ""),  # neither is shown
        (FidelityDifference(kl=-0.01, low=-0.02, high=-0.001), 8, "Training cost the student 8 right answers. Lower"),
    ],
)
def test_a_training_that_did_harm_is_said_to_only_where_it_is_shown(
    kl: FidelityDifference, lost: int, says: str
) -> None:
    found = metrics()
    paired = found.paired.model_copy(update={"student_vs_start_kl": kl, "student_vs_start": pair(lost, 0, 430)})
    sentence = found.model_copy(update={"paired": paired}).harm(1e-3)
    assert sentence.startswith(says) if says else not sentence


def test_nothing_right_is_said_and_no_gate_passes_with_it(tmp_path: Path) -> None:
    found = metrics()
    none = Rate.of([False] * 430, None, 0.9)
    models = {name: model.model_copy(update={"exact": none}) for name, model in found.models.present()}
    paired = found.paired.model_copy(update={"gguf_vs_student": pair(0, 0, 430)})
    update = {"models": found.models.model_copy(update=models), "paired": paired}
    (tmp_path / "recipe.yaml").write_text(RECIPE + "gates: {quantization_drop: 0.02}\n")
    (tmp_path / "evaluate").mkdir()
    found.model_copy(update=update).write(tmp_path / "evaluate")
    verdict = gated(tmp_path)
    (gate,) = verdict.gates
    assert gate.verdict == "INCONCLUSIVE"
    assert gate.detail == "Not judged: no test row was right before quantization."
    assert any(note.startswith("The teacher has 0 of 430 test rows right, so there is") for note in verdict.notes)


def test_leaked_rows_are_in_a_note(tmp_path: Path) -> None:
    leaked = LeakedRows(rows=2, of=430, row_ids=("a" * 12,))
    found = judged(tmp_path, "gates: {beats_control: true}\n", "x", "x", leaked)
    assert found.notes == (
        "2 of 430 test rows were also trained on or used for validation, and are left out of every score.",
    )


def test_notes_count_wrong_answers_by_kind_and_rows_that_repeat(tmp_path: Path) -> None:
    whole = metrics()
    wrong = whole.models.gguf.model_copy(update={"errors": {"no_call": 2, "wrong_value": 31}})
    teacher = whole.models.teacher.model_copy(update={"errors": {"unwanted_call": 1}})
    leaked = LeakedRows(rows=0, of=430, row_ids=(), repeated=1)
    models = whole.models.model_copy(update={"gguf": wrong, "teacher": teacher})
    paired = whole.paired.model_copy(update={"student_vs_control": None})
    update = {"models": models, "leaked": leaked, "paired": paired}
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "evaluate").mkdir()
    whole.model_copy(update=update).write(tmp_path / "evaluate")
    assert gated(tmp_path).notes == (
        "1 of 430 test row repeats an earlier one, and is not counted again.",
        "33 wrong answers of the shipped file: wrong value 31, no call 2.",
        "1 wrong answer of the teacher: call where none was wanted 1.",
    )
