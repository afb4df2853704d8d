"""A trimmed vocabulary reads its workload as before, any other text too, and its student answers as the whole one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from fixtures import light_rows, make_model, make_tokenizer
from potstill import export, train
from potstill.chat import ChatFormat, Example, load_chat
from potstill.errors import RecipeError
from potstill.evaluate.measure import _in_vocabulary, _Text
from potstill.recipe import Recipe, load_recipe
from potstill.records import Row
from potstill.runtimes.gguf import GGUFServer
from potstill.runtimes.hf import load_causal_lm
from potstill.train.attention import grouped_attention
from potstill.train.batches import pack
from potstill.train.learner import Learner, Objective
from potstill.train.students import from_teacher_layers, save_model
from potstill.train.vocabulary import Vocabulary, cut_embedding, trim_folder, trim_tokenizer

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


def rows_of(chat: ChatFormat, polites: list[str]) -> list[Example]:
    return [chat.example(Row.model_validate(row)) for row in light_rows(polites)]


def ids_of(rows: list[Example]) -> list[int]:
    return [index for row in rows for index in row.ids]


def tokens(chat: ChatFormat, ids: list[int] | tuple[int, ...]) -> list[str | None]:
    return [chat.tokenizer.id_to_token(index) for index in ids]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    return load_chat(make_tokenizer(tmp_path_factory.mktemp("whole"), extra_vocabulary=200))


@pytest.fixture(scope="module")
def workload_rows(whole: ChatFormat) -> list[Example]:
    return rows_of(whole, [""])[:6]


@pytest.fixture(scope="module")
def trimmed(whole: ChatFormat, workload_rows: list[Example]) -> tuple[Vocabulary, Tokenizer]:
    used = [index for example in workload_rows for index in example.ids]
    vocabulary = trim_tokenizer(json.loads(whole.tokenizer.to_str()), used)
    return vocabulary, Tokenizer.from_str(json.dumps(vocabulary.tokenizer))


def test_the_workload_is_cut_as_before(
    whole: ChatFormat, workload_rows: list[Example], trimmed: tuple[Vocabulary, Tokenizer]
) -> None:
    vocabulary, tokenizer = trimmed
    assert tokenizer.get_vocab_size() == len(vocabulary.kept) < whole.vocab_size - 20
    for example in workload_rows:
        text = whole.tokenizer.decode(list(example.ids), skip_special_tokens=False)
        new = tokenizer.encode(text, add_special_tokens=False)
        assert new.tokens == tokens(whole, example.ids)
        moved = vocabulary.example(example)
        assert tuple(new.ids) == moved.ids
        assert (moved.n_prompt, moved.eos_supervised) == (example.n_prompt, example.eos_supervised)


def test_what_is_kept(whole: ChatFormat, workload_rows: list[Example], trimmed: tuple[Vocabulary, Tokenizer]) -> None:
    vocabulary, tokenizer = trimmed
    old, new = whole.tokenizer.get_vocab(), tokenizer.get_vocab()
    assert list(vocabulary.kept) == sorted(vocabulary.kept)
    assert {text: old[text] for text in new} == {text: vocabulary.kept[index] for text, index in new.items()}
    added = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"}
    assert added <= new.keys()
    assert sum(len(text) == 1 for text in new) == 256
    merges = [tuple(pair) for pair in vocabulary.tokenizer["model"]["merges"]]
    before = [tuple(pair) for pair in json.loads(whole.tokenizer.to_str())["model"]["merges"]]
    assert merges == [(a, b) for a, b in before if {a, b, a + b} <= new.keys()]
    used = {text for example in workload_rows for text in tokens(whole, example.ids)}
    results = {a + b for a, b in merges}
    assert all(text in results for text in used - added if text and len(text) > 1)


@given(text=st.one_of(st.text(), st.lists(st.sampled_from([*ODD_TEXTS, "kitchen", "the ", "off"])).map("".join)))
def test_any_text_comes_back(trimmed: tuple[Vocabulary, Tokenizer], text: str) -> None:
    _, tokenizer = trimmed
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@given(used=st.sets(st.integers(0, 560)), texts=st.lists(st.text(alphabet='kitchen of"{the:a', max_size=40)))
def test_texts_of_kept_tokens_are_cut_as_before(whole: ChatFormat, used: set[int], texts: list[str]) -> None:
    """Whatever the workload is: its own rows, and so any text that the old tokenizer cuts into tokens it has."""
    cut = [whole.tokenizer.encode(text, add_special_tokens=False) for text in texts]
    ids = used.union(*(encoding.ids for encoding in cut))
    tokenizer = Tokenizer.from_str(json.dumps(trim_tokenizer(json.loads(whole.tokenizer.to_str()), ids).tokenizer))
    for text, encoding in zip(texts, cut, strict=True):
        assert tokenizer.encode(text, add_special_tokens=False).tokens == encoding.tokens


def test_ids_in_files_follow_their_tokens(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "whole", extra_vocabulary=200)
    chat = load_chat(folder)
    ids = {text: chat.tokenizer.token_to_id(text) for text in ("<|endoftext|>", "<|im_end|>", "<tool_call>")}
    unused = chat.vocab_size - 4
    (folder / "config.json").write_text(json.dumps({"eos_token_id": ids["<|im_end|>"], "bos_token_id": unused}))
    generation = {
        "eos_token_id": [ids["<|im_end|>"], ids["<tool_call>"]],
        "pad_token_id": 10_000,
        "suppress_tokens": [ids["<tool_call>"], unused - 1],
        "temperature": 1,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {str(index): {"content": text} for text, index in ids.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    vocabulary = trim_folder(folder, ids_of(rows_of(chat, [""])[:2]), tmp_path / "out")

    new = load_chat(tmp_path / "out")
    assert vocabulary.kept[new.eos_id] == chat.eos_id
    assert unused in vocabulary.kept  # config.json names it
    found = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    of = new.tokenizer.token_to_id
    assert found["eos_token_id"] == [of("<|im_end|>"), of("<tool_call>")]
    assert (found["pad_token_id"], found["suppress_tokens"], found["temperature"]) == (None, [of("<tool_call>")], 1)
    assert new.stop_ids == {of("<|im_end|>"), of("<tool_call>")}
    decoder = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert decoder == {str(of(text)): {"content": text} for text in ids}
    assert new.template == chat.template


def test_post_processors_follow_too(whole: ChatFormat) -> None:
    value = json.loads(whole.tokenizer.to_str())
    end = whole.eos_id
    piece = {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [piece, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_end|>": {"id": "<|im_end|>", "ids": [end], "tokens": ["<|im_end|>"]}},
    }
    value["post_processor"] = {"type": "Sequence", "processors": [template]}
    value["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
    value["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}
    # byte tokens first, so that special ids move
    words = sorted(value["model"]["vocab"], key=lambda text: (text.startswith("<|"), value["model"]["vocab"][text]))
    value["model"]["vocab"] = {text: index for index, text in enumerate(words)}
    for token in value["added_tokens"]:
        token["id"] = value["model"]["vocab"].get(token["content"], token["id"])
    value["padding"]["pad_id"] = value["model"]["vocab"]["<|endoftext|>"]
    template["special_tokens"]["<|im_end|>"]["ids"] = [value["model"]["vocab"]["<|im_end|>"]]  # type: ignore[index]
    tokenizer = Tokenizer.from_str(json.dumps(trim_tokenizer(value, []).tokenizer))
    assert tokenizer.encode("off").tokens == ["<|im_end|>", "o", "f", "f"]
    assert tokenizer.encode("off").ids[0] == tokenizer.token_to_id("<|im_end|>") > 255
    assert tokenizer.padding is not None
    assert tokenizer.padding["pad_id"] == tokenizer.token_to_id("<|endoftext|>")


def test_other_tokenizers_are_refused(whole: ChatFormat) -> None:
    value: dict[str, Any] = json.loads(whole.tokenizer.to_str())
    with pytest.raises(RecipeError, match=r"BPE with byte_fallback\. Set student\.vocabulary: full"):
        trim_tokenizer(value | {"model": value["model"] | {"byte_fallback": True}}, [])
    with pytest.raises(RecipeError, match=r"x\.json is BPE without a ByteLevel pre-tokenizer"):
        trim_tokenizer(value | {"pre_tokenizer": None}, [], "x.json")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_cut_model_answers_as_the_whole_one(tmp_path: Path, architecture: str, tied: bool) -> None:
    """Logits of the kept tokens are the same numbers, before and after it was saved."""
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
    """The divergence is that of the whole model's distributions, each over the kept tokens alone."""
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
        learner = Learner(student, Objective(teacher, kept=vocabulary.kept), len(vocabulary.kept), False)
        assert float(learner(batch).divergence) == pytest.approx(expected, rel=1e-4)


