"""Models, gates, budgets and the machine: what does not fit is refused by its key, what may not fit is a warning."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fixtures import light_rows, make_tokenizer, write_jsonl
from potstill.apps.plan.recipe import plan_recipe
from potstill.components.chat.format import load_chat
from potstill.components.models.configs import from_config
from potstill.components.models.safetensors import safetensors_shapes
from potstill.components.sizing import room
from potstill.core.errors import RecipeError
from potstill.stages.check.check import check_recipe
from potstill.stages.check.room import confirm
from workshop import Workshop, write_weights


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def checkpoint(model: str, **changes: Any) -> dict[str, Any]:
    return {"student": {"init": "checkpoint", "layers": None, "model": model}, **changes}


# ---- models ----

MARKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "kernel": ("config.json", {"_attn_implementation": "someone/kernels"}, "someone/kernels"),
    "inner kernel": ("config.json", {"text_config": {"attn_implementation": "someone/kernels"}}, "someone/kernels"),
    "code": ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.C"}}, "auto_map names own.C"),
    "code of the tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.T"]}}, "names own.T"),
    "type": ("config.json", {"model_type": "gpt2"}, "model_type is 'gpt2', but that of LlamaForCausalLM is 'llama'"),
    "adapter": ("adapter_config.json", {"base_model_name_or_path": "a/b"}, "merge_and_unload"),
    "pickle": ("model.safetensors.index.json", {"weight_map": {"a": "pytorch_model.bin"}}, "a pickle can run code"),
}


@pytest.mark.parametrize("case", MARKS)
def test_a_model_that_must_not_be_loaded_is_refused_before_anything_is_spent(workshop: Workshop, case: str) -> None:
    file, change, message = MARKS[case]
    path = workshop.make_model("odd") / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | change))
    for recipe in (workshop.recipe(teacher={"model": "odd"}), workshop.recipe(**checkpoint("odd"))):
        refused = workshop.refused(recipe)
        assert str(path) in refused and message in refused
        with pytest.raises(RecipeError, match=message):
            plan_recipe(recipe)


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_tensor_that_is_missing_or_has_another_shape_is_named(workshop: Workshop, prefix: str) -> None:
    folder, name = workshop.make_model("odd"), "layers.1.mlp.up_proj.weight"
    whole = {key.replace("model.", prefix): shape for key, shape in safetensors_shapes(folder).items()}
    recipes = workshop.recipe(teacher={"model": "odd"}), workshop.recipe(**checkpoint("odd"))
    write_weights(folder, {key: shape for key, shape in whole.items() if key != prefix + name} | {"renamed": (1,)})
    for recipe in recipes:
        assert f"{folder}: the weights lack model.{name}, and have" in workshop.refused(recipe)
    write_weights(folder, whole | {prefix + name: (96, 32)})
    for recipe in recipes:
        assert f"model.{name} has shape (96, 32), but config.json implies (96, 64)" in workshop.refused(recipe)
    write_weights(folder, whole | {f"{prefix}layers.4.mlp.up_proj.weight": (96, 64)})
    for recipe in recipes:
        assert "the weights have 5 layers, but num_hidden_layers in config.json is 4" in workshop.refused(recipe)
    write_weights(folder, whole | {"mtp.norm.weight": (64,)})
    for recipe in recipes:
        check_recipe(recipe)


def test_a_teacher_that_is_made_anew_may_have_another_shape_than_its_tokenizers_folder(workshop: Workshop) -> None:
    rows = write_jsonl(workshop.folder / "rows.jsonl", light_rows([""]))
    shape = "llama:layers=2,hidden=32,ffn=48,heads=2"
    finetune = {"rows": str(rows), "shape": shape}
    check_recipe(workshop.recipe(teacher={"model": str(workshop.make_model("odd")), "finetune": finetune}))


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "some-org/no-such-model-here"])
def test_missing_models_are_reported(workshop: Workshop, name: str) -> None:
    for recipe in (workshop.recipe(teacher={"model": name}), workshop.recipe(**checkpoint(name))):
        assert re.search(r"no such (model )?folder", workshop.refused(recipe))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_model_without_a_file_is_reported(workshop: Workshop, file: str) -> None:
    (workshop.model / file).unlink()
    message = workshop.refused(workshop.recipe())
    assert str(workshop.model) in message and file in message


def test_weights_cut_short_are_reported(workshop: Workshop) -> None:
    path = workshop.model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert f"{path}: not a whole safetensors file" in workshop.refused(workshop.recipe())


def test_another_tokenizer_is_reported_with_the_first_token_that_differs(workshop: Workshop) -> None:
    student = workshop.make_model("student", extra_vocabulary=-10)
    ours, theirs = load_chat(student), load_chat(workshop.model)
    message = workshop.refused(workshop.recipe(**checkpoint("student", train={"objective": "jsd"})))
    assert "student.model: its tokenizer is not the teacher's, so train.objective: jsd cannot" in message
    assert f"{student} has {ours.vocab_size} tokens" in message
    assert f"{workshop.model} has {theirs.vocab_size}" in message
    found = re.search(r"differ first at id (\d+)", message)
    assert found
    first = int(found[1])
    pair = ours.tokenizer.id_to_token(first), theirs.tokenizer.id_to_token(first)
    assert pair[0] != pair[1] and f"({pair[0]!r} against {pair[1]!r})" in message
    assert all(ours.tokenizer.id_to_token(i) == theirs.tokenizer.id_to_token(i) for i in range(first))


def test_a_tokenizer_with_the_same_tokens_and_other_merges_is_another(workshop: Workshop) -> None:
    student = workshop.make_model("student")
    file = student / "tokenizer.json"
    parsed = json.loads(file.read_text())
    parsed["model"]["merges"] = parsed["model"]["merges"][10:]
    file.write_text(json.dumps(parsed))
    message = workshop.refused(workshop.recipe(**checkpoint("student", train={"objective": "jsd"})))
    assert "train.objective: jsd cannot" in message
    assert "have the same tokens, but cut text into them differently" in message


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"train": {"objective": {"hidden": {}}}}, "train.objective.hidden"),
        ({"gates": {"top1_agreement": 0.9}}, "gates.top1_agreement"),
    ],
)
def test_what_compares_tokens_needs_one_tokenizer(workshop: Workshop, change: dict[str, Any], key: str) -> None:
    workshop.make_model("student", extra_vocabulary=-10)
    assert f"so {key} cannot compare" in workshop.refused(workshop.recipe(**checkpoint("student", **change)))


def test_another_tokenizer_is_fine_for_spans_of_text_and_for_fine_tuning(workshop: Workshop) -> None:
    workshop.make_model("student", extra_vocabulary=-10)
    check_recipe(workshop.recipe(**checkpoint("student")))
    check_recipe(workshop.recipe(**checkpoint("student", train={"objective": "sft", "control": "none"})))


def test_the_same_tokenizer_in_another_folder_is_fine(workshop: Workshop) -> None:
    workshop.make_model("student", num_hidden_layers=1, vocab_size=512)
    found = check_recipe(workshop.recipe(**checkpoint("student"), licenses={"student": "mit"}))
    assert (found.student.name, found.student.layers, found.student.padded_vocab) == ("student", 1, 512)
    assert found.warnings == ()


def test_another_template_is_a_warning_and_its_rows_are_checked(workshop: Workshop) -> None:
    path = workshop.make_model("student") / "chat_template.jinja"
    text = path.read_text()
    path.write_text(text.replace("Tools:", "You have these tools:"))
    recipe = workshop.recipe(**checkpoint("student"))
    assert "different templates" in check_recipe(recipe).warnings[0]
    path.write_text(text.replace("<|im_end|>\n", "\n"))
    with pytest.raises(Exception, match="no end-of-turn token"):
        check_recipe(recipe)


def test_a_vocabulary_smaller_than_the_tokenizer_is_reported(workshop: Workshop) -> None:
    size = load_chat(workshop.model).vocab_size
    workshop.make_model("teacher", vocab_size=size)
    assert check_recipe(workshop.recipe()).teacher.padded_vocab == size  # type: ignore[union-attr]
    workshop.make_model("teacher", vocab_size=size - 1)
    message = workshop.refused(workshop.recipe())
    assert f"the tokenizer has {size} tokens" in message and f"only {size - 1}" in message


def test_more_layers_than_the_teacher_has_are_reported(workshop: Workshop) -> None:
    check_recipe(workshop.recipe(student={"layers": 4}))
    message = workshop.refused(workshop.recipe(student={"layers": 5}))
    assert message == "student.layers: 5 is more than the teacher's 4 layers."


def test_a_context_beyond_the_models_is_reported(workshop: Workshop) -> None:
    message = workshop.refused(workshop.recipe(chat={"context": 257}))
    assert "chat.context: 257 tokens are more than the 256" in message and str(workshop.model) in message


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"architectures": ["BitNetForCausalLM"]}, "architecture BitNetForCausalLM cannot be exported"),
    "no list of classes": ({"architectures": {"a": 1}}, "architecture (none named) cannot be exported"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not SiLU"),
    "quantized": ({"quantization_config": {"bits": 4}}, "quantized already"),
    "rope": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope type 'dynamic'"),
    "window": ({"sliding_window": 64}, "attention slides over 64 tokens"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_student_that_cannot_be_exported_is_reported(workshop: Workshop, case: str) -> None:
    changes, expected = CHANGES[case]
    workshop.make_model("odd", **changes)
    for recipe in (workshop.recipe(teacher={"model": "odd"}), workshop.recipe(**checkpoint("odd"))):
        assert expected in workshop.refused(recipe)


def test_a_teacher_that_cannot_be_exported_may_teach(workshop: Workshop) -> None:
    odd = workshop.make_model("odd", architectures=["BitNetForCausalLM"], model_type="bitnet")
    shape = "llama:layers=1,hidden=32,ffn=64,heads=4"
    recipe = workshop.recipe(teacher={"model": "odd"}, student={"init": "scratch", "shape": shape, "layers": None})
    found = check_recipe(recipe)
    assert found.teacher is not None and found.teacher.architecture == "bitnet"
    # counted from the weights' own header
    offsets = json.loads((odd / "model.safetensors").read_bytes()[8:].split(b"}}")[0] + b"}}")
    assert found.teacher.parameters == max(v["data_offsets"][1] for k, v in offsets.items() if k[0] != "_") // 4


def test_rescaled_logits_are_reported(workshop: Workshop) -> None:
    workshop.make_model("teacher", final_logit_softcapping=30.0)
    assert "rescales its logits (final_logit_softcapping" in workshop.refused(workshop.recipe())


@pytest.mark.parametrize(("named", "expected"), [(["GemmaForCausalLM"], "GemmaForCausalLM"), ([], "(none named)")])
def test_an_unknown_architecture_is_reported_with_those_that_are_known(
    workshop: Workshop, named: list[str], expected: str
) -> None:
    odd = workshop.make_model("odd", architectures=named)
    cut, own = (
        workshop.refused(recipe)
        for recipe in (workshop.recipe(teacher={"model": "odd"}), workshop.recipe(**checkpoint("odd")))
    )
    assert cut.startswith(
        f"student.init: {odd}: a student of architecture {expected} cannot be exported to GGUF; Llama"
    )
    assert "Qwen3ForCausalLM can" in cut and cut.endswith("Set student.init: scratch.")
    assert own.startswith(f"student.model: {odd}: ") and own.endswith("Choose another checkpoint.")


def change_tokenizer(folder: Path, **changes: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_a_vocabulary_that_cannot_be_trimmed_is_refused_before_a_token_is_paid_for(workshop: Workshop) -> None:
    trimmed = {"vocabulary": "workload"}
    check_recipe(workshop.recipe(student=trimmed))
    whole = {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": False}
    path = change_tokenizer(workshop.model, pre_tokenizer=whole)
    assert "cannot be exported to GGUF" in workshop.refused(workshop.recipe())
    message = workshop.refused(workshop.recipe(student=trimmed))
    assert message.startswith("student.vocabulary: ") and f"{path} is BPE with neither a ByteLevel" in message
    assert message.endswith("take student.vocabulary out of the recipe.")
    with pytest.raises(RecipeError, match=re.escape(message)):
        plan_recipe(workshop.recipe(student=trimmed))
    # the student's own tokenizer is trimmed, whatever the teacher's is
    workshop.make_model("student")
    check_recipe(workshop.recipe(student=checkpoint("student")["student"] | trimmed))


def test_a_student_that_is_no_bpe_is_refused_by_its_kind(workshop: Workshop) -> None:
    pieces = [["<|endoftext|>", 0.0], ["<|im_start|>", -1.0], ["<|im_end|>", -1.0], ["a", -2.0]]
    added = json.loads((workshop.model / "tokenizer.json").read_text())["added_tokens"][:3]
    change_tokenizer(
        workshop.model, model={"type": "Unigram", "unk_id": 0, "vocab": pieces}, added_tokens=added, pre_tokenizer=None
    )
    for vocabulary in ("full", "workload"):
        message = workshop.refused(workshop.recipe(student={"vocabulary": vocabulary}))
        assert "Unigram" in message and str(workshop.model) in message


def test_a_teacher_made_from_scratch_needs_a_tokenizer_alone(workshop: Workshop) -> None:
    make_tokenizer(workshop.folder / "tokenizer")
    shape = "llama:layers=3,hidden=48,ffn=64,heads=4"
    recipe = workshop.recipe(teacher={"model": "tokenizer", "finetune": {"rows": "train.jsonl", "shape": shape}})
    found = check_recipe(recipe)
    assert found.teacher is not None and found.teacher.layers == 3
    assert found.rows["finetune"] == 24 and "finetune" in found.disk.stays


def test_an_endpoint_is_not_asked(workshop: Workshop) -> None:
    workshop.make_model("student")
    api = {"kind": "api", "model": "big", "base_url": "http://127.0.0.1:9/v1"}
    train = {"objective": "sft", "control": "none"}
    found = check_recipe(workshop.recipe(**checkpoint("student", teacher=api, train=train)))
    assert found.teacher is None and found.prompt_tokens["prompts"].rows == 24
    gated = workshop.recipe(**checkpoint("student", teacher=api, train=train, gates={"kl_mean": 0.1}))
    assert "gates.kl_mean: an endpoint gives no whole distributions" in workshop.refused(gated)


# ---- gates ----


def test_gates_that_nothing_can_decide_are_reported(workshop: Workshop) -> None:
    message = workshop.refused(workshop.recipe(gates={"behaviours": {"refuse": 0.9}}))
    assert message.startswith("gates.behaviours.refuse: ") and str(workshop.test) in message
    check_recipe(workshop.recipe(gates={"behaviours": {"tool_call": 0.9}, "exact": 0.9}))
    silent = [{"messages": row["messages"], "behaviour": "tool_call"} for row in workshop.rows("test.jsonl")]
    write_jsonl(workshop.test, silent)
    for gate in ({"exact": 0.9}, {"retention": 0.9}, {"beats_control": True}, {"behaviours": {"tool_call": 0.5}}):
        assert workshop.refused(workshop.recipe(gates=gate)).startswith(f"gates.{next(iter(gate))}")
    check_recipe(workshop.recipe(gates={"top1_agreement": 0.5}))


def test_gates_that_can_never_pass_are_named(workshop: Workshop) -> None:
    gates = {"exact": 0.9, "behaviours": {"tool_call": 0.5}, "retention": 1.0, "quantization_drop": 0.5,
             "beats_control": True, "top1_agreement": 0.95}  # fmt: skip
    found = check_recipe(workshop.recipe(gates=gates)).warnings
    assert [warning.partition(":")[0] for warning in found] == [
        "gates.exact",
        "gates.retention",
        "gates.top1_agreement",
    ]
    assert "12 independent test rows cannot pass this gate" in found[0] and "it needs at least 29." in found[0]
    assert "no number of test rows can show a rate of 1" in found[1]
    for line in range(1, 13):
        workshop.spoil("test.jsonl", line, lambda row, group=line % 3: row.update(group=f"item {group}"))
    grouped = check_recipe(workshop.recipe(gates={"behaviours": {"tool_call": 0.5}, "beats_control": True})).warnings
    assert all("3 independent test rows" in warning for warning in grouped) and len(grouped) == 2


def test_rows_that_are_not_judged_are_counted(workshop: Workshop) -> None:
    for line, changes in ((1, {}), (2, {"behaviour": "clarify"})):
        workshop.spoil("test.jsonl", line, lambda row, c=changes: row.update(c, gold=None, completion=None))
    found = check_recipe(workshop.recipe())
    assert found.warnings == ("data.test: 1 of 12 rows do not say what is right, and are not judged.",)


# ---- budgets ----


def test_a_file_over_its_budget_is_refused_with_what_fits(workshop: Workshop) -> None:
    sizes = {q: check_recipe(workshop.recipe(export={"quantization": q})).file.bytes for q in ("Q8_0", "Q4_0")}
    between = (sizes["Q8_0"] + sizes["Q4_0"]) / 2e6
    message = workshop.refused(workshop.recipe(target={"file_mb": between}))
    assert message.startswith("target.file_mb: the student's Q8_0 file will have")
    assert "Q4_0" in message and "F16" not in message
    check_recipe(workshop.recipe(target={"file_mb": between}, export={"quantization": "Q4_0"}))
    assert "No quantization fits" in workshop.refused(workshop.recipe(target={"file_mb": 0.001}))


def test_memory_that_cannot_be_enough_is_refused_and_tight_memory_is_a_warning(workshop: Workshop) -> None:
    found = check_recipe(workshop.recipe())
    certain = (found.file.bytes + found.served_memory.kv_bytes) / 1e6
    assert found.served_memory.kv_bytes == 2 * 2 * 2 * 16 * 256 * 2
    message = workshop.refused(workshop.recipe(target={"memory_mb": certain - 0.01}))
    assert message.startswith("target.memory_mb: the file")
    tight = check_recipe(workshop.recipe(target={"memory_mb": certain + 0.01}))
    assert tight.warnings[0].startswith("target.memory_mb: llama.cpp will hold about")
    assert check_recipe(workshop.recipe(target={"memory_mb": 100})).warnings == ()


def test_a_disk_too_small_is_refused_in_every_run(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(Path(path))
        return Usage(10**9, 10**9 - free, free)

    monkeypatch.setattr(room.shutil, "disk_usage", usage)
    found, runs = check_recipe(workshop.recipe()), tmp_path / "runs" / "lights"
    free = found.disk.needed
    assert confirm(found, runs) == []
    assert asked == [tmp_path]  # the nearest folder that exists
    free -= 1
    with pytest.raises(RecipeError, match=rf"{tmp_path}: the run needs .* --runs") as caught:
        confirm(found, runs)
    assert caught.value.exit_code == 2


def test_disk_is_what_the_stages_leave(workshop: Workshop) -> None:
    few: dict[str, Any] = {"worth": {"rungs": ["text"]}}
    both = check_recipe(workshop.recipe(**few)).disk
    alone = check_recipe(workshop.recipe(train={"control": "none"}, **few)).disk
    student = check_recipe(workshop.recipe(**few)).student.parameters or 0
    # in fp32: the student before and after its training, and its control
    assert (both.stays["train"], alone.stays["train"]) == (12 * student, 8 * student)
    # while the second model trains: two checkpoints of 12 bytes a parameter beside what stays
    assert both.needed == both.stays["generate"] + both.stays["train"] + 24 * student
    assert check_recipe(workshop.recipe(worth={"seeds": 3})).disk.stays["worth"] == (1 + 2 * 3) * 4 * student


def test_weights_to_be_downloaded_need_room_in_the_hubs_cache(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workshop.model / "model.safetensors").unlink()
    monkeypatch.setattr("potstill.components.models.recipe_models.resolve_model", lambda name, weights: workshop.model)
    found = check_recipe(workshop.recipe(teacher={"model": "some-org/big"}))
    assert found.teacher is not None and found.teacher.name == "some-org/big" and found.download
    assert found.download.bytes == 2 * (found.teacher.parameters or 0)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: Usage(0, 0, found.download.bytes - 1))
    with pytest.raises(RecipeError, match="the weights of some-org/big are still to be downloaded"):
        confirm(found, tmp_path)


def test_too_little_memory_here_is_a_warning(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check_recipe(workshop.recipe())
    assert found.memory.stage == "train" and confirm(found, tmp_path) == []
    monkeypatch.setattr(room, "physical_memory", lambda: found.memory.needed - 1)
    (warning,) = confirm(found, tmp_path)
    assert warning.startswith("train.batch_tokens: the train stage will need about")
    larger = check_recipe(workshop.recipe(train={"batch_tokens": 16384})).memory
    assert larger.parts["activations"] == 2 * found.memory.parts["activations"]


@pytest.mark.parametrize(
    ("train", "beside"), [({}, True), ({"objective": {"targets": "counts"}}, False), ({"objective": "sft"}, False)]
)
def test_a_teacher_counts_where_it_is_in_memory(workshop: Workshop, train: dict[str, Any], beside: bool) -> None:
    own = {"init": "checkpoint", "layers": None, "model": workshop.value["teacher"]["model"]}
    recipe = workshop.recipe(student=own, train={"control": "none", "batch_tokens": 16384} | train)
    memory = check_recipe(recipe).memory
    assert memory.stage == "train" and (memory.parts["teacher"] > 0) == beside


def test_its_logits_count_where_it_makes_them(workshop: Workshop) -> None:
    """A teacher that the student is cut from, and one that runs for its hidden states alone, make none."""
    many = {"control": "none", "batch_tokens": 16384}
    online, stored, hidden = (
        check_recipe(workshop.recipe(train=many | train)).memory.parts
        for train in ({}, {"objective": {"targets": "counts"}}, {"objective": {"targets": "counts", "hidden": {}}})
    )
    assert online["teacher"] == stored["teacher"] == hidden["teacher"] > 0
    assert online["logits"] > stored["logits"] == hidden["logits"]


def test_of_layers_on_disk_one_is_in_memory(workshop: Workshop, tmp_path: Path) -> None:
    own = {"init": "checkpoint", "layers": None, "model": workshop.value["teacher"]["model"]}
    whole, offloaded = (
        check_recipe(
            workshop.recipe(student=own, teacher={"offload": where}, train={"control": "none", "batch_tokens": 16384})
        ).memory.parts["teacher"]
        for where in (None, "disk")
    )
    shape = from_config(json.loads((workshop.model / "config.json").read_text()))
    layers = whole - 4 * shape.vocab * shape.hidden * (1 if shape.tied else 2)
    assert offloaded == pytest.approx(whole - layers * (shape.layers - 1) / shape.layers, abs=4)


def test_unknown_licences_are_a_warning(workshop: Workshop) -> None:
    recipe = workshop.recipe(licenses={"data": "unknown", "teacher": None})
    (warning,) = check_recipe(recipe).warnings
    assert warning.startswith("licenses.teacher, licenses.data: unknown.")


def test_a_blocked_licence_is_reported_before_anything_is_paid_for(workshop: Workshop) -> None:
    (warning,) = check_recipe(workshop.recipe(licenses={"teacher": "grok2-community"})).warnings
    assert warning.startswith(
        "May it ship: blocked or unknown. the teacher (grok2-community): training on its outputs is blocked"
    )
    (warning,) = check_recipe(workshop.recipe(licenses={"data": "cc-by-nc-4.0"})).warnings
    assert "for non-commercial use only" in warning
