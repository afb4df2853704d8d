"""One rendering everywhere: equal to that of transformers, with prompt and answer clearly separated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures import TOOLS, light_row, light_rows, make_tokenizer
from potstill.components.chat.format import ChatFormat, load_chat
from potstill.core.errors import RecipeError
from potstill.core.records import Message, Row

CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": "Hello, who are you?"},
    {"role": "assistant", "content": "A helper."},
    {"role": "user", "content": 'Say "naïve", please: 10 < 20 & é'},
]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    return load_chat(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def row(**changes: Any) -> Row:
    return Row.model_validate(light_row("attic", "on") | {"tools": TOOLS} | changes)


@pytest.mark.parametrize("generate", [True, False])
@pytest.mark.parametrize("system", [True, False])
def test_public_templates_render_as_transformers_renders_them(shared_data: Path, generate: bool, system: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [*([{"role": "system", "content": "Be brief."}] if system else []), *CONVERSATION]
    compared = 0
    for path in sorted((shared_data / "chat_templates").glob("*.jinja")):
        source = path.read_text()
        chat = ChatFormat.__new__(ChatFormat)
        chat.template, chat.bos, chat.eos = source, "<s>", "</s>"
        try:
            theirs = render_jinja_template(
                [messages], chat_template=source, add_generation_prompt=generate, bos_token="<s>", eos_token="</s>"
            )[0][0]
        except Exception:  # some templates refuse a system message: then so must ours
            with pytest.raises(ValueError, match="cannot render"):
                chat.render(tuple(Message.model_validate(m) for m in messages), generate=generate)
            continue
        ours = chat.render(tuple(Message.model_validate(m) for m in messages), generate=generate)
        assert ours == theirs, path.name
        compared += 1
    assert compared >= 10


def test_prompt_is_masked_and_the_end_token_is_learnt(chat: ChatFormat) -> None:
    example = chat.example(row())
    assert list(example.ids[: example.n_prompt]) == chat.prompt_ids(row())
    assert example.ids[-1] == chat.eos_id
    assert example.eos_supervised
    said = chat.decode(list(example.ids[example.n_prompt :]), after=list(example.ids[: example.n_prompt]))
    assert said == '<tool_call>\n{"name": "set_light", "arguments": {"room": "attic", "state": "on"}}\n</tool_call>'


def test_an_unfinished_answer_does_not_teach_to_stop(chat: ChatFormat) -> None:
    whole, cut = chat.example(row()), chat.example(row(provenance={"finish_reason": "length"}))
    assert cut.ids == whole.ids[:-1]
    assert not cut.eos_supervised


def test_template_that_changes_the_prompt_once_answered_is_refused(chat: ChatFormat) -> None:
    fickle = "{{ messages | length }}" + chat.template
    with pytest.raises(ValueError, match="renders the prompt differently"):
        ChatFormat(chat.tokenizer, fickle, None, chat.eos).example(row())


def test_answer_that_merges_into_the_prompt_is_refused(chat: ChatFormat) -> None:
    joined = "{% for m in messages %}{{ m.content }}{% endfor %}"
    merged = Row.model_validate(
        {"messages": [{"role": "user", "content": "stat"}], "completion": {"role": "assistant", "content": "e"}}
    )
    assert len(chat.encode("state")) < len(chat.encode("stat"))
    with pytest.raises(ValueError, match="merge into one token"):
        ChatFormat(chat.tokenizer, joined, None, chat.eos).example(merged)


def test_sentencepiece_answer_keeps_its_first_space(shared_data: Path) -> None:
    chat = load_chat(shared_data / "models" / "stories260K", "plain")
    before = chat.encode("<s>Once upon a time")
    whole = chat.encode("<s>Once upon a time there was")
    assert chat.decode(whole[len(before) :], after=before) == " there was"


def test_tokenizer_hash_is_of_meaning_not_of_file(tmp_path: Path, chat: ChatFormat) -> None:
    again, other = make_tokenizer(tmp_path / "again"), make_tokenizer(tmp_path / "other", extra_vocabulary=5)
    assert load_chat(again).tokenizer_hash == chat.tokenizer_hash
    assert load_chat(other).tokenizer_hash != chat.tokenizer_hash


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("chat_template.jinja", None, "no chat template"),
        ("tokenizer_config.json", "{}", "names no eos_token"),
        ("tokenizer_config.json", '{"eos_token": "<nowhere>"}', "no token '<nowhere>'"),
        ("tokenizer.json", None, r"no tokenizer\.json"),
        ("tokenizer.json", "{", "cannot be read as a tokenizer"),
    ],
)
def test_broken_tokenizer_folders_are_told(tmp_path: Path, file: str, content: str | None, message: str) -> None:
    folder = make_tokenizer(tmp_path / "t")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(RecipeError, match=message):
        load_chat(folder)


def test_rows_render_the_same_from_file_and_from_memory(chat: ChatFormat) -> None:
    rows = [Row.model_validate(r) for r in light_rows([""])]
    assert len({tuple(chat.prompt_ids(r)) for r in rows}) == len(rows)
