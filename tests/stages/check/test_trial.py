"""What export would refuse after the training, the check refuses before it, in a second and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import TEMPLATE, TOOLS, light_row, write_jsonl
from potstill.core.records import Message, Row
from potstill.stages.check import trial
from potstill.stages.check.check import check_recipe
from potstill.stages.check.trial import telling_rows

if TYPE_CHECKING:
    from workshop import Workshop

Tokenizer = dict[str, Any]


def change_tokenizer(workshop: Workshop, change: Callable[[Tokenizer], Any]) -> None:
    path = workshop.model / "tokenizer.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def word(tokenizer: Tokenizer, text: str, **flags: bool) -> None:
    """Add a token that is found anywhere in a text."""
    tokens = tokenizer["added_tokens"]
    tokens.append({**tokens[-1], "id": max(token["id"] for token in tokens) + 1, "content": text, **flags})


SPLIT = {"type": "Split", "pattern": {"Regex": r"[^\r\n\p{L}\p{N}]?+\p{L}+"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
REFUSED: dict[str, tuple[Callable[[Tokenizer], Any], str]] = {
    "unknown expression": (
        lambda t: t.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT, BYTES]}),
        "no pre-tokenizer of llama.cpp splits text",
    ),
    "whitespace": (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "has no counterpart in llama.cpp"),
    "prefix space": (lambda t: t["pre_tokenizer"].update(add_prefix_space=True), "add_prefix_space"),
    "lower case": (lambda t: t.update(normalizer={"type": "Lowercase"}), "normalizer Lowercase cannot be exported"),
    "twice": (lambda t: t["model"]["vocab"].update({"<tool_call>": 379}), "both have the token '<tool_call>'"),
    "no merges": (lambda t: t["model"].update(merges=[]), "no merges"),
    "strips": (lambda t: word(t, "kitchen", lstrip=True), "tokenizes text differently"),
    "whole words": (lambda t: word(t, "itche", single_word=True), "tokenizes text differently"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_tokenizer_that_export_would_refuse_is_refused(workshop: Workshop, case: str) -> None:
    change, expected = REFUSED[case]
    check_recipe(workshop.recipe())
    change_tokenizer(workshop, change)
    assert expected in workshop.refused(workshop.recipe())


def test_a_template_that_llama_cpp_runs_otherwise_is_refused_by_its_key(workshop: Workshop) -> None:
    """Jinja prints a mapping as Python does, and llama.cpp as JSON."""
    path = workshop.model / "chat_template.jinja"
    path.write_text("{{ {'b': 1, 'a': [True, None]} }}" + TEMPLATE)
    message = workshop.refused(workshop.recipe())
    assert message.startswith("chat.template: a small random model ")
    assert "makes another prompt from " in message and "train.jsonl:1" in message


def test_a_template_that_llama_cpp_cannot_run_is_refused(workshop: Workshop) -> None:
    path = workshop.model / "chat_template.jinja"
    path.write_text("{{ messages | map(attribute='role') | batch(2) | list | length }}" + TEMPLATE)
    assert "template" in workshop.refused(workshop.recipe())


def test_a_template_that_needs_tools_is_tried_with_them(workshop: Workshop) -> None:
    needs = TEMPLATE.replace("{% if tools %}", "", 1).replace("{% endif %}", "", 1)
    (workshop.model / "chat_template.jinja").write_text(needs)
    assert check_recipe(workshop.recipe()).trial is not None


@pytest.mark.parametrize(
    "name",
    [
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
        "mistralai-Mistral-Nemo-Instruct-2407",
        "Qwen-Qwen2.5-7B-Instruct",
    ],
)
def test_public_templates_give_the_same_prompts_with_tools_and_calls(
    workshop: Workshop, shared_data: Path, name: str
) -> None:
    workshop.make_model("teacher", max_position_embeddings=8192)
    (workshop.model / "chat_template.jinja").write_text((shared_data / f"chat_templates/{name}.jinja").read_text())
    found = check_recipe(workshop.recipe(chat={"context": 8192}))
    assert found.trial is not None and found.trial.rows > 3


def test_the_row_that_llama_cpp_would_write_otherwise_is_named(workshop: Workshop) -> None:
    path = workshop.model / "chat_template.jinja"
    path.write_text("{% if '№' in messages[0].content %}{{ {'b': 1, 'a': [True, None]} }}{% endif %}" + TEMPLATE)
    check_recipe(workshop.recipe())
    where = workshop.spoil("train.jsonl", 7, lambda row: row["messages"][0].update(content="light № 1"))
    assert f"another prompt from {where} " in workshop.refused(workshop.recipe())


def test_a_type_that_this_machine_cannot_write_is_refused(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.components.conversion import quantize

    monkeypatch.setattr(quantize, "_is_trusted", lambda qtype: False)
    workshop.make_model("wide", hidden_size=256, intermediate_size=256)
    message = workshop.refused(workshop.recipe(teacher={"model": "wide"}, export={"quantization": "Q4_K_M"}))
    assert message.startswith("student.init: ") and "cannot be written here" in message


def test_what_llama_cpp_does_otherwise_is_a_warning(workshop: Workshop) -> None:
    change_tokenizer(workshop, lambda t: t.update(normalizer={"type": "NFC"}))
    warnings = check_recipe(workshop.recipe()).warnings
    assert [w for w in warnings if w.startswith("export: llama.cpp does not normalize text to NFC")]


def test_without_llama_cpp_the_check_says_what_was_not_tried(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "find_spec", lambda name: None if name == "xllamacpp" else True)
    found = check_recipe(workshop.recipe())
    assert found.trial is None
    assert "not tried in llama.cpp, because xllamacpp is not installed" in found.warnings[-1]


def test_the_trial_loads_no_torch(workshop: Workshop) -> None:
    workshop.recipe()
    code = (
        "import sys; from pathlib import Path\n"
        "from potstill.core.recipe import load_recipe; from potstill.stages.check.check import check_recipe\n"
        "print(check_recipe(load_recipe(Path(sys.argv[1]))).trial.rows, 'torch' in sys.modules)"
    )
    recipe = workshop.folder / "recipe.yaml"
    out = subprocess.run([sys.executable, "-c", code, recipe], capture_output=True, text=True, check=True)
    rows, torch = out.stdout.split()
    assert int(rows) > 3 and torch == "False"


def test_every_shape_and_character_is_in_the_rows_that_are_tried() -> None:
    def row(text: str, *more: Message, tools: tuple[dict[str, Any], ...] = ()) -> Row:
        return Row(messages=(Message(role="user", content=text), *more), tools=tools)

    plain, accents, tooled = row("abc"), row("abç"), row("abc", tools=tuple(TOOLS))
    longer = row("abc", Message(role="assistant", content="a"), Message(role="user", content="b"))
    rows = [plain, row("cab"), accents, row("ç"), tooled, longer, plain]
    assert telling_rows(rows) == [plain, accents, tooled, longer]
    assert telling_rows(rows, most=2) == [plain, accents]


def test_a_tried_student_has_its_own_features(tmp_path: Path, workshop: Workshop) -> None:
    """The trial keeps what llama.cpp treats differently: biases, separate heads, the size of a head."""
    from safetensors.numpy import load_file

    from potstill.components.conversion.trial import write_trial_checkpoint

    config = json.loads((workshop.model / "config.json").read_text())
    changes = {"attention_bias": True, "tie_word_embeddings": False, "head_dim": 32, "hidden_size": 4096}
    write_trial_checkpoint(config | changes, workshop.model, tmp_path)
    shapes = {name: tensor.shape for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert shapes["lm_head.weight"] == shapes["model.embed_tokens.weight"] == (384, 64)
    assert shapes["model.layers.1.self_attn.q_proj.weight"] == (64, 64)  # two heads of 32 share a key
    assert shapes["model.layers.1.self_attn.k_proj.bias"] == (32,)
    assert "model.layers.2.input_layernorm.weight" not in shapes


def test_a_wide_vocabulary_is_tried_quickly(workshop: Workshop) -> None:
    write_jsonl(workshop.test, [light_row("hall", "on", "now ")])
    workshop.make_model("teacher", vocab_size=40_000)
    assert check_recipe(workshop.recipe()).trial is not None