def small_run(folder: Path, workload: Path, **student: Any) -> tuple[Recipe, Path]:
    """A teacher, rows it is taken to have answered, and the result of training on them."""
    teacher = make_model(folder / "teacher", context=256)
    given = {"prompts": workload / "train.jsonl", "test": workload / "test.jsonl"}
    recipe = Recipe.model_validate(
        {
            "name": "lights",
            "data": given,
            "chat": {"context": 256},
            "teacher": {"model": str(teacher)},
            "student": {"vocabulary": "workload"} | student,
            "train": {"epochs": 1, "tracker": "none", "objective": "jsd"},
            "export": {"quantization": "Q8_0"},
        }
    )
    out = folder / "trained"
    out.mkdir()
    train.run(recipe, teacher, None, workload, None, out)
    return recipe, out


def test_a_run_trains_and_ships_the_trimmed_student(tmp_path: Path, workload: Path) -> None:
    recipe, out = small_run(tmp_path, workload, layers=2, ffn=64)
    whole, chat = load_chat(tmp_path / "teacher"), load_chat(out / "student")
    kept = json.loads((out / "kept.json").read_text())
    summary = json.loads((out / "summary.json").read_text())
    assert summary["vocabulary"] == len(kept) == chat.vocab_size < whole.vocab_size
    assert load_causal_lm(out / "control").config.vocab_size == len(kept)

    (tmp_path / "export").mkdir()
    export.run(recipe, out, workload, tmp_path / "export")  # it compares file and checkpoint in llama.cpp
    texts = [*filter(None, ODD_TEXTS), *(chat.tokenizer.decode(list(e.ids)) for e in rows_of(chat, ["", "quickly "]))]
    with GGUFServer(tmp_path / "export" / "lights-Q8_0.gguf", context=256) as server:
        assert server.vocab_size == len(kept)
        assert [server.tokenize(text) for text in texts] == [chat.encode(text) for text in texts]


