"""A trimmed tokenizer cuts its workload as before, writes any other text too, and is refused where it could not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, trainers

from fixtures import SHARED, light_rows, make_tokenizer
from potstill.components.chat.format import ChatFormat, Example, load_chat
from potstill.components.chat.trimming import Vocabulary, kept_ids, require_trimmable, trim_folder, trim_tokenizer
from potstill.core.errors import RecipeError
from potstill.core.records import Row

ODD_TEXTS = [
    "",
    " ",
    "  two",
    "naïve café, e\u0301",
    "日本語のテキスト",
    "🙂 👩‍👩‍👧‍👦",
    "\x00\x7f\r\n",
    "<|im_end|>x<tool_call>",
    "<0x0A></s><unk>",
    "▁ and ▁",
    "kitchenette",
]
ANY_TEXT = st.one_of(
    st.text(), st.lists(st.sampled_from([*ODD_TEXTS, "kitchen", "the ", "off", "qzX"]), max_size=6).map("".join)
)
REAL = {
    name: SHARED / "tokenizers" / name / "tokenizer.json"
    for name in ("gpt-2", "deepseek-llm", "falcon", "llama-spm", "phi-3")
} | {"bitllama-3M": SHARED / "models" / "bitllama-3M" / "tokenizer.json"}


def rows_of(chat: ChatFormat, polites: list[str]) -> list[Example]:
    return [chat.example(Row.model_validate(row)) for row in light_rows(polites)]


def load(vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(vocabulary.tokenizer))


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def there_and_back(tokenizer: Tokenizer, text: str) -> str:
    return str(tokenizer.decode(encode(tokenizer, text), skip_special_tokens=False))


def tokens(chat: ChatFormat, ids: list[int] | tuple[int, ...]) -> list[str | None]:
    return [chat.tokenizer.id_to_token(index) for index in ids]


def byte_fallback_json() -> dict[str, Any]:
    """A small tokenizer in the manner of Llama 2's, with the characters that `light_rows` and a few others need."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    special = ["<unk>", "<s>", "</s>"]
    made = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*special, *made], show_progress=False)
    # a word apiece, as SentencePiece learns them
    words = [word for row in light_rows(["", "please "]) for word in json.dumps(row).split()]
    tokenizer.train_from_iterator([*words, "größer", "naïve", "日本語", "日本", "0x0A", "0x0A>"] * 2, trainer)
    value: dict[str, Any] = json.loads(tokenizer.to_str())
    value["added_tokens"] = [token for token in value["added_tokens"] if token["content"] in special]
    return value


@pytest.fixture(scope="module")
def fallback() -> dict[str, Any]:
    return byte_fallback_json()


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


@given(text=ANY_TEXT)
def test_any_text_comes_back(trimmed: tuple[Vocabulary, Tokenizer], text: str) -> None:
    assert there_and_back(trimmed[1], text) == text


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
    vocabulary = trim_folder(folder, (i for row in rows_of(chat, [""])[:2] for i in row.ids), tmp_path / "out")

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


# ---- byte fallback ----


@given(used=st.sets(st.integers(0, 700)), texts=st.lists(st.text(alphabet='kitchen of"{größ日本:a', max_size=30)))
def test_byte_fallback_cuts_texts_of_kept_tokens_as_before(
    fallback: dict[str, Any], used: set[int], texts: list[str]
) -> None:
    old = Tokenizer.from_str(json.dumps(fallback))
    cut = [old.encode(text, add_special_tokens=False) for text in texts]
    new = load(trim_tokenizer(fallback, used.union(*(encoding.ids for encoding in cut))))
    for text, encoding in zip(texts, cut, strict=True):
        assert new.encode(text, add_special_tokens=False).tokens == encoding.tokens


def test_byte_fallback_keeps_bytes_and_what_people_type(fallback: dict[str, Any]) -> None:
    old = Tokenizer.from_str(json.dumps(fallback))
    vocabulary = trim_tokenizer(fallback, encode(old, "off in the kitchen"))
    kept = load(vocabulary).get_vocab()
    assert {f"<0x{value:02X}>" for value in range(256)} | {"<unk>", "<s>", "</s>", "▁"} <= kept.keys()
    assert all(text in kept for text in old.get_vocab() if len(text) == 1 and text.isascii())
    assert {"ö", "日", "日本"} & old.get_vocab().keys() and not {"ö", "日", "日本"} & kept.keys()
    # a byte that a row uses is no word of six characters, with pieces of its own
    assert "0x" in old.get_vocab() or "x0" in old.get_vocab()
    newline = kept_ids(fallback, encode(old, "\n"))
    assert newline == kept_ids(fallback, encode(old, " "))
    # what was one token is written in bytes, and read again
    assert [t for t in load(vocabulary).encode("日").tokens if t != "▁"] == ["<0xE6>", "<0x97>", "<0xA5>"]
    assert there_and_back(load(vocabulary), "日本") == "日本"


@given(text=ANY_TEXT)
def test_byte_fallback_reads_any_text_as_the_whole_tokenizer(fallback: dict[str, Any], text: str) -> None:
    old = Tokenizer.from_str(json.dumps(fallback))
    new = load(trim_tokenizer(fallback, []))
    assert there_and_back(new, text) == there_and_back(old, text)
    assert "<unk>" in text or new.token_to_id("<unk>") not in encode(new, text)


# ---- tokens that something names ----


