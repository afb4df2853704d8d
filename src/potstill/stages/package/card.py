"""The model card, README.md: front matter that model hubs read, and a page that says what was kept and what was not."""

from __future__ import annotations

from typing import Any

import yaml

from potstill.core.recipe import Recipe
from potstill.stages.package import words

__all__ = ["write_card"]

_VERDICTS = {
    "PASS": "All gates of its recipe hold for this very file, as llama.cpp runs it.",
    "FAIL": "It does not do what its recipe asks of it. The gates below say where.",
    "INCONCLUSIVE": "The test items at hand cannot tell whether it does all that its recipe asks.",
}
_SHORT = 12


def write_card(recipe: Recipe, manifest: dict[str, Any], gguf: str, has_chat: bool) -> str:
    """Text of the card.

    Args:
        recipe: the recipe.
        manifest: as `build_manifest` gives it; its `files` need only hold the GGUF.
        gguf: name of the shipped file.
        has_chat: whether messages have roles; if not, the file continues text.
    """
    front = yaml.safe_dump(_front_matter(recipe, manifest), sort_keys=False, allow_unicode=True, width=100)
    sections = [
        _opening(manifest, gguf),
        words.gates(manifest["verdict"]),
        _kept(manifest["metrics"]),
        _runtime(manifest["metrics"], manifest["files"][gguf]["bytes"]),
        _usage(recipe, gguf, has_chat),
        _origin(recipe, manifest),
        _limits(recipe, manifest),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(s for s in sections if s) + "\n"


# ---- front matter ----


def _front_matter(recipe: Recipe, manifest: dict[str, Any]) -> dict[str, Any]:
    """Keys of a Hugging Face model card (its documentation, "Model cards")."""
    tags = ["gguf", "llama.cpp", "distillation", "potstill"]
    if {"tool_call", "multi_call"} & manifest["metrics"]["models"]["gguf"]["behaviours"].keys():
        tags.append("tool-calling")
    front: dict[str, Any] = {"base_model": manifest["student"]["base_model"]}
    if recipe.student.init != "scratch":
        front["base_model_relation"] = "finetune"
    front |= {
        "license": recipe.package.license,
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    metrics = _card_metrics(manifest["metrics"]["models"]["gguf"])
    if metrics:
        task = {"type": "text-generation"}
        dataset = {"name": f"{recipe.name} test rows", "type": manifest["data"]["test"]["file"]}
        results = [{"task": task, "dataset": dataset, "metrics": metrics}]
        front["model-index"] = [{"name": recipe.name, "results": results}]
    return front


def _card_metrics(model: dict[str, Any]) -> list[dict[str, Any]]:
    out = []
    if model["exact"]:
        out.append({"type": "exact_match", "name": "exact match", "value": round(model["exact"]["rate"], 4)})
    if model["schema_valid"]:
        rate = model["schema_valid"]["rate"]
        out.append({"type": "schema_valid", "name": "calls valid by their schema", "value": round(rate, 4)})
    for name, key in (("KL from the teacher, nats", "kl_mean"), ("top-1 agreement with the teacher", "top1_agreement")):
        if model["fidelity"]:
            out.append({"type": key, "name": name, "value": round(model["fidelity"][key], 4)})
    return out


# ---- body ----


def _opening(manifest: dict[str, Any], gguf: str) -> str:
    verdict, student = manifest["verdict"], manifest["student"]
    size = words.size(manifest["files"][gguf]["bytes"])
    params = f"{student['params']:,} parameters, " if student["params"] else ""
    says = _VERDICTS[verdict["verdict"]] if verdict["gates"] else "Its recipe sets no gates, so nothing was judged."
    return (
        f"# {manifest['name']}\n\n**Verdict: {verdict['verdict']}.** {says}\n\n"
        f"A small model distilled from {words.code(manifest['teacher']['name'])} with potstill {manifest['potstill']}: "
        f"{params}{size} as {student['quantization']} in `{gguf}`."
    )


def _kept(metrics: dict[str, Any]) -> str:
    teacher, shipped = metrics["models"]["teacher"], metrics["models"]["gguf"]
    parts = ["## What was kept"]
    if shipped["exact"]:
        rows = [
            (name, words.rate(_of(teacher, name)), words.rate(_of(shipped, name)))
            for name in [*shipped["behaviours"], "all"]
        ]
        table = words.table(("behaviour", "teacher right", "this file right"), rows)
        parts += [table, "Right of all test rows of that behaviour, with Wilson's 95 % interval."]
    else:
        parts.append("The test rows have no right answers to count; what is measured is nearness to the teacher.")
    fidelity = shipped["fidelity"]
    if fidelity:
        least = "at least " if fidelity["lower_bound"] else ""
        parts.append(
            f"On {fidelity['tokens']:,} tokens of the teacher's own answers, the KL divergence from teacher to this "
            f"file is {least}{fidelity['kl_mean']:.4g} nats in the mean and {fidelity['kl_p99']:.4g} at the 99th "
            f"percentile; the likeliest token is the same {words.percent(fidelity['top1_agreement'])} of the time."
        )
    return "\n\n".join(parts)


def _of(model: dict[str, Any], behaviour: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = model["exact"] if behaviour == "all" else model["behaviours"].get(behaviour)
    return found


def _runtime(metrics: dict[str, Any], size: int) -> str:
    run = metrics["runtime"]
    ttft, speed = run["ttft_ms"], run["decode_tokens_per_s"]
    rows = [
        ("file", words.size(size)),
        ("peak memory", f"{run['peak_rss_mb']:.0f} MB"),
        ("load", f"{run['load_s']:.2f} s"),
        ("time to first token", f"{ttft['median']:.4g} ms (p95 {ttft['p95']:.4g})"),
        ("decode speed", f"{speed['median']:.4g} tokens/s ({speed['low']:.4g} to {speed['high']:.4g})"),
    ]
    return (
        "## Speed and memory\n\n" + words.table(("measure", "value"), rows) + f"\n\nMeasured in llama.cpp, alone, with "
        f"{run['threads']} threads and a context of {run['context']} tokens, over {run['requests']} requests; medians."
    )


def _usage(recipe: Recipe, gguf: str, has_chat: bool) -> str:
    temperature = f"{recipe.generate.temperature:g}"
    serve = f"llama-server -m {gguf} -c {recipe.chat.context} --temp {temperature} --port 8080"
    if has_chat:
        ask = (
            "curl http://localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
            '  -d \'{"messages": [{"role": "user", "content": "..."}]}\''
        )
        more = "The file carries the chat template it was trained with; give tools in OpenAI's shape as `tools`."
    else:
        ask = (
            "curl http://localhost:8080/completion -H 'Content-Type: application/json' \\\n"
            '  -d \'{"prompt": "...", "n_predict": ' + f"{recipe.generate.max_new_tokens}}}'"
        )
        more = "It continues text; it was not trained to hold a conversation."
    name = recipe.name.lower()
    return (
        f"## Run it\n\nWith llama.cpp:\n\n```sh\n{serve}\n{ask}\n```\n\n{more}\n\n"
        f"With Ollama:\n\n```sh\nollama create {name} -f Modelfile\nollama run {name}\n```\n\n"
        "The Modelfile says what Ollama renders otherwise, if anything."
    )


_OBJECTIVES = {
    "forward_kl": "forward KL", "reverse_kl": "reverse KL", "jsd": "generalized Jensen-Shannon divergence",
    "skew_kl": "skew KL", "skew_reverse_kl": "skew reverse KL", "total_variation": "total variation",
    "contrastive": "skew KL on its text, skew reverse KL on the student's own",
}  # fmt: skip


def _origin(recipe: Recipe, manifest: dict[str, Any]) -> str:
    teacher = manifest["teacher"]
    facts = [f"- Teacher: {words.code(teacher['name'])}, licence {words.plain(teacher['license'])}."]
    for key, label in (("revision", "revision"), ("weights_sha256", "SHA-256 of its weights")):
        if teacher.get(key):
            facts[0] = facts[0][:-1] + f", {label} `{teacher[key][:_SHORT]}`."
    if teacher["finetuned_on"]:
        facts.append(f"- The teacher itself was first trained on {_data_file(teacher['finetuned_on'])}.")
    files = {k: v for k, v in manifest["data"].items() if isinstance(v, dict)}
    facts += [f"- Data, {name}: {_data_file(entry)}." for name, entry in files.items()]
    facts.append(f"- Licence of the data: {words.plain(manifest['data']['license'])}.")
    answers = manifest["answers"].get("train")
    if answers:
        facts.append(f"- Learnt from {answers['kept']:,} answers of the teacher to {answers['prompts']:,} prompts.")
    objective = recipe.train.objective.name
    how = (
        "the teacher's text alone" if objective == "sft" else f"the teacher's distributions ({_OBJECTIVES[objective]})"
    )
    facts.append(f"- Objective: {how}. Recipe: SHA-256 `{manifest['recipe_sha256'][:_SHORT]}`.")
    return "## Where it comes from\n\n" + "\n".join(facts) + "\n\nAll of it, in full, is in `manifest.json`."


def _data_file(entry: dict[str, Any]) -> str:
    rows = f", {entry['rows']:,} rows" if "rows" in entry else ""
    return f"{words.code(entry['file'])}{rows}, SHA-256 `{entry['sha256'][:_SHORT]}`"


def _limits(recipe: Recipe, manifest: dict[str, Any]) -> str:
    exact = manifest["metrics"]["models"]["gguf"]["exact"]
    judged = f"{exact['n']:,} test rows" if exact else "the test rows"
    limits = [
        f"- It was judged on {judged} of one workload. What it does with anything else is not known.",
        f"- Prompt and answer together must fit into {recipe.chat.context} tokens.",
        "- Speed and memory are those of the machine that measured them; yours will differ.",
    ]
    if manifest["verdict"]["verdict"] != "PASS":
        limits.append("- Its gates have not all passed: see above before you ship it.")
    unknown = [
        what
        for what, license in (
            ("the teacher", recipe.teacher.license),
            ("the data", recipe.data.license),
            ("this file", recipe.package.license),
        )
        if license == "unknown"
    ]
    if unknown:
        limits.append(
            f"- The recipe names no licence for {', '.join(unknown)}. Clear that before you pass the file on."
        )
    return "## Limits\n\n" + "\n".join(limits)