def test_a_student_from_scratch_has_the_trimmed_vocabulary(tmp_path: Path, workload: Path) -> None:
    shape = {"layers": 1, "hidden": 32, "ffn": 48, "heads": 2}
    _, out = small_run(tmp_path, workload, init="scratch", shape=shape)
    student, chat = load_causal_lm(out / "student"), load_chat(out / "student")
    assert student.config.vocab_size == chat.vocab_size == len(json.loads((out / "kept.json").read_text()))
    assert student.config.eos_token_id == chat.eos_id


def test_fidelity_is_measured_over_the_kept_tokens(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("[0, 2, 3]")
    texts = [_Text((2, 3, 0), 1), _Text((2, 1), 1)]
    expected = [np.log([[0.1, 0.5, 0.2, 0.2], [0.2, 0.2, 0.3, 0.3]]), np.log([[0.25] * 4])]
    (text,), (found_SK,) = _in_vocabulary(texts, expected, tmp_path / "kept.json")
    assert text == _Text((1, 2, 0), 1)  # the other has a token that the student lacks
    np.testing.assert_allclose(np.exp(found_SK), [[0.2, 0.4, 0.4], [0.25, 0.375, 0.375]])
    assert _in_vocabulary(texts, expected, tmp_path / "none.json") == (texts, expected)


def test_stored_targets_are_refused(tmp_path: Path) -> None:
    value = {
        "name": "r",
        "data": {"prompts": "p.jsonl", "test": "t.jsonl"},
        "teacher": {"model": "someone/model"},
        "student": {"layers": 2, "vocabulary": "workload"},
    }
    for kind in ("counts", "top_k"):
        (tmp_path / "r.yaml").write_text(json.dumps(value | {"train": {"targets": {"kind": kind}}}))
        with pytest.raises(RecipeError, match=f"targets of kind {kind} are stored in the teacher's ids"):
            load_recipe(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text(json.dumps(value))
    assert load_recipe(tmp_path / "r.yaml").student.vocabulary == "workload"


@pytest.mark.parametrize("name", ["gpt-2", "deepseek-llm", "falcon"])
def test_real_tokenizers(name: str, shared_data: Path) -> None:
    source = shared_data / "tokenizers" / name / "tokenizer.json"
    if not source.is_file():
        pytest.skip(f"{name} is not there")
    old = Tokenizer.from_file(str(source))
    texts = [json.dumps(row) for row in light_rows(["", "please "])]
    cut = [old.encode(text, add_special_tokens=False) for text in texts]
    vocabulary = trim_tokenizer(json.loads(source.read_text()), (index for e in cut for index in e.ids))
    new = Tokenizer.from_str(json.dumps(vocabulary.tokenizer))
    assert new.get_vocab_size() - len(vocabulary.tokenizer["added_tokens"]) < 500
    for text, encoding in zip(texts, cut, strict=True):
        assert new.encode(text, add_special_tokens=False).tokens == encoding.tokens
    for text in ODD_TEXTS:
        assert new.decode(new.encode(text).ids, skip_special_tokens=False) == old.decode(
            old.encode(text).ids, skip_special_tokens=False
        )
