"""A finished run's step directories, written by hand in the shapes that the stages leave: for what reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures import TOOLS, light_rows, make_tokenizer, write_jsonl
from potstill.components.chat.format import ChatFormat
from potstill.core.artifacts.answers import answers_file, write_answers
from potstill.core.artifacts.calibration import BrierDifference, Calibration
from potstill.core.artifacts.exported import (
    Exported,
    LogProbParity,
    Parity,
    StopTokenParity,
    TemplateParity,
    TokenizationParity,
)
from potstill.core.artifacts.generated import Generated, SplitCounts, TeacherIdentity, VerdictCounts
from potstill.core.artifacts.metrics import (
    Fidelity,
    FidelityDifference,
    LeakedRows,
    Metrics,
    ModelMetrics,
    Models,
    Paired,
    PairedCounts,
    Rate,
    Regression,
)
from potstill.core.artifacts.speed import Machine, MeasuredSpeed, ServerLoad, timings
from potstill.core.artifacts.step import StepRecord
from potstill.core.artifacts.training import StepValues, Trained, TrainSummary, ValidationPoint
from potstill.core.artifacts.verdict import Verdict
from potstill.core.artifacts.worth import RungName, Worth
from potstill.core.recipe import Recipe, load_recipe
from potstill.core.records import read_rows
from potstill.stages.evaluate.calibration import Confidences, calibration
from potstill.stages.evaluate.worth import Ladder, RungScores
from potstill.stages.package import example
from potstill.stages.package.example import Example
from potstill.stages.package.stage import PackageInputs

RECIPE = """
name: lights
seed: 7
data: {prompts: data/train.jsonl, validation: data/validation.jsonl, test: data/test.jsonl, tools: data/tools.json}
chat: {context: 512}
teacher: {model: teacher}
student: {init: teacher_layers, layers: 2}
gates: {exact: 0.9, retention: 0.95, beats_control: true, kl_mean: 0.05}
target: {device: this machine, file_mb: 3, memory_mb: 60, ttft_ms: 50, decode_tokens_per_s: 200}
package: {system: You switch the lights.}
licenses: {data: apache-2.0, teacher: apache-2.0, package: apache-2.0}
"""
COUNTS = {  # right of n, by model and behaviour
    "teacher": {"tool_call": 268, "multi_call": 58, "clarify": 39, "refuse": 38, "answer": 19},
    "gguf": {"tool_call": 262, "multi_call": 52, "clarify": 38, "refuse": 37, "answer": 16},
    "start": {"tool_call": 201, "multi_call": 17, "clarify": 30, "refuse": 31, "answer": 5},
    "student": {"tool_call": 263, "multi_call": 53, "clarify": 38, "refuse": 37, "answer": 17},
    "control": {"tool_call": 246, "multi_call": 41, "clarify": 34, "refuse": 36, "answer": 12},
}
N = {"tool_call": 270, "multi_call": 60, "clarify": 40, "refuse": 40, "answer": 20}
FIDELITY = {
    "gguf": (0.0311, 0.412, 0.9831),
    "start": (0.2411, 2.2, 0.9021),
    "student": (0.0294, 0.389, 0.9838),
    "control": (0.1475, 1.92, 0.9412),
}
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def _model(name: str) -> ModelMetrics:
    def of(k: int, n: int) -> Rate | None:
        return Rate.of([i < k for i in range(n)], None, 0.9)

    kl = FIDELITY.get(name)
    return ModelMetrics(
        params={"teacher": 4_919_040}.get(name, 1_602_048),
        bytes={"teacher": 9_847_112, "gguf": 1_911_456}.get(name, 6_412_800),
        format={"teacher": "BF16", "gguf": "Q8_0"}.get(name, "F32"),
        exact=of(sum(COUNTS[name].values()), sum(N.values())),
        behaviours={b: rate for b, n in N.items() if (rate := of(COUNTS[name][b], n))},
        schema_valid=of(sum(COUNTS[name].values()) + 5, sum(N.values())),
        fidelity=kl
        and Fidelity(
            kl_mean=kl[0],
            kl_p99=kl[1],
            top1_agreement=kl[2],
            kl_low=0.9 * kl[0],
            kl_high=1.15 * kl[0],
            top1_low=kl[2] - 0.004,
            top1_high=kl[2] + 0.004,
            tokens=1204,
            rows=300,
        ),
    )


def _regressions() -> list[Regression]:
    lost = [
        Regression(
            row_id=f"{i:012x}",
            behaviour="multi_call" if i % 2 else "tool_call",
            prompt=f"kitchen lights off and a timer for {i} minutes pls",
            teacher='<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "state": "off"}}\n'
            f'</tool_call>\n<tool_call>\n{{"name": "set_timer", "arguments": {{"minutes": {i}}}}}\n</tool_call>',
            student='<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "state": "off"}}\n'
            "</tool_call>",
            expected=f'set_light(room="kitchen", state="off")\nset_timer(minutes={i})',
        )
        for i in range(1, 10)
    ]
    hostile = {"row_id": "e" * 12, "prompt": EVIL, "student": EVIL + "x" * 300}
    return [*lost[:2], lost[0].model_copy(update=hostile), *lost[2:]]


def pair(lost: int, gained: int, n: int, neither: int = 4, confidence: float = 0.9) -> PairedCounts:
    """Two models that differ on so many items, of which `neither` got some others right."""
    both = n - lost - gained - neither
    first = [False] * lost + [True] * (gained + both) + [False] * neither
    second = [True] * lost + [False] * gained + [True] * both + [False] * neither
    found = PairedCounts.of(first, second, None, confidence)
    assert found is not None
    return found


def worth() -> Worth:
    """The ladder of the models above, with a rung that never saw the teacher."""
    right: dict[RungName, int] = {"start": 284, "labels": 290, "text": 369, "recipe": 408}
    rungs = {rung: RungScores([[float(i < k) for i in range(430)]], 40, 9.5) for rung, k in right.items()}
    return Ladder("exact", [1] * 430, [None] * 430, 0.9).worth(rungs, 422 / 430)


def calibrations() -> Iterator[Calibration]:
    """Of the models that decode in transformers, and of the rung that never saw the teacher."""
    right = {name: sum(COUNTS[name].values()) for name in ("teacher", "start", "student", "control")} | {"labels": 290}
    for name, k in right.items():
        sure = [0.98] * k + [0.7] * (430 - k)
        yield calibration(name, Confidences(sure, [i < k for i in range(430)], [None] * 430), 0.9)


def metrics() -> Metrics:
    """What the evaluate step measures."""
    return Metrics(
        confidence=0.9,
        models=Models(
            teacher=_model("teacher"),
            start=_model("start"),
            student=_model("student"),
            control=_model("control"),
            gguf=_model("gguf"),
        ),
        paired=Paired(
            gguf_vs_teacher=pair(21, 4, 430),
            student_vs_control=pair(9, 48, 430),
            gguf_vs_student=pair(4, 1, 430),
            student_vs_control_kl=FidelityDifference(kl=-0.1181, low=-0.141, high=-0.0982),
            student_vs_control_brier=BrierDifference(brier=-0.0512, low=-0.0724, high=-0.0301),
        ),
        worth=worth(),
        calibration=tuple(calibrations()),
        regressions=tuple(_regressions()),
        leaked=LeakedRows(rows=0, of=430, row_ids=()),
    )


def _load(factor: float) -> ServerLoad:
    ttft, speed = 11.3 * factor, 1184 / factor
    slow = {"ttft_ms_p95": 1.6 * ttft, "decode_tokens_per_s_p5": 0.8 * speed}
    return ServerLoad(load_s=0.081, ttft_ms=ttft, decode_tokens_per_s=speed, **slow)


def speed(**changes: Any) -> MeasuredSpeed:
    """What the speed step measures."""
    machine = Machine(
        cpu="Example CPU", cores=4, system="Linux x86_64", runtime="llama.cpp of xllamacpp 2026.10", threads=2,
        load_before=0.1, load_after=0.3, load_others=0.2,
    )  # fmt: skip
    loads = tuple(_load(factor) for factor in (1 / 1.02, 1.0, 1.02))
    whole = MeasuredSpeed(
        model_sha256="5" * 64,
        machine=machine,
        prompt_tokens=(120, 140, 160),
        new_tokens=32,
        context=512,
        requests=120,
        confidence=0.9,
        **timings(loads, 0.9),
        peak_rss_mb=57.4,
        loads=loads,
    )
    return whole.model_copy(update=changes)


def _gate(key: str, name: str, verdict: str, value: float, threshold: float, unit: str, **more: Any) -> dict[str, Any]:
    detail = f"Measured {value:g} {unit}; threshold {threshold:g}."
    gate = {"key": key, "name": name, "verdict": verdict, "value": value, "low": None, "high": None}
    return gate | {"threshold": threshold, "unit": unit, "detail": detail, "p_value": None} | more


def verdict(kind: str = "INCONCLUSIVE") -> Verdict:
    """What the gate step decides."""
    undecided = "The student is right on 405 and the teacher on 422 of 430 items: 96.0 % retained "
    undecided += (
        "(bounds 94.2 % to 97.4 %); minimum 95.0 %. About 870 items would decide it if the rates stay as they are."
    )
    gates = [
        _gate("gates.exact", "exact match", "PASS", 405 / 430, 0.9, "rate", low=0.921, high=0.957),
        _gate("gates.retention", "retention of teacher", "INCONCLUSIVE", 0.9597, 0.95, "ratio", low=0.942, high=0.974,
              detail=undecided),
        _gate("gates.beats_control", "better than control", "PASS", 39 / 430, 0.0, "rate", low=0.062, high=0.121),
        _gate("gates.kl_mean", "mean KL", "PASS", 0.0311, 0.05, "nats", low=0.028, high=0.0358),
        _gate("target.file_mb", "file size", "PASS", 1.911456, 3.0, "MB"),
        _gate("target.memory_mb", "peak memory", "PASS", 57.4, 60.0, "MB"),
        _gate("target.ttft_ms", "time to first token", "PASS", 11.3, 50.0, "ms", low=10.6, high=12.2),
        _gate("target.decode_tokens_per_s", "decode speed", "PASS", 1184.0, 200.0, "tokens/s", low=1113.0, high=1278.7),
    ]  # fmt: skip
    if kind == "PASS":
        gates[1] |= {"verdict": "PASS", "low": 0.952, "high": 0.974}
    if kind == "FAIL":
        gates[1] |= {"verdict": "FAIL", "high": 0.948}
        gates[5] |= {"verdict": "FAIL", "value": 71.2, "detail": "Measured 71.2 MB; maximum 60 MB."}
    return Verdict.model_validate({"verdict": kind, "confidence": 0.9, "gates": gates, "notes": ()})


def _write_log(path: Path, floor: float, divergence: bool) -> None:
    lines = []
    for step in range(240):
        fall = math.exp(-step / 45)
        noise = 0.12 * math.sin(step * 12.9898) * (0.3 + fall)
        cross_entropy = max(0.01, floor + 5.2 * fall + noise * 0.4)
        line = {
            "step": step,
            "loss": cross_entropy * 0.8,
            "divergence": max(0.005, 3.1 * fall + floor / 3 + noise * 0.2) if divergence else None,
            "cross_entropy": cross_entropy,
            "grad_norm": 1.0,
            "learning_rate": 1e-3,
            "tokens": 900,
            "layers": 2,
            "tokens_per_s": 9000.0,
            "mfu": 0.1,
        }
        lines.append(line)
    write_jsonl(path, lines)


def _validation(floor: float, divergence: bool) -> tuple[ValidationPoint, ...]:
    return tuple(
        ValidationPoint(
            step=step,
            loss=floor + 5.2 * math.exp(-step / 45),
            divergence=divergence * (3.1 * math.exp(-step / 45) + floor / 2.4),
            cross_entropy=floor * 1.25 + 5.2 * math.exp(-step / 45),
        )
        for step in range(0, 241, 24)
    )


def _write_gguf(path: Path) -> None:
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_add_bos_token(False)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_exported(folder: Path, name: str, quantization: str = "Q8_0") -> None:
    """A GGUF of one tensor, and exported.json."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    _write_gguf(file)
    Exported(
        file=name,
        quantization=quantization,
        bytes=file.stat().st_size,
        bytes_f16=3_700_000,
        bits_per_weight=8.5,
        parameters=1_602_048,
        tensor_types={"Q8_0": 14, "F32": 5},
        notes=(),
        parity=Parity(
            tokenization=TokenizationParity(texts=28, identical=28),
            template=TemplateParity(rows=8, identical=8),
            stop_tokens=StopTokenParity(tokens=1, identical=1),
            log_probs=LogProbParity(rows=8, tokens=127, max_difference=0.021, argmax_agreement=1.0, near_ties=0),
            tolerance=0.05,
        ),
    ).write(folder)


