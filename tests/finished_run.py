"""A finished run's step directories, written by hand in the shapes that the stages leave: for what reads them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from fixtures import TOOLS, light_rows, make_tokenizer, write_jsonl
from potstill.core.files import write_json
from potstill.core.recipe import Recipe, load_recipe
from potstill.stages.evaluate.answers import rate

RECIPE = """
name: lights
seed: 7
data: {prompts: data/train.jsonl, validation: data/validation.jsonl, test: data/test.jsonl, tools: data/tools.json,
       license: apache-2.0}
chat: {context: 512}
teacher: {model: teacher, license: apache-2.0}
student: {init: teacher_layers, layers: 2}
gates: {exact: 0.9, retention: 0.95, beats_control: true, kl_mean: 0.05}
target: {device: a small board, file_mb: 3, memory_mb: 60, ttft_ms: 50, decode_tokens_per_s: 200}
package: {license: apache-2.0, system: You switch the lights.}
"""
COUNTS = {  # right of n, by model and behaviour
    "teacher": {"tool_call": 268, "multi_call": 58, "clarify": 39, "refuse": 38, "answer": 19},
    "gguf": {"tool_call": 262, "multi_call": 52, "clarify": 38, "refuse": 37, "answer": 16},
    "student": {"tool_call": 263, "multi_call": 53, "clarify": 38, "refuse": 37, "answer": 17},
    "control": {"tool_call": 246, "multi_call": 41, "clarify": 34, "refuse": 36, "answer": 12},
}
N = {"tool_call": 270, "multi_call": 60, "clarify": 40, "refuse": 40, "answer": 20}
FIDELITY = {
    "gguf": (0.0311, 0.412, 0.9831),
    "student": (0.0294, 0.389, 0.9838),
    "control": (0.1475, 1.92, 0.9412),
}
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def _model(name: str) -> dict[str, Any]:
    def of(k: int, n: int) -> dict[str, Any] | None:
        return rate([i < k for i in range(n)])

    kl = FIDELITY.get(name)
    return {
        "params": {"teacher": 4_919_040}.get(name, 1_602_048),
        "bytes": {"teacher": 9_847_112, "gguf": 1_911_456}.get(name, 6_412_800),
        "exact": of(sum(COUNTS[name].values()), sum(N.values())),
        "behaviours": {b: of(COUNTS[name][b], n) for b, n in N.items()},
        "schema_valid": of(sum(COUNTS[name].values()) + 5, sum(N.values())),
        "fidelity": kl
        and {
            "kl_mean": kl[0],
            "kl_p99": kl[1],
            "top1_agreement": kl[2],
            "kl_low": 0.9 * kl[0],
            "kl_high": 1.15 * kl[0],
            "top1_low": kl[2] - 0.004,
            "top1_high": kl[2] + 0.004,
            "tokens": 1204,
            "lower_bound": False,
        },
    }


def _summary(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.94 * median, "high": 1.08 * median, "p95": 1.6 * median}


def metrics() -> dict[str, Any]:
    """What the evaluate step measures."""
    regressions = [
        {
            "row_id": f"{i:012x}",
            "behaviour": "multi_call" if i % 2 else "tool_call",
            "prompt": f"kitchen lights off and a timer for {i} minutes pls",
            "teacher": '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "state": "off"}}\n'
            f'</tool_call>\n<tool_call>\n{{"name": "set_timer", "arguments": {{"minutes": {i}}}}}\n</tool_call>',
            "student": '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "state": "off"}}\n'
            "</tool_call>",
            "expected": f'set_light(room="kitchen", state="off")\nset_timer(minutes={i})',
        }
        for i in range(1, 10)
    ]
    regressions.insert(2, regressions[0] | {"row_id": "e" * 12, "prompt": EVIL, "student": EVIL + "x" * 300})
    return {
        "models": {name: _model(name) for name in ("teacher", "student", "control", "gguf")},
        "paired": {
            "gguf_vs_teacher": {"broken": 21, "fixed": 4, "n": 430},
            "student_vs_control": {"broken": 9, "fixed": 48, "n": 430},
            "gguf_vs_student": {"broken": 4, "fixed": 1, "n": 430},
        },
        "runtime": {
            "load_s": 0.081,
            "ttft_ms": _summary(11.3),
            "decode_tokens_per_s": _summary(1184.0),
            "peak_rss_mb": 57.4,
            "threads": 2,
            "context": 512,
            "requests": 30,
        },
        "regressions": regressions,
    }


def _gate(name: str, verdict: str, value: float, threshold: float, unit: str, **more: Any) -> dict[str, Any]:
    detail = f"Measured {value:g} {unit}; threshold {threshold:g}."
    gate = {"name": name, "verdict": verdict, "value": value, "low": None, "high": None, "threshold": threshold}
    return gate | {"unit": unit, "detail": detail, "p_value": None} | more


def verdict(kind: str = "INCONCLUSIVE") -> dict[str, Any]:
    """What the gate step says."""
    undecided = "Student right on 405, teacher on 422 of 430 items: 96.0 % retained (bounds 94.2 % to 97.4 %); minimum "
    undecided += "95.0 %. About 870 items would decide it if the rates stay as they are."
    gates = [
        _gate("exact", "PASS", 405 / 430, 0.9, "rate", low=0.921, high=0.957),
        _gate("retention of teacher", "INCONCLUSIVE", 0.9597, 0.95, "ratio", low=0.942, high=0.974, detail=undecided),
        _gate("distilled over control", "PASS", 39 / 430, 0.0, "rate", low=0.062, high=0.121),
        _gate("kl_mean", "PASS", 0.0311, 0.05, "nats", low=0.028, high=0.0358),
        _gate("file size", "PASS", 1.911456, 3.0, "MB"),
        _gate("peak memory", "PASS", 57.4, 60.0, "MB"),
        _gate("time to first token", "PASS", 11.3, 50.0, "ms", low=10.6, high=12.2),
        _gate("decode speed", "PASS", 1184.0, 200.0, "tokens/s", low=1113.0, high=1278.7),
    ]
    if kind == "PASS":
        gates[1] |= {"verdict": "PASS", "low": 0.952, "high": 0.974}
    if kind == "FAIL":
        gates[1] |= {"verdict": "FAIL", "high": 0.948}
        gates[5] |= {"verdict": "FAIL", "value": 71.2, "detail": "Measured 71.2 MB; maximum 60 MB."}
    return {"verdict": kind, "gates": gates}


def _write_log(path: Path, floor: float, divergence: bool) -> None:
    lines = []
    for step in range(240):
        fall = math.exp(-step / 45)
        noise = 0.12 * math.sin(step * 12.9898) * (0.3 + fall)
        cross_entropy = max(0.01, floor + 5.2 * fall + noise * 0.4)
        line = {
            "step": step,
            "loss": cross_entropy * 0.8,
            "divergence": max(0.005, 3.1 * fall + floor / 3 + noise * 0.2) if divergence else 0.0,
            "cross_entropy": cross_entropy,
            "grad_norm": 1.0,
            "learning_rate": 1e-3,
            "tokens": 900,
        }
        if step % 24 == 23:
            line["validation_divergence"] = 3.1 * fall + floor / 2.4 if divergence else 0.0
            line["validation_cross_entropy"] = floor * 1.25 + 5.2 * fall
        lines.append(line)
    write_jsonl(path, lines)


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
    names = ("check", "generate", "train", "export", "evaluate", "gate")
    steps = {name: folder / "runs" / f"{name}-{i:012d}" for i, name in enumerate(names)}
    for i, (name, step) in enumerate(steps.items()):
        step.mkdir(parents=True)
        write_json(
            step / "step.json",
            {
                "fingerprint": f"{i:x}" * 64,
                "step": name,
                "versions": {"python": "3.11.2", "potstill": "0.1.0", "torch": "2.13.0"},
                "git_commit": "c0ffee" * 6 + "c0ff",
                "argv": [str(folder / "bin" / "potstill"), "run"],
                "host": {"system": "Linux", "machine": "x86_64", "cpus": 2},
                "finished": "2026-11-23T02:00:00+00:00",
                "seconds": 12.5 * (i + 1),
            },
        )
    _fill(steps, loaded, kind)
    return loaded, steps


def _fill(steps: dict[str, Path], recipe: Recipe, kind: str) -> None:
    identity = {"kind": "local", "model": "teacher", "revision": None, "weights_sha256": "ab" * 32}
    split = {"prompts": 24, "kept": 23, "set_aside": {"length": 1}, "completion_tokens": 801}
    write_json(steps["generate"] / "summary.json", {"teacher": identity, "splits": {"train": split}})
    make_tokenizer(steps["train"] / "student")
    _write_log(steps["train"] / "student.log.jsonl", 0.05, divergence=True)
    _write_log(steps["train"] / "control.log.jsonl", 0.11, divergence=False)
    trained = {"steps": 240, "tokens": 216_000, "supervised_tokens": 61_000, "seconds": 81.2, "final": {"loss": 0.06}}
    params = {"params_student": 1_602_048, "params_teacher": 4_919_040}
    write_json(steps["train"] / "summary.json", {"student": trained, "control": trained, **params})
    _write_gguf(steps["export"] / f"{recipe.name}-{recipe.export.quantization}.gguf")
    log_probs = {"rows": 8, "tokens": 127, "max_difference": 0.021, "argmax_agreement": 1.0, "near_ties": 0}
    parity = {"tokenization": {"texts": 28, "identical": 28}, "template": {"rows": 8, "identical": 8}}
    write_json(steps["export"] / "parity.json", {**parity, "log_probs": log_probs, "tolerance": 0.05, "seconds": 3.2})
    write_json(steps["evaluate"] / "metrics.json", metrics())
    write_json(steps["gate"] / "verdict.json", verdict(kind))
