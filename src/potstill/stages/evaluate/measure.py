"""All measurements of answers, model by model: how many are right, and fidelity to the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.models.safetensors import safetensors_format, safetensors_parameters
from potstill.components.runtimes import Runtime
from potstill.components.runtimes.journal import Journal
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.components.runtimes.spending import Account
from potstill.core.artifacts.answers import JudgedAnswer
from potstill.core.artifacts.metrics import Metrics, ModelMetrics, Models, Paired, PairedCounts
from potstill.core.files import read_json
from potstill.core.hashing import HashedPath
from potstill.stages.evaluate.answers import TestBench
from potstill.stages.evaluate.calibration import answers_brier_difference, answers_calibration
from potstill.stages.evaluate.ladder import measure_worth
from potstill.stages.evaluate.models import local_runtime, teacher_runtime
from potstill.stages.evaluate.rows import read_test_rows
from potstill.stages.evaluate.scores import NO_SIZE, ModelSize, model_metrics, paired_counts, readings_of, regressions
from potstill.stages.evaluate.stage import EvaluateInputs
from potstill.stages.evaluate.teacher_text import TeacherTexts, teacher_texts

if TYPE_CHECKING:
    from potstill.components.runtimes.gguf import GGUFServer

__all__ = ["measure"]

_SLOTS = 4
Measured = tuple[list[JudgedAnswer], ModelMetrics]


def measure(inputs: EvaluateInputs, out: Path) -> Metrics:
    """Answer the test rows with every model, and measure; answers are written into `out` as they are finished."""
    rows, leaked = read_test_rows(inputs.rows)
    bench = TestBench(rows, inputs.sampling, inputs.tool_format, out)
    teacher_answers, teacher, texts = _measure_teacher(inputs, bench)
    start_answers, start = (
        _measure_checkpoint(inputs, bench, texts, "start", inputs.start) if inputs.start else (None, None)
    )
    student_answers, student = _measure_checkpoint(inputs, bench, texts, "student", inputs.student)
    control_answers, control = (
        _measure_checkpoint(inputs, bench, texts, "control", inputs.control) if inputs.control else (None, None)
    )
    rung_answers = {
        name: bench.answers(name, local_runtime(inputs, model.path)) for name, model in inputs.rungs.items()
    }
    own = {"start": start_answers, "text": control_answers, inputs.student_rung: student_answers}
    by_rung = {name: found for name, found in own.items() if found} | rung_answers
    said: dict[str, list[JudgedAnswer] | None] = {
        "teacher": teacher_answers,
        "start": start_answers,
        "student": student_answers,
        "control": control_answers,
    }
    chat = inputs.chat.load(inputs.student.path)
    gguf_answers, gguf = _measure_gguf(inputs, bench, texts, chat, student.params)
    level = inputs.confidence
    return Metrics(
        confidence=level,
        models=Models(teacher=teacher, start=start, student=student, control=control, gguf=gguf),
        paired=_paired(said | {"gguf": gguf_answers}, texts, level),
        worth=measure_worth(inputs, bench.rows, teacher_answers, by_rung, texts.entropy),
        calibration=answers_calibration({**said, **rung_answers}, level),
        regressions=regressions(teacher_answers, gguf_answers),
        leaked=leaked,
    )


def _paired(said: Mapping[str, Sequence[JudgedAnswer] | None], texts: TeacherTexts, level: float) -> Paired:
    """Comparisons of two models each, from the answers of all by name."""

    def counts(first: str, second: str) -> PairedCounts | None:
        a, b = said[first], said[second]
        return paired_counts(a, b, level) if a and b else None

    return Paired(
        gguf_vs_teacher=counts("gguf", "teacher"),
        student_vs_control=counts("student", "control"),
        gguf_vs_student=counts("gguf", "student"),
        student_vs_control_kl=texts.difference("student", "control"),
        student_vs_start=counts("student", "start"),
        student_vs_start_kl=texts.difference("student", "start"),
        student_vs_control_brier=answers_brier_difference(said["student"], said["control"], level),
    )


# ---- one model each ----


def _measure_teacher(inputs: EvaluateInputs, bench: TestBench) -> tuple[list[JudgedAnswer], ModelMetrics, TeacherTexts]:
    """The teacher's answers and metrics, and its own text to compare distributions on (none from an endpoint)."""
    runtime = teacher_runtime(inputs)
    section, journal = inputs.teacher, Journal.for_step(bench.out, inputs.teacher, inputs.weights)
    if section.kind == "api":
        account = Account.of(inputs.billing, section.max_concurrency)
        journaled = JournaledRuntime(runtime, journal, account, offline=section.offline)
        journaled.announce([(bench.rows, bench.sampling)])
    else:
        journaled = JournaledRuntime(runtime, journal)
    answers = bench.answers("teacher", journaled)
    if inputs.weights is None:
        return answers, model_metrics(answers, confidence=inputs.confidence), TeacherTexts()
    metrics = model_metrics(answers, _size(inputs.weights.path), confidence=inputs.confidence)
    return answers, metrics, _comparable_texts(inputs, bench, answers, runtime)