def test_what_a_configuration_or_the_post_processor_names_is_kept(tmp_path: Path) -> None:
    """Words of the vocabulary that no row uses and that are not added tokens."""
    folder = make_tokenizer(tmp_path / "whole", extra_vocabulary=200)
    value = json.loads((folder / "tokenizer.json").read_text())
    words = [text for text in value["model"]["vocab"] if len(text) > 2 and not text.startswith("<|")]
    pad, extra, first = words[-3:]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"pad_token": {"content": pad}, "additional_special_tokens": [extra]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    value["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {first: {"id": first, "ids": [value["model"]["vocab"][first]], "tokens": [first]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(value))
    trim_folder(folder, [], tmp_path / "out")
    new = load_chat(tmp_path / "out").tokenizer
    assert {pad, extra, first} <= new.get_vocab().keys() and words[-4] not in new.get_vocab()
    assert new.encode("off").tokens[0] == first


# ---- refusals ----


def without(*keys: str, **changes: Any) -> Any:
    """A change of tokenizer.json's model: words left out, settings put in."""

    def change(value: dict[str, Any]) -> dict[str, Any]:
        vocab = {text: index for text, index in value["model"]["vocab"].items() if text not in keys}
        return value | {"model": value["model"] | {"vocab": vocab} | changes}

    return change


REFUSED = {
    "byte_fallback and a ByteLevel pre-tokenizer": ("byte-level", without(byte_fallback=True)),
    "neither a ByteLevel pre-tokenizer nor byte_fallback": ("byte-level", lambda v: v | {"pre_tokenizer": None}),
    "BPE with dropout": ("byte-level", without(dropout=0.1)),
    "BPE with end_of_word_suffix": ("fallback", without(end_of_word_suffix="</w>")),
    "of kind Unigram": ("fallback", without(type="Unigram")),
    "of kind WordLevel": ("byte-level", without(type="WordLevel")),
    "lacks 2 of the 256 byte tokens": ("fallback", without("<0x0A>", "<0xFF>")),
    "whose decoder does not join bytes": ("fallback", lambda v: v | {"decoder": None}),
    "merges byte tokens": ("fallback", without(merges=[["<0x0A>", "<0x0A>"]])),
}


@pytest.mark.parametrize("said", REFUSED)
def test_other_tokenizers_are_refused_by_name(whole: ChatFormat, fallback: dict[str, Any], said: str) -> None:
    kind, change = REFUSED[said]
    value = change(json.loads(whole.tokenizer.to_str()) if kind == "byte-level" else fallback)
    for refuse in (require_trimmable, lambda *args: trim_tokenizer(args[0], [], args[1])):
        with pytest.raises(RecipeError) as caught:
            refuse(value, "x.json")
        message = str(caught.value)
        assert f"x.json is {said}" in message or (said in message and "x.json is BPE with" in message)
        assert message.startswith("student.vocabulary: ") and message.endswith(
            "take student.vocabulary out of the recipe."
        )


def test_added_tokens_that_would_change_their_ids_are_refused_before_any_row(whole: ChatFormat) -> None:
    """The library gives an added token that the vocabulary lacks the next id after it, whatever the file says."""
    value = json.loads(whole.tokenizer.to_str())
    require_trimmable(value)
    added = value["added_tokens"]
    swapped = value | {"added_tokens": [*added[:-2], added[-1], added[-2]]}
    vocab = value["model"]["vocab"]
    free = max(vocab.values()) + 1
    moved = {text: free + 10 if index == 100 else index for text, index in vocab.items()}
    amidst = value | {"model": value["model"] | {"vocab": moved}}
    for broken in (swapped, amidst):
        with pytest.raises(RecipeError, match=r"x\.json: renumbered, some tokens get other ids"):
            require_trimmable(broken, "x.json")
    # and it is what the library does
    assert Tokenizer.from_str(json.dumps(swapped)).token_to_id(added[-1]["content"]) != added[-1]["id"]


# ---- tokenizers of published models ----


def real(name: str) -> dict[str, Any]:
    if not REAL[name].is_file():
        pytest.skip(f"{name} is not beside the checkout")
    return dict(json.loads(REAL[name].read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers(name: str) -> None:
    value = real(name)
    old = Tokenizer.from_str(json.dumps(value))
    texts = [json.dumps(row) for row in light_rows(["", "please "])]
    cut = [old.encode(text, add_special_tokens=False) for text in texts]
    vocabulary = trim_tokenizer(value, (index for e in cut for index in e.ids))
    new = load(vocabulary)
    assert new.get_vocab_size() - len(vocabulary.tokenizer["added_tokens"]) < 500
    assert {token["content"] for token in value["added_tokens"]} <= new.get_vocab().keys()
    for text, encoding in zip(texts, cut, strict=True):
        found = new.encode(text, add_special_tokens=False)
        assert found.tokens == encoding.tokens
        assert [vocabulary.kept[index] for index in found.ids] == encoding.ids

    @settings(max_examples=60)
    @given(text=ANY_TEXT)
    def any_text(text: str) -> None:
        assert there_and_back(new, text) == there_and_back(old, text)

    any_text()


@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers_cut_any_workload_as_before(name: str) -> None:
    value = real(name)
    old = Tokenizer.from_str(json.dumps(value))

    @settings(max_examples=15)
    @given(texts=st.lists(ANY_TEXT, min_size=1, max_size=4))
    def any_workload(texts: list[str]) -> None:
        cut = [encode(old, text) for text in texts]
        vocabulary = trim_tokenizer(value, (index for ids in cut for index in ids))
        new = load(vocabulary)
        assert [[vocabulary.kept[index] for index in encode(new, text)] for text in texts] == cut

    any_workload()
