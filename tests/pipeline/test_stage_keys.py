"""For every key of the recipe: the stages that run again once it changes, by their own inputs.

A stage after these runs again too where the files that it reads come out differently.
"""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.made_steps import MadeRun
from potstill.core.recipe import ClassifierRecipe, Recipe
from recipe_keys import leaf_keys

LANGUAGE: dict[str, Any] = {
    "name": "keys",
    "data": {"prompts": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl", "tools": "tools.json"},
    "teacher": {"model": "teacher"},
    "student": {"init": "teacher_layers", "layers": 2},
}
ENDPOINT = {"kind": "api", "model": "m", "base_url": "http://localhost:1/v1"}
CHECKPOINT = {"init": "checkpoint", "model": "base"}
CLASSIFIER: dict[str, Any] = {
    "name": "keys",
    "task": "classify",
    "data": {"train": "labelled-train.jsonl", "test": "labelled-test.jsonl"},
    "teacher": {"model": "teacher", "finetune": {}},
    "student": {"layers": 2},
}


def objective(**values: Any) -> dict[str, Any]:
    return LANGUAGE | {"train": {"objective": values}}


RECIPES: dict[str, dict[str, Any]] = {
    "local": LANGUAGE,
    "tuned": LANGUAGE | {"teacher": {"model": "teacher", "finetune": {"rows": "train.jsonl"}}},
    "endpoint": LANGUAGE | {"teacher": ENDPOINT, "student": CHECKPOINT, "train": {"objective": "sft"}},
    "priced": LANGUAGE
    | {
        "teacher": ENDPOINT,
        "student": CHECKPOINT,
        "train": {"objective": "sft"},
        "prices": {"input": 1, "output": 2},
    },
    "several": LANGUAGE
    | {
        "teacher": {"teachers": [{**ENDPOINT, "model": name} for name in ("m", "n")]},
        "student": CHECKPOINT,
        "train": {"objective": "sft"},
    },
    "sampled": LANGUAGE | {"generate": {"temperature": 0.8, "samples": 2}},
    "checkpoint": LANGUAGE | {"student": CHECKPOINT},
    "scratch": LANGUAGE | {"student": {"init": "scratch", "shape": "llama:layers=1,hidden=8,ffn=16,heads=2"}},
    "stored": objective(targets={"kind": "top_k", "k": 8}),
    "jsd": objective(name="jsd"),
    "skew": objective(name="skew_kl"),
    "hidden": objective(hidden={}),
    "on-policy": objective(on_policy={}),
    "finished": LANGUAGE | {"export": {"quantization": "Q4_0", "finish": {}}},
    "classifier": CLASSIFIER,
}
ORDER = (
    "check", "finetune", "generate", "targets", "train", "worth", "export", "speed", "evaluate", "gate", "package",
    "report",
)  # fmt: skip
CASES: list[tuple[str, str, str, str]] = [
    ("local", "name", "other", "check export package report"),
    ("local", "seed", "1", "check generate train worth evaluate package"),
    ("local", "licenses", "{teacher: mit}", "check package"),
    ("local", "prices", "{input: 1, output: 2}", "package report"),
    ("local", "data.prompts", "validation.jsonl", "check generate worth evaluate package"),
    ("local", "data.validation", "test.jsonl", "check generate worth evaluate package"),
    ("local", "data.test", "train.jsonl", "check speed evaluate package"),
    ("local", "data.tools", "null", "check generate worth speed evaluate package"),
    ("local", "data.limit", "3", "check generate worth evaluate package"),
    ("tuned", "data.limit", "{validation: 3}", "check finetune generate worth evaluate package"),
    ("local", "chat.template", "plain.jinja", "check generate train worth export speed evaluate package"),
    (
        "local",
        "chat.template_kwargs",
        "{enable_thinking: false}",
        "check generate train worth export speed evaluate package",
    ),
    ("local", "chat.date", "2026-01-31", "check generate train worth export speed evaluate package"),
    ("local", "chat.reasoning", "drop", "check generate train worth export speed evaluate package"),
    ("local", "chat.tool_format", "hermes", "check evaluate package"),
    ("local", "chat.context", "100", "check generate train worth export speed evaluate package"),
    ("local", "teacher.kind", "local", ""),
    ("local", "teacher.model", "other", "check generate train worth export evaluate package"),
    ("local", "teacher.dtype", "bfloat16", "check generate train worth evaluate package"),
    ("tuned", "teacher.finetune.rows", "validation.jsonl", "check finetune evaluate package"),
    ("tuned", "teacher.finetune.epochs", "2", "check finetune package"),
    ("tuned", "teacher.finetune.batch_tokens", "99", "check finetune package"),
    ("tuned", "teacher.finetune.learning_rate", "0.1", "check finetune package"),
    ("tuned", "teacher.finetune.min_lr_ratio", "0.2", "check finetune package"),
    ("tuned", "teacher.finetune.optimizer", "muon", "check finetune package"),
    ("tuned", "teacher.finetune.lora_rank", "2", "check finetune package"),
    ("tuned", "teacher.finetune.shallow_layers", "1", "check finetune package"),
    ("tuned", "teacher.finetune.shape", "llama:layers=1,hidden=8,ffn=16,heads=2", "check finetune package"),
    ("endpoint", "teacher.model", "n", "check generate evaluate package"),
    ("endpoint", "teacher.base_url", "http://localhost:2/v1", "check generate evaluate package"),
    ("endpoint", "teacher.api_key_env", "KEY", "package"),
    ("endpoint", "teacher.max_concurrency", "2", "package"),
    ("endpoint", "teacher.offline", "true", ""),
    ("endpoint", "budget.requests", "9", "package"),
    ("endpoint", "budget.tokens", "9", "package"),
    ("endpoint", "budget.minutes", "9", "package"),
    ("priced", "budget.money", "9", "package"),
    (
        "several",
        "teacher.teachers",
        "[{model: m, base_url: 'http://localhost:1/v1'}, {model: o, base_url: 'http://localhost:1/v1'}]",
        "check generate evaluate package",
    ),
    ("several", "teacher.policy", "vote", "check generate evaluate package"),
    ("local", "generate.max_new_tokens", "9", "check generate evaluate package"),
    ("local", "generate.temperature", "0.5", "check generate evaluate package"),
    ("local", "generate.top_p", "0.5", "check generate evaluate package"),
    ("sampled", "generate.samples", "3", "check generate package"),
    ("local", "generate.batch_size", "3", "check generate evaluate package"),
    ("local", "generate.keep_truncated", "true", "check generate package"),
    ("local", "generate.verify", "[values]", "check generate package"),
    ("local", "student.layers", "3", "check train worth package"),
    ("local", "student.layer_choice", "influence", "check train worth package"),
    ("local", "student.hidden", "32", "check train worth package"),
    ("local", "student.ffn", "32", "check train worth package"),
    ("local", "student.kv_heads", "1", "check train worth package"),
    ("local", "student.tied", "false", "check train worth package"),
    ("local", "student.vocabulary", "workload", "check train worth package"),
    ("local", "student", "{init: checkpoint, model: base}", "check generate train worth export evaluate package"),
    ("checkpoint", "student.model", "other", "check generate train worth export evaluate package"),
    ("scratch", "student.shape", "llama:layers=2,hidden=8,ffn=16,heads=2", "check train worth package"),
    ("local", "train.epochs", "2", "check train worth package"),
    ("local", "train.batch_tokens", "99", "check train worth package"),
    ("local", "train.learning_rate", "0.1", "check train worth package"),
    ("local", "train.min_lr_ratio", "0.2", "check train worth package"),
    ("local", "train.optimizer", "muon", "check train worth package"),
    ("local", "train.lora_rank", "2", "check train worth package"),
    ("local", "train.control", "none", "check train package"),
    ("local", "train.objective", "reverse_kl", "check train worth package report"),
    ("local", "train.objective.temperature", "2", "check train worth package"),
    ("stored", "train.objective.temperature", "2", "check targets train worth package"),
    ("local", "train.objective.hard_label_weight", "0.5", "check train worth package"),
    ("jsd", "train.objective.beta", "0.3", "check train worth package"),
    ("skew", "train.objective.alpha", "0.3", "check train worth package"),
    ("hidden", "train.objective.hidden.balance", "2", "check train worth package"),
    ("hidden", "train.objective.hidden.distance", "mse", "check train worth package"),
    ("hidden", "train.objective.hidden.layers", "similarity", "check train worth package"),
    ("on-policy", "train.objective.on_policy.share", "0.3", "check train worth package"),
    ("on-policy", "train.objective.on_policy.loss", "sampled_reverse_kl", "check train worth package"),
    ("on-policy", "train.objective.on_policy.temperature", "2", "check train worth package"),
    ("on-policy", "train.objective.on_policy.refresh", "2", "check train worth package"),
    ("local", "train.objective.targets", "counts", "check targets train worth package report"),
    ("stored", "train.objective.targets.k", "9", "check targets train worth package"),
    ("local", "trainer.gradient_accumulation", "2", "check train worth package"),
    ("local", "trainer.warmup_ratio", "0.2", "check train worth package"),
    ("local", "trainer.weight_decay", "0.2", "check train worth package"),
    ("local", "trainer.precision", "bf16", "check train worth package"),
    ("local", "trainer.activation_checkpointing", "true", "check train worth package"),
    ("local", "trainer.kernel", "torch", "check train worth package"),
    ("local", "trainer.checkpoint_every", "7", "package"),
    ("local", "trainer.tracker", "none", "package"),
    ("tuned", "trainer.precision", "bf16", "check finetune train worth package"),
    ("local", "worth.rungs", "[text]", "check worth evaluate package report"),
    ("local", "worth.budget", "seconds", "check worth package"),
    ("local", "worth.ship", "text", "check export evaluate package report"),
    ("hidden", "worth.ship", "distributions", "check export evaluate package report"),
    ("local", "worth.seeds", "2", "check worth evaluate package"),
    ("local", "data.labelled", "validation.jsonl", "check worth evaluate package"),
    ("local", "generate.filters", "[pii]", "check generate package"),
    ("local", "data.curriculum", "tools.json", "check generate package"),
    ("on-policy", "data.unanswered", "validation.jsonl", "check train worth evaluate package"),
    ("local", "export.quantization", "Q4_0", "check export package"),
    ("local", "export.parity_tolerance", "0.1", "check export package"),
    ("finished", "export.finish.steps", "9", "check export package"),
    ("finished", "export.finish.rows", "9", "check export package"),
    ("finished", "export.finish.learning_rate", "1e-6", "check export package"),
    ("finished", "export.finish.norm_learning_rate", "1e-6", "check export package"),
    ("finished", "seed", "1", "check generate train worth export evaluate package"),
    ("local", "evaluate.rows", "400", "check evaluate package"),
    ("local", "evaluate.threads", "1", "speed package"),
    ("local", "gates.alpha", "0.1", "check evaluate gate package"),
    ("local", "gates.exact", "0.5", "check gate package"),
    ("local", "gates.behaviours", "{refuse: 0.5}", "check gate package"),
    ("local", "gates.retention", "0.5", "check gate package"),
    ("local", "gates.beats_control", "true", "check gate package"),
    ("local", "gates.quantization_drop", "0.5", "check gate package"),
    ("local", "gates.kl_mean", "0.5", "check gate package"),
    ("local", "gates.top1_agreement", "0.5", "check gate package"),
    ("local", "target.device", "pi5", "check gate package report"),
    ("local", "target.measured", "tools.json", "gate package"),
    ("local", "target.file_mb", "5", "check gate package report"),
    ("local", "target.memory_mb", "500", "check gate package report"),
    ("local", "target.ttft_ms", "5", "check gate package report"),
    ("local", "target.decode_tokens_per_s", "5", "check gate package report"),
    ("local", "package.system", "Hello", "check package"),
    ("local", "licenses", "{package: mit}", "check export package"),
    ("checkpoint", "teacher.offload", "disk", "package"),
    ("classifier", "name", "other", "check package report"),
    ("classifier", "seed", "1", "finetune train evaluate package"),
    ("classifier", "task", "classify", ""),
    ("classifier", "licenses", "{teacher: mit}", "package"),
    ("classifier", "data.train", "labelled-test.jsonl", "check finetune train evaluate package"),
    ("classifier", "data.validation", "labelled-validation.jsonl", "check finetune train evaluate package"),
    ("classifier", "data.test", "labelled-train.jsonl", "check evaluate package"),
    ("classifier", "data.context", "64", "check finetune train evaluate package"),
    ("classifier", "data.out_of_scope", "'0'", "check evaluate package"),
    ("classifier", "teacher.model", "other", "check finetune package"),
    ("classifier", "teacher.finetune.epochs", "2", "finetune package"),
    ("classifier", "teacher.finetune.batch_tokens", "99", "finetune package"),
    ("classifier", "teacher.finetune.learning_rate", "0.1", "finetune package"),
    ("classifier", "teacher.finetune.min_lr_ratio", "0.2", "finetune package"),
    ("classifier", "teacher.finetune.optimizer", "muon", "finetune package"),
    ("classifier", "student.layers", "3", "check train package"),
    ("classifier", "student.vocabulary", "300", "check train package"),
    ("classifier", "train.epochs", "2", "train package"),
    ("classifier", "train.batch_tokens", "99", "train package"),
    ("classifier", "train.learning_rate", "0.1", "train package"),
    ("classifier", "train.min_lr_ratio", "0.2", "train package"),
    ("classifier", "train.optimizer", "muon", "train package"),
    ("classifier", "train.control", "none", "train package"),
    ("classifier", "train.cosine_weight", "0.3", "train package"),
    ("classifier", "train.hard_label_weight", "0.5", "train package"),
    ("classifier", "train.temperature", "3", "train package"),
    ("classifier", "trainer.gradient_accumulation", "2", "finetune train package"),
    ("classifier", "trainer.warmup_ratio", "0.2", "finetune train package"),
    ("classifier", "trainer.weight_decay", "0.2", "finetune train package"),
    ("classifier", "trainer.precision", "bf16", "finetune train package"),
    ("classifier", "trainer.activation_checkpointing", "true", "finetune train package"),
    ("classifier", "trainer.kernel", "torch", "finetune train package"),
    ("classifier", "trainer.checkpoint_every", "7", "package"),
    ("classifier", "trainer.tracker", "none", "package"),
    ("classifier", "evaluate.latency_requests", "5", "evaluate package"),
    ("classifier", "evaluate.threads", "1", "evaluate package"),
    ("classifier", "gates.alpha", "0.1", "check evaluate gate package"),
    ("classifier", "gates.exact", "0.5", "check gate package"),
    ("classifier", "gates.retention", "0.5", "check gate package"),
    ("classifier", "gates.beats_control", "true", "check gate package"),
    ("classifier", "gates.parameters", "0.5", "check gate package"),
    ("classifier", "gates.speedup", "1.5", "check gate package"),
]
"""Which recipe, the key, its new value as YAML, and the stages whose inputs change."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return MadeRun(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize(("recipe", "key", "value", "stages"), CASES, ids=lambda text: text[:40] or "none")
def test_a_changed_key_runs_these_stages_again(made: MadeRun, recipe: str, key: str, value: str, stages: str) -> None:
    assert made.rerun(RECIPES[recipe], key, value) == set(stages.split())


@pytest.mark.parametrize("kind", [Recipe, ClassifierRecipe])
def test_the_table_has_every_key(kind: type[Recipe] | type[ClassifierRecipe]) -> None:
    changed = {key for recipe, key, *_ in CASES if (recipe == "classifier") == (kind is ClassifierRecipe)}
    missing = [key for key in leaf_keys(kind) if key not in changed and key.rpartition(".")[0] not in changed]
    assert missing == []


def test_a_models_weights_are_in_the_keys_of_the_stages_that_read_them(made: MadeRun) -> None:
    before = made.fingerprints(LANGUAGE)
    weights = made.folder / "teacher" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        after = made.fingerprints(LANGUAGE)
    finally:
        weights.write_bytes(whole)
    assert {name for name in before if before[name] != after[name]} >= {"check", "generate", "train"}