def finished_run(folder: Path, recipe: str = RECIPE, kind: str = "INCONCLUSIVE") -> tuple[Recipe, dict[str, Path]]:
    """The recipe and the directories of a run that has been judged, with its data beside the recipe."""
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "tools.json").write_text(json.dumps(TOOLS))
    for name, polite in (("train", ["", "please "]), ("validation", ["now "]), ("test", ["kindly "])):
        write_jsonl(data / f"{name}.jsonl", light_rows(polite))
    (folder / "teacher").mkdir()
    (folder / "lights.yaml").write_text(recipe)
    loaded = load_recipe(folder / "lights.yaml")
    names = ("check", "generate", "train", "export", "speed", "evaluate", "gate")
    steps = {name: folder / "runs" / f"{name}-{i:012d}" for i, name in enumerate(names)}
    for i, (name, step) in enumerate(steps.items()):
        step.mkdir(parents=True)
        StepRecord(
            stage=name,
            stage_version=1,
            fingerprint=f"{i:x}" * 64,
            inputs={},
            reads={},
            versions={"python": "3.11.2", "potstill": "0.1.0", "torch": "2.13.0"},
            git_commit="c0ffee" * 6 + "c0ff",
            argv=[str(folder / "bin" / "potstill"), "run"],
            host={"system": "Linux", "machine": "x86_64", "cpus": 2},
            finished="2026-11-23T02:00:00+00:00",
            seconds=12.5 * (i + 1),
        ).write(step)
    _fill(steps, loaded, kind)
    return loaded, steps


