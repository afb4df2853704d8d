"""The rows of a recipe: their length, and the tokens that a trimmed vocabulary keeps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fixtures import light_rows, write_jsonl
from potstill.components.chat.format import load_chat
from potstill.components.chat.trimming import trim_folder
from potstill.components.sizing import workload
from potstill.components.sizing.workload import Workload, kept_tokens
from potstill.core.errors import DataError, RecipeError
from potstill.core.records import read_rows

if TYPE_CHECKING:
    from workshop import Workshop


def test_a_workload_is_counted_in_the_teachers_tokens(workshop: Workshop) -> None:
    recipe, chat = workshop.recipe(), load_chat(workshop.model)
    work = Workload.of(recipe, chat)
    assert work.rows == len(workshop.rows("train.jsonl"))
    # the teacher is compared with the student on the test rows
    assert work.answered_rows == work.rows + len(workshop.rows("test.jsonl"))
    assert (work.answer_length, work.answer < recipe.generate.max_new_tokens) == ("as in the test file", True)
    rows = [{key: value for key, value in row.items() if key != "completion"} for row in workshop.rows("test.jsonl")]
    write_jsonl(workshop.test, rows)
    blind = Workload.of(recipe, chat)
    assert (blind.prompt, blind.answer) == (work.prompt, recipe.generate.max_new_tokens / 2)
    # tools are in every prompt, which is what an endpoint charges for
    assert work.prompt > 1.5 * Workload.of(workshop.recipe(data={"tools": None}), chat).prompt
    # so are the prompts of the validation curve
    write_jsonl(workshop.folder / "validation.jsonl", light_rows(["do "])[:5])
    more = Workload.of(workshop.recipe(data={"validation": "validation.jsonl"}), chat)
    assert more.answered_rows == work.answered_rows + 5


def test_a_row_that_the_template_refuses_is_reported(workshop: Workshop) -> None:
    path = workshop.model / "chat_template.jinja"
    path.write_text("{{ raise_exception('no such role') }}" + path.read_text())
    recipe, chat = workshop.recipe(), load_chat(workshop.model)
    for count in (Workload.of, kept_tokens):
        with pytest.raises(DataError, match=r"(train|test)\.jsonl:1: .*no such role.*chat\.template"):
            count(recipe, chat)


def used_by(workshop: Workshop, *files: str, answers_of: str = "") -> set[int]:
    chat, tools = load_chat(workshop.model), workshop.folder / "tools.json"
    used: set[int] = set()
    for file in files:
        for row in read_rows(workshop.folder / file, tools=tools):
            used.update(chat.example(row).ids if row.completion else chat.prompt_ids(row))
    for row in read_rows(workshop.folder / answers_of, tools=tools) if answers_of else ():
        example = chat.example(row)
        used.update(example.ids[example.n_prompt :])
    return used


def test_tokens_that_are_kept_are_what_training_will_keep(workshop: Workshop) -> None:
    write_jsonl(workshop.folder / "validation.jsonl", light_rows(["silently "])[:3])
    recipe, chat = workshop.recipe(data={"validation": "validation.jsonl"}), load_chat(workshop.model)
    used = used_by(workshop, "train.jsonl", "validation.jsonl")
    kept = trim_folder(workshop.model, used, workshop.folder / "trimmed").kept
    found = kept_tokens(recipe, chat)
    assert (found.tokens, found.counted, found.rows, found.note) == (len(kept), 27, 27, None)
    assert kept_tokens(recipe, chat).tokens == len(kept) < chat.vocab_size
    # more than rows and bytes say: what merges pass through is kept too
    single = {index for text, index in chat.tokenizer.get_vocab().items() if len(text) == 1}
    assert len(kept) > len(used | single | set(chat.tokenizer.get_added_tokens_decoder()))
    # rows of the test file are not trained on
    assert len(kept) == kept_tokens(workshop.recipe(data={"validation": "validation.jsonl"}), chat).tokens
    write_jsonl(workshop.test, light_rows(["now would you be so kind as to "]))
    assert kept_tokens(recipe, chat).tokens == len(kept)


def test_tokens_that_end_a_turn_are_kept_too(workshop: Workshop) -> None:
    chat = load_chat(workshop.model)
    before = kept_tokens(workshop.recipe(), chat).tokens
    word = max(index for text, index in chat.tokenizer.get_vocab().items() if not text.startswith("<"))
    assert word not in used_by(workshop, "train.jsonl")
    (workshop.model / "generation_config.json").write_text(json.dumps({"eos_token_id": [chat.eos_id, word]}))
    kept = trim_folder(workshop.model, used_by(workshop, "train.jsonl"), workshop.folder / "trimmed").kept
    assert kept_tokens(workshop.recipe(), load_chat(workshop.model)).tokens == len(kept) > before


def test_answers_that_are_not_there_yet_are_taken_to_be_like_the_tests(workshop: Workshop) -> None:
    prompts = [{key: value for key, value in row.items() if key != "completion"} for row in light_rows([""])]
    write_jsonl(workshop.prompts, prompts)
    recipe, chat = workshop.recipe(), load_chat(workshop.model)
    used = used_by(workshop, "train.jsonl", answers_of="test.jsonl")
    assert used > used_by(workshop, "train.jsonl")
    kept = trim_folder(workshop.model, used, workshop.folder / "trimmed").kept
    assert kept_tokens(recipe, chat).tokens == len(kept)


def test_a_count_on_a_sample_says_so(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, chat = workshop.recipe(), load_chat(workshop.model)
    whole = kept_tokens(recipe, chat)
    monkeypatch.setattr(workload, "_MAX_ROWS", 10)
    part = kept_tokens(recipe, chat)
    assert (part.counted, part.rows) == (8, 24) and part.tokens <= whole.tokens
    assert part.note and "counted on 8 of 24 rows" in part.note


def test_a_tokenizer_that_cannot_be_trimmed_is_not_counted(workshop: Workshop) -> None:
    path = workshop.model / "tokenizer.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"pre_tokenizer": {"type": "Whitespace"}}))
    with pytest.raises(RecipeError, match=r"the tokenizer of .*teacher is BPE with neither a ByteLevel"):
        kept_tokens(workshop.recipe(), load_chat(workshop.model))
