"""The model card, README.md: front matter for model hubs, and a page on what the model kept and what it did not."""

from __future__ import annotations

from typing import Any

import yaml

from potstill.core.artifacts.manifest import DataFile, Manifest
from potstill.core.artifacts.metrics import Metrics, ModelMetrics, Rate
from potstill.core.artifacts.speed import SpeedTiming
from potstill.core.artifacts.worth import Worth
from potstill.core.format import format_interval, format_level, format_number, format_percent, format_size
from potstill.stages.package import markdown
from potstill.stages.package.calibration import calibration_section
from potstill.stages.package.example import Example
from potstill.stages.package.stage import PackageInputs
from potstill.stages.package.usage import usage_section

__all__ = ["write_card"]

_VERDICTS = {
    "PASS": "This file passes all gates of its recipe in llama.cpp.",
    "FAIL": "This file fails a gate of its recipe. The gates below say which.",
    "INCONCLUSIVE": "It is not decided whether this file passes all gates of its recipe. The gates below say why.",
}
_SHORT = 12  # characters of a hash


def write_card(inputs: PackageInputs, manifest: Manifest, example: Example | None) -> str:
    """Text of the card.

    Args:
        inputs: the stage's inputs.
        manifest: the package's manifest; of its files, only the GGUF is needed.
        example: a request and its answer; None for a model that continues text.
    """
    front = yaml.safe_dump(_front_matter(inputs, manifest), sort_keys=False, allow_unicode=True, width=100)
    sections = [
        _opening(inputs, manifest),
        markdown.gates_section(manifest.verdict),
        _quality(manifest.metrics),
        _worth(manifest.metrics.worth),
        calibration_section(manifest.metrics),
        _notes(manifest),
        _runtime(manifest),
        usage_section(inputs, example),
        _provenance(inputs, manifest),
        _limits(inputs, manifest),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(s for s in sections if s) + "\n"


# ---- front matter ----


def _front_matter(inputs: PackageInputs, manifest: Manifest) -> dict[str, Any]:
    """Keys of a Hugging Face model card (its documentation, "Model cards")."""
    shipped = manifest.metrics.models.gguf
    tags = ["gguf", "llama.cpp", "distillation", "potstill"]
    if {"tool_call", "multi_call"} & shipped.behaviours.keys():
        tags.append("tool-calling")
    front: dict[str, Any] = {"base_model": inputs.base_model}
    if inputs.student_init != "scratch":
        front["base_model_relation"] = "finetune"
    front |= {
        "license": inputs.licenses.model,
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    metrics = _hub_metrics(shipped)
    if metrics:
        task = {"type": "text-generation"}
        dataset = {"name": f"{inputs.name} test rows", "type": manifest.data.files["test"].file}
        results = [{"task": task, "dataset": dataset, "metrics": metrics}]
        front["model-index"] = [{"name": inputs.name, "results": results}]
    return front


def _hub_metrics(model: ModelMetrics) -> list[dict[str, str | float]]:
    rates = (
        ("exact_match", "exact match", model.exact),
        ("schema_valid", "calls valid by their schema", model.schema_valid),
    )
    out: list[dict[str, str | float]] = [
        {"type": kind, "name": name, "value": round(rate.rate, 4)} for kind, name, rate in rates if rate
    ]
    if model.fidelity:
        kl, top1 = round(model.fidelity.kl_mean, 4), round(model.fidelity.top1_agreement, 4)
        out.append({"type": "kl_mean", "name": "KL from the teacher, nats", "value": kl})
        out.append({"type": "top1_agreement", "name": "top-1 agreement with the teacher", "value": top1})
    return out


# ---- body ----


def _opening(inputs: PackageInputs, manifest: Manifest) -> str:
    verdict, student = manifest.verdict, manifest.student
    gguf = inputs.gguf.path.name
    says = _VERDICTS[verdict.verdict] if verdict.gates else "Its recipe sets no gates, so nothing was judged."
    return (
        f"# {manifest.name}\n\n**Verdict: {verdict.verdict}.** {says}\n\n"
        f"A small model distilled from {markdown.code(manifest.teacher.name)} with potstill {manifest.potstill}: "
        f"{student.params:,} parameters, {format_size(manifest.files[gguf].bytes)} as {student.quantization} in "
        f"`{gguf}`."
    )


def _quality(metrics: Metrics) -> str:
    """What the file kept of the teacher: right answers by behaviour, and fidelity."""
    teacher, shipped = metrics.models.teacher, metrics.models.gguf
    parts = ["## Quality"]
    if shipped.exact:
        rows = [
            (name, markdown.rate(teacher.behaviours.get(name)), markdown.rate(rate))
            for name, rate in shipped.behaviours.items()
        ]
        rows.append(("all", markdown.rate(teacher.exact), markdown.rate(shipped.exact)))
        level = format_level(metrics.confidence)
        note = f"Share of right answers among the test rows with that behaviour, with {level} intervals."
        table = markdown.table(("behaviour", "teacher right", "this file right"), rows)
        parts += [table, f"{note} {metrics.leaked.sentence}".rstrip()]
    else:
        parts.append(
            "The test rows do not say what is right, so no answers were counted. "
            "The file was compared with the teacher's distributions."
        )
    fidelity = shipped.fidelity
    if fidelity:
        least = "at least " if fidelity.lower_bound else ""
        parts.append(
            f"On {fidelity.tokens:,} tokens of the teacher's own answers, the KL divergence from the teacher to this "
            f"file is {least}{fidelity.kl_mean:.4g} nats on average and {fidelity.kl_p99:.4g} at the 99th percentile. "
            f"Both have the same likeliest token at {format_percent(fidelity.top1_agreement)} of the tokens."
        )
    return "\n\n".join(parts)


def _worth(worth: Worth | None) -> str:
    """What the teacher was worth: the ladder."""
    if worth is None:
        return ""
    table = markdown.table(worth.columns, worth.cells())
    return f"## What the teacher was worth\n\n{worth.lead} {worth.interval_sentence}\n\n{table}\n\n{worth.sentence}"


def _notes(manifest: Manifest) -> str:
    """The notes of the verdict: the effect of training, and the wrong answers."""
    said = [note for note in manifest.verdict.notes if note != manifest.metrics.leaked.sentence]
    return "## Notes\n\n" + "\n".join(f"- {markdown.escaped(note)}" for note in said) if said else ""


def _runtime(manifest: Manifest) -> str:
    """Speed and memory, on the device where they were measured there."""
    run, size = manifest.verdict.device or manifest.speed, manifest.metrics.models.gguf.bytes
    rows = [
        ("file", format_size(size) if size else "-"),
        ("peak memory", f"{run.peak_rss_mb:.0f} MB"),
        ("load", f"{run.load_s:.2f} s"),
        ("time to first token", _timing(run.ttft_ms, "ms")),
        ("decode speed", _timing(run.decode_tokens_per_s, "tokens/s")),
    ]
    return f"## Speed and memory\n\n{markdown.table(('measure', 'value'), rows)}\n\n{markdown.escaped(run.method)}"


def _timing(timing: SpeedTiming, unit: str) -> str:
    median, tail = format_number(timing.median, 4), format_number(timing.tail, 4)
    interval = format_interval(timing.tail_low, timing.tail_high)
    return f"{median} {unit} ({format_interval(timing.low, timing.high)}); slowest 5 %: {tail} ({interval})"


_OBJECTIVES = {
    "forward_kl": "forward KL", "reverse_kl": "reverse KL", "jsd": "generalized Jensen-Shannon divergence",
    "skew_kl": "skew KL", "skew_reverse_kl": "skew reverse KL", "total_variation": "total variation",
    "contrastive": "skew KL on the teacher's text, skew reverse KL on the student's own",
}  # fmt: skip


def _provenance(inputs: PackageInputs, manifest: Manifest) -> str:
    teacher, identity = manifest.teacher, manifest.teacher.identity
    model = f"- Teacher: {markdown.code(teacher.name)}, licence {markdown.escaped(teacher.license)}"
    if identity and identity.revision:
        model += f", revision `{identity.revision[:_SHORT]}`"
    if identity and identity.weights_sha256:
        model += f", SHA-256 of its weights `{identity.weights_sha256[:_SHORT]}`"
    lines = [f"{model}."]
    if teacher.finetuned_on:
        lines.append(f"- The teacher was fine-tuned first, on {_data_file(teacher.finetuned_on)}.")
    lines += [f"- Data, {name}: {_data_file(entry)}." for name, entry in manifest.data.files.items()]
    lines.append(f"- Licence of the data: {markdown.escaped(manifest.data.license)}.")
    answers = manifest.answers.get("train")
    if answers:
        author = "in the data" if answers.own_answers else "of the teacher"
        lines.append(f"- Trained on {answers.kept:,} answers {author} to {answers.prompts:,} prompts.")
    how = "the teacher's text alone"
    if inputs.objective != "sft":
        how = f"the teacher's distributions ({_OBJECTIVES.get(inputs.objective, inputs.objective)})"
    if manifest.finished:
        lines.append(f"- {manifest.finished.sentence}")
    lines.append(f"- Objective: {how}. Recipe: SHA-256 `{manifest.recipe_sha256[:_SHORT]}`.")
    return "## Provenance\n\n" + "\n".join(lines) + "\n\nThe full record is in `manifest.json`."


def _data_file(entry: DataFile) -> str:
    rows = f", {entry.rows:,} rows" if entry.rows is not None else ""
    return f"{markdown.code(entry.file)}{rows}, SHA-256 `{entry.sha256[:_SHORT]}`"


def _limits(inputs: PackageInputs, manifest: Manifest) -> str:
    exact: Rate | None = manifest.metrics.models.gguf.exact
    judged = f"{exact.n:,} test rows" if exact else "the test rows"
    limits = [
        f"- It was judged on {judged} of one workload. Nothing is known about other prompts.",
        f"- Prompt and answer together must fit into {inputs.chat.context} tokens.",
        "- Speed and memory were measured on one machine, and differ on others.",
    ]
    limits += [f"- {markdown.escaped(note[0].upper() + note[1:])}." for note in manifest.notes]
    if manifest.verdict.verdict != "PASS":
        limits.append("- Not all of its gates have passed: read them before you ship it.")
    licenses = {
        "the teacher": inputs.licenses.teacher,
        "the data": inputs.licenses.data,
        "this file": inputs.licenses.model,
    }
    unknown = [what for what, license in licenses.items() if license == "unknown"]
    if unknown:
        limits.append(
            f"- The recipe names no licence for {', '.join(unknown)}. Find out before you distribute the file."
        )
    return "## Limits\n\n" + "\n".join(limits) + markdown.duties(inputs.licenses.verdict.obligations)
