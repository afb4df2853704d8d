"""A student with a trimmed vocabulary gives the outputs of the whole one, in training, evaluation and the GGUF file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures import light_rows, make_model
from potstill.components.chat.format import ChatFormat, Example, load_chat
from potstill.components.chat.trimming import trim_folder
from potstill.components.runtimes.gguf import GGUFServer
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.attention import grouped_attention
from potstill.components.training.batches import pack
from potstill.components.training.learner import LanguageTask, Learner
from potstill.components.training.students import from_scratch, from_teacher_layers, save_model
from potstill.components.training.vocabulary import cut_embedding
from potstill.core.artifacts.training import Trained
from potstill.core.errors import RecipeError
from potstill.core.recipe import Recipe, Shape, load_recipe
from potstill.core.records import Row
from potstill.stages.export.stage import STAGE as EXPORT
from potstill.stages.train import stage as train
from stage_runs import run_stage

ODD_TEXTS = [
    "",
    " ",
    "naïve café",
    "日本語のテキスト",
    "🙂 👩‍👩‍👧‍👦",
    "\x00\x7f\r\n",
    "<|im_end|>x<tool_call>",
    "kitchenette",
]

INST_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}[INST]{{ message.content }}[/INST]"
    "{% else %}{% for call in message.tool_calls or [] %}"
    "{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %}{{ eos_token }}{% endif %}{% endfor %}"
)


def rows_of(chat: ChatFormat, polites: list[str]) -> list[Example]:
    return [chat.example(Row.model_validate(row)) for row in light_rows(polites)]


def ids_of(rows: list[Example]) -> list[int]:
    return [index for row in rows for index in row.ids]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_trimmed_model_gives_the_logits_of_the_whole_one(tmp_path: Path, architecture: str, tied: bool) -> None:
    """The logits of the kept tokens are the same numbers, before and after saving."""
    folder = make_model(tmp_path / "whole", layers=2, architecture=architecture)
    chat, model = load_chat(folder), load_causal_lm(folder)
    if not tied:
        model.config.tie_word_embeddings = False
        model.get_output_embeddings().weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    rows = rows_of(chat, [""])[:3]
    ids = torch.tensor([rows[0].ids])
    with torch.no_grad():
        expected = model(ids).logits
    vocabulary = trim_folder(folder, ids_of(rows), tmp_path / "tokenizer")
    cut_embedding(model, vocabulary)
    save_model(model, tmp_path / "tokenizer", tmp_path / "cut")
    again, new = load_causal_lm(tmp_path / "cut"), load_chat(tmp_path / "cut")
    assert again.config.vocab_size == new.vocab_size == len(vocabulary.kept) == len(again.get_input_embeddings().weight)
    assert again.config.tie_word_embeddings is tied
    assert again.config.eos_token_id == new.eos_id
    assert new.stop_ids == {new.eos_id}
    for cut in (model, again):
        with torch.no_grad():
            logits = cut(torch.tensor([vocabulary.example(rows[0]).ids])).logits
        torch.testing.assert_close(logits, expected[..., list(vocabulary.kept)])


def test_the_teacher_reads_its_own_ids_and_is_renormalised_over_the_kept(tmp_path: Path) -> None:
    """The divergence is that of the whole model's distributions, each renormalised over the kept tokens."""
    folder = make_model(tmp_path / "teacher")
    chat, teacher = load_chat(folder), load_causal_lm(folder).eval()
    rows = rows_of(chat, [""])[:3]
    vocabulary = trim_folder(folder, ids_of(rows), tmp_path / "tokenizer")
    student = from_teacher_layers(teacher, 2).eval()
    expected = 0.0
    for row in rows:
        at = slice(row.n_prompt - 1, len(row.ids) - 1)
        with torch.no_grad():
            log_p, log_q = (
                model(torch.tensor([row.ids])).logits[0, at][:, list(vocabulary.kept)].log_softmax(-1)
                for model in (teacher, student)
            )
        expected += float((log_p.exp() * (log_p - log_q)).sum())
    cut_embedding(student, vocabulary)
    batch = pack([vocabulary.example(row) for row in rows], 0)
    with grouped_attention(student, teacher), torch.no_grad():
        learner = Learner(student, LanguageTask(teacher, kept_ids=vocabulary.kept), len(vocabulary.kept), False)
        assert float(learner(batch).divergence) == pytest.approx(expected, rel=1e-4)


