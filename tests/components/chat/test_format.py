"""One rendering everywhere: equal to that of transformers, with prompt and answer clearly separated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures import TOOLS, UNFINISHED, light_row, light_rows, make_tokenizer
from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.chat.variables import write_variables
from potstill.core.errors import RecipeError
from potstill.core.records import Message, Row, read_rows, write_rows

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
@pytest.mark.parametrize("tools", [(), tuple(TOOLS)], ids=["", "tools"])
def test_public_templates_render_as_transformers_renders_them(
    shared_data: Path, chat: ChatFormat, generate: bool, system: bool, tools: tuple[dict[str, Any], ...]
) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [*([{"role": "system", "content": "Be brief."}] if system else []), *CONVERSATION]
    given = tuple(Message.model_validate(m) for m in messages)
    tokens = {"pad_token": "<pad>", "unk_token": "<unk>"}
    variables: dict[str, Any] = {"date_string": "31 Jan 2026", "enable_thinking": False}
    compared = 0
    for path in sorted((shared_data / "chat_templates").glob("*.jinja")):
        source = path.read_text()
        ours = ChatFormat(chat.tokenizer, write_variables(source, variables, tokens), "<|endoftext|>", chat.eos)
        try:
            theirs = render_jinja_template(
                [messages],
                tools=list(tools) or None,
                chat_template=source,
                add_generation_prompt=generate,
                bos_token="<|endoftext|>",
                eos_token=chat.eos,
                **tokens,
                **variables,
            )[0][0]
        except Exception:  # some templates refuse a system message: then so must ours
            with pytest.raises(ValueError, match="cannot render"):
                ours.render(given, tools, generate=generate)
            continue
        assert ours.render(given, tools, generate=generate) == theirs, path.name
        compared += 1
    assert compared >= 10


TRICKY = (
    "{{ tools | tojson(separators=(',', ':')) }}",
    "{{ tools | tojson(sort_keys=true) }}",
    "{{ tools | tojson(ensure_ascii=true) }}",
    "{{ tools | tojson(indent=1) }}",
    "{{ tools is defined }}{{ documents is defined }}{{ tools is none }}{{ documents }}",
    "[{{ pad_token }}{{ unk_token }}]",
    "{% for m in messages %}{% generation %}{% set x = m.content %}{{ x }}\n{% endgeneration %}\n{{ x }}{% endfor %}",
    "\n\n {{ pad_token }}",
)


@pytest.mark.parametrize("source", TRICKY)
@pytest.mark.parametrize("tools", [(), ({"name": "f", "description": "é", "a": 1.0},)], ids=["", "tools"])
def test_all_helpers_of_transformers_are_there(tmp_path: Path, source: str, tools: tuple[dict[str, Any], ...]) -> None:
    from transformers import AutoTokenizer

    folder = make_tokenizer(tmp_path / "t")
    (folder / "chat_template.jinja").write_text(source)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"pad_token": "<|endoftext|>", "unk_token": "<|im_start|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "hi"}], tools=list(tools) or None, tokenize=False
    )
    assert load_chat(folder).render((Message(role="user", content="hi"),), tools) == theirs


def test_a_template_of_its_own_serves_rows_with_tools(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "t")
    before = load_chat(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("with tools, {{ mood }}")
    chat = load_chat(folder, kwargs={"mood": "calm"})
    user = (Message(role="user", content="hi"),)
    assert chat.render(user, tuple(TOOLS)) == "with tools, calm"
    assert chat.render(user) == before.render(user)
    assert len({before.template_hash, chat.template_hash, load_chat(folder).template_hash}) == 3


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 / 0 }}", "{% break %}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "{{ {}.pop('b') }}", "{{",
        "{% for m in messages %}", "{{ nothing.x.y }}", "{{ [1] | nope }}", "{{ '%z' % 1 }}", "{{ 10 ** 5000 }}",
        "{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "{{ raise_exception('two\n\nparagraphs') }}", "{{ [][3].y }}",
        "{{ 'x'.encode('nope') }}",
    ],
)  # fmt: skip
def test_whatever_a_template_does_is_said_in_one_paragraph(chat: ChatFormat, source: str) -> None:
    broken = ChatFormat(chat.tokenizer, source, None, chat.eos)
    with pytest.raises(ValueError, match=r"^the chat template cannot render this conversation: .+") as caught:
        broken.render((Message(role="user", content="hi"),))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_tags_and_domain_tokens_that_are_special_stay_in_an_answer(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "t")
    parsed = json.loads((folder / "tokenizer.json").read_text())
    texts = [token["content"] for token in parsed["added_tokens"]]
    for token in parsed["added_tokens"]:
        token["special"] = True
    (folder / "tokenizer.json").write_text(json.dumps(parsed))
    chat = load_chat(folder)
    assert "<tool_call>" in texts
    said = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call><|im_start|>'
    assert chat.decode(chat.encode(said + chat.eos + chat.eos), after=chat.encode(f"a{chat.eos}b")) == said


def test_prompt_is_masked_and_the_end_token_is_learnt(chat: ChatFormat) -> None:
    example = chat.example(row())
    assert list(example.ids[: example.n_prompt]) == chat.prompt_ids(row())
    assert example.ids[-1] == chat.eos_id
    assert example.eos_supervised
    said = chat.decode(list(example.ids[example.n_prompt :]), after=list(example.ids[: example.n_prompt]))
    assert said == '<tool_call>\n{"name": "set_light", "arguments": {"room": "attic", "state": "on"}}\n</tool_call>'


@pytest.mark.parametrize("reason", UNFINISHED)
def test_an_unfinished_answer_does_not_teach_to_stop(chat: ChatFormat, tmp_path: Path, reason: str | None) -> None:
    """Also after the row has been in a file, where null must not become absent."""
    cut = row(provenance={"finish_reason": reason})
    write_rows(tmp_path / "rows.jsonl", [cut])
    for each in (cut, *read_rows(tmp_path / "rows.jsonl")):
        found = chat.example(each)
        assert found.ids == chat.example(row()).ids[:-1]
        assert not found.eos_supervised


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call"])
def test_a_whole_answer_teaches_to_stop(chat: ChatFormat, reason: str) -> None:
    assert chat.example(row(provenance={"finish_reason": reason})) == chat.example(row())


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


@pytest.mark.parametrize("part", ["merges", "normalizer", "pre_tokenizer", "added_tokens"])
def test_tokenizers_with_one_vocabulary_are_not_the_same_where_text_gives_other_ids(tmp_path: Path, part: str) -> None:
    first, second = make_tokenizer(tmp_path / "first"), make_tokenizer(tmp_path / "second")
    file = second / "tokenizer.json"
    parsed = json.loads(file.read_text())
    if part == "merges":
        parsed["model"]["merges"] = parsed["model"]["merges"][10:]
    elif part == "normalizer":
        parsed["normalizer"] = {"type": "Lowercase"}
    elif part == "pre_tokenizer":
        digits = {"type": "Digits", "individual_digits": True}
        parsed["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, parsed["pre_tokenizer"]]}
    else:
        parsed["added_tokens"][0]["rstrip"] = True
    file.write_text(json.dumps(parsed))
    ours, theirs = load_chat(first), load_chat(second)
    assert ours.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()
    assert ours.tokenizer_hash != theirs.tokenizer_hash


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