def _comparable_texts(
    inputs: EvaluateInputs, bench: TestBench, answers: list[JudgedAnswer], runtime: Runtime
) -> TeacherTexts:
    """The teacher's texts in the student's token ids; none where the student has another tokenizer."""
    from potstill.components.runtimes.hf import HFRuntime

    assert isinstance(runtime, HFRuntime)
    if inputs.base and load_chat(inputs.base.path).tokenizer_hash != runtime.chat.tokenizer_hash:
        return TeacherTexts()
    texts = teacher_texts(
        bench.rows,
        answers,
        runtime,
        count=inputs.settings.rows,
        context=inputs.chat.context,
        seed=inputs.sampling.seed,
        confidence=inputs.confidence,
    )
    return texts.in_vocabulary(read_json(inputs.kept.path)) if inputs.kept else texts


def _measure_checkpoint(
    inputs: EvaluateInputs, bench: TestBench, texts: TeacherTexts, name: str, model: HashedPath
) -> Measured:
    """A checkpoint: the student, what it was before training, or its control."""
    runtime = local_runtime(inputs, model.path)
    answers = bench.answers(name, runtime)
    fidelity = texts.compare(runtime.log_probs_at, name)
    return answers, model_metrics(answers, _size(model.path), fidelity, confidence=inputs.confidence)


def _measure_gguf(
    inputs: EvaluateInputs, bench: TestBench, texts: TeacherTexts, chat: ChatFormat, params: int | None
) -> Measured:
    """The file that ships, through llama.cpp's chat endpoint, after its prompts of all rows have been compared."""
    from potstill.components.parity.prompts import compare_template
    from potstill.components.runtimes.gguf_runtime import GGUFRuntime

    with _server(inputs, _SLOTS) as server:
        compare_template(server, chat, bench.rows)
        runtime = GGUFRuntime(server, chat, inputs.chat.context, _SLOTS)
        answers = bench.answers("gguf", runtime)
        fidelity = texts.compare(runtime.log_probs_at, "gguf")
    size = ModelSize(params, inputs.gguf.path.stat().st_size, inputs.quantization)
    return answers, model_metrics(answers, size, fidelity, readings_of(answers), confidence=inputs.confidence)


@contextmanager
def _server(inputs: EvaluateInputs, slots: int) -> Iterator[GGUFServer]:
    """llama.cpp with the shipped file, and the recipe's context for each of its slots."""
    from potstill.components.runtimes.gguf import GGUFServer

    context = inputs.chat.context * slots
    with GGUFServer(inputs.gguf.path, context=context, parallel=slots, threads=inputs.settings.threads) as server:
        yield server


def _size(folder: Path) -> ModelSize:
    """Size of a model's safetensors files; not known without any."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        return NO_SIZE
    nbytes = sum(path.stat().st_size for path in weights)
    return ModelSize(safetensors_parameters(folder), nbytes, safetensors_format(folder))