def small_run(folder: Path, workload: Path, teacher: Path | None = None, **student: Any) -> tuple[Recipe, Path]:
    """A recipe, and the directory of a training on rows that stand for the teacher's answers."""
    teacher = teacher or make_model(folder / "teacher", context=256)
    given = {"prompts": workload / "train.jsonl", "test": workload / "test.jsonl"}
    recipe = Recipe.model_validate(
        {
            "name": "lights",
            "data": given,
            "chat": {"context": 256},
            "teacher": {"model": str(teacher)},
            "student": {"vocabulary": "workload"} | student,
            "train": {"epochs": 1, "objective": "jsd"},
            "trainer": {"tracker": "none"},
            "export": {"quantization": "Q8_0"},
        }
    )
    out = folder / "trained"
    out.mkdir()
    run_stage(train.STAGE, recipe, {"generate": workload}, out)
    return recipe, out


def export(recipe: Recipe, trained: Path, workload: Path, out: Path) -> None:
    """Run the export stage; the workload's rows stand for generated ones."""
    run_stage(EXPORT, recipe, {"train": trained, "generate": workload}, out)


def test_a_run_trains_and_ships_the_trimmed_student(tmp_path: Path, workload: Path) -> None:
    recipe, out = small_run(tmp_path, workload, layers=2, ffn=64)
    whole, chat = load_chat(tmp_path / "teacher"), load_chat(out / "student")
    kept = json.loads((out / "kept.json").read_text())
    assert Trained.read(out).vocabulary == len(kept) == chat.vocab_size < whole.vocab_size
    assert load_causal_lm(out / "control").config.vocab_size == len(kept)

    export(recipe, out, workload, tmp_path / "export")  # it compares file and checkpoint in llama.cpp
    texts = [*filter(None, ODD_TEXTS), *(chat.tokenizer.decode(list(e.ids)) for e in rows_of(chat, ["", "quickly "]))]
    with GGUFServer(tmp_path / "export" / "lights-Q8_0.gguf", context=256) as server:
        assert server.vocab_size == len(kept)
        assert [server.tokenize(text) for text in texts] == [chat.encode(text) for text in texts]


@pytest.mark.parametrize("name", ["llama-spm", "phi-3"])
def test_a_student_with_byte_fallback_ships_with_what_its_rows_use(
    name: str, tmp_path: Path, workload: Path, shared_data: Path
) -> None:
    source, folder = shared_data / "tokenizers" / name, tmp_path / "tokenizer"
    if not source.is_dir():
        pytest.skip(f"{name} is not there")
    shutil.copytree(source, folder)
    (folder / "chat_template.jinja").write_text(INST_TEMPLATE)
    shape = Shape(layers=3, hidden=32, ffn=48, heads=4, kv_heads=2)
    save_model(from_scratch(shape, load_chat(folder), 256, 0), folder, tmp_path / "teacher")
    recipe, out = small_run(tmp_path, workload, tmp_path / "teacher", layers=2)
    chat = load_chat(out / "student")
    assert chat.vocab_size < 700 and {chat.bos, chat.eos, "<unk>", "<0x0A>"} <= chat.tokenizer.get_vocab().keys()
    export(recipe, out, workload, tmp_path / "export")  # it compares file and checkpoint in llama.cpp
    rows = [chat.tokenizer.decode(list(e.ids), skip_special_tokens=True) for e in rows_of(chat, [""])]
    with GGUFServer(tmp_path / "export" / "lights-Q8_0.gguf", context=256) as server:
        assert server.vocab_size == chat.vocab_size
        for text in [*rows, *filter(None, ODD_TEXTS), "  two  spaces", "[INST]ZzQ~"]:
            assert server.tokenize(text) == chat.encode(text), text


def test_a_student_from_scratch_has_the_trimmed_vocabulary(tmp_path: Path, workload: Path) -> None:
    shape = "llama:layers=1,hidden=32,ffn=48,heads=2"
    _, out = small_run(tmp_path, workload, init="scratch", shape=shape)
    student, chat = load_causal_lm(out / "student"), load_chat(out / "student")
    assert student.config.vocab_size == chat.vocab_size == len(json.loads((out / "kept.json").read_text()))
    assert student.config.eos_token_id == chat.eos_id


def test_stored_targets_are_rejected(tmp_path: Path) -> None:
    value = {
        "name": "r",
        "data": {"prompts": "p.jsonl", "test": "t.jsonl"},
        "teacher": {"model": "someone/model"},
        "student": {"layers": 2, "vocabulary": "workload"},
    }
    for kind in ("counts", "top_k"):
        (tmp_path / "r.yaml").write_text(json.dumps(value | {"train": {"objective": {"targets": kind}}}))
        with pytest.raises(RecipeError, match=f"targets of kind {kind} are stored in the teacher's token ids"):
            load_recipe(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text(json.dumps(value))
    assert load_recipe(tmp_path / "r.yaml").student.vocabulary == "workload"