def summary(floor: float, divergence: bool) -> TrainSummary:
    """What a training did whose loss fell to `floor`."""
    return TrainSummary(
        steps=240,
        kept=240,
        learning_rate=1e-3,
        precision="fp32",
        tokens=216_000,
        supervised_tokens=61_000,
        seconds=81.2,
        resumed_at=0,
        final=StepValues(loss=0.06, grad_norm=1.0, learning_rate=1e-4, tokens=900),
        validation=_validation(floor, divergence),
        params=1_602_048,
    )


def _fill(steps: dict[str, Path], recipe: Recipe, kind: str) -> None:
    identity = TeacherIdentity(kind="local", model="teacher", weights_sha256="ab" * 32)
    verified = {"gold": VerdictCounts(passed=20, failed=1, unknown=2)}
    lost = {"length": 1, "gold": 1}
    split = SplitCounts(prompts=24, kept=22, rejected=lost, completion_tokens=801, verified=verified)
    Generated(teacher=identity, splits={"train": split}).write(steps["generate"])
    write_jsonl(steps["generate"] / "train.jsonl", [])
    make_tokenizer(steps["train"] / "student")
    _write_log(steps["train"] / "student.log.jsonl", 0.05, divergence=True)
    _write_log(steps["train"] / "control.log.jsonl", 0.11, divergence=False)
    student, control = summary(0.05, divergence=True), summary(0.11, divergence=False)
    Trained(student=student, control=control, vocabulary=400).write(steps["train"])
    quantization = recipe.export.quantization
    write_exported(steps["export"], f"{recipe.name}-{quantization}.gguf", quantization)
    speed().write(steps["speed"])
    metrics().write(steps["evaluate"])
    write_answers(steps["evaluate"] / answers_file("gguf"), [])
    verdict(kind).write(steps["gate"])


@contextmanager
def made_up_example() -> Iterator[None]:
    """Packages are made without llama.cpp, since the file of this run has no model in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "find_example", _example)
        yield


def _example(inputs: PackageInputs, chat: ChatFormat, gguf: Path) -> Example:
    assert gguf.is_file()
    row = read_rows(inputs.data["test"].path, tools=inputs.data["tools"].path)[0]
    request = {"messages": [message.for_api() for message in row.messages], "tools": list(row.tools)}
    return Example(row, request, {"role": "assistant", "content": "It's on."}, right=True)
