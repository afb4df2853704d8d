"""Files of a tokenizer that other programs wrote: each value of a wrong type is named, and nothing else fails."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures import make_tokenizer
from potstill.components.chat.format import load_chat
from potstill.core.errors import RecipeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer's folder, to be damaged."""
    return make_tokenizer(tmp_path / "tokenizer")


def change(folder: Path, name: str, **values: Any) -> None:
    """Set keys of a JSON file."""
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eos_token", ["</s>"]),
        ("bos_token", {"text": "<s>"}),
        ("pad_token", 0),
        ("additional_special_tokens", 3),
        ("extra_special_tokens", {"image": 4}),
        ("added_tokens_decoder", {"x": {"content": "a"}}),
        ("chat_template", 7),
        ("chat_template", [{"name": "default"}]),
        ("chat_template", {"default": ["x"]}),
    ],
)
def test_wrong_type_in_tokenizer_config(folder: Path, key: str, value: object) -> None:
    change(folder, "tokenizer_config.json", **{key: value})
    with pytest.raises(RecipeError, match=rf"tokenizer_config\.json: {key} must be .*, found"):
        load_chat(folder)


@pytest.mark.parametrize("value", ["</s>", True, 2.0, [1, "2"], {"a": 1}, [[1]]])
def test_wrong_type_of_token_ids(folder: Path, value: object) -> None:
    change(folder, "generation_config.json", eos_token_id=value)
    with pytest.raises(RecipeError, match=r"generation_config\.json: eos_token_id must be a token id or a list"):
        load_chat(folder)


@pytest.mark.parametrize(("value", "ids"), [(0, [0]), ([0, 1], [0, 1]), (None, [])])
def test_token_ids_of_each_form(folder: Path, value: object, ids: list[int]) -> None:
    change(folder, "generation_config.json", eos_token_id=value)
    chat = load_chat(folder)
    assert chat.stop_ids == {chat.eos_id, *ids}


def test_special_token_with_control_characters_is_not_printed(folder: Path) -> None:
    change(folder, "tokenizer_config.json", eos_token="\x1b[31m" + "x" * 5000)
    with pytest.raises(RecipeError) as error:
        load_chat(folder)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "damage",
    [
        lambda tokenizer: tokenizer | {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []},
        lambda tokenizer: tokenizer | {"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "absent"}},
        lambda tokenizer: tokenizer | {"model": tokenizer["model"] | {"vocab": {"a": 4_000_000_000}, "merges": []}},
        lambda tokenizer: tokenizer | {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}}},
        lambda tokenizer: tokenizer | {"added_tokens": [1]},
        lambda tokenizer: [],
    ],
    ids=["empty", "no unknown token", "huge id", "pattern", "added", "list"],
)
def test_damaged_tokenizer_is_one_paragraph(folder: Path, damage: Any) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(RecipeError, match=r"tokenizer\.json") as error:
        load_chat(folder)
    assert "\n" not in str(error.value)


def test_template_that_is_not_text(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=r"chat_template\.jinja: not UTF-8"):
        load_chat(folder)


def with_pattern(folder: Path, pattern: str) -> None:
    """Cut text at matches of a pattern before all else."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, tokenizer["pre_tokenizer"]]}
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize("pattern", ["(a+a+)+b", "(a|aa)+b", "(é+é+)+y"])
def test_pattern_that_takes_exponential_time(folder: Path, pattern: str) -> None:
    with_pattern(folder, pattern)
    begun = time.monotonic()
    with pytest.raises(RecipeError, match=r"tokenizer\.json: cannot be read as a tokenizer .*retry-limit"):
        load_chat(folder)
    assert time.monotonic() - begun < 10


def test_pattern_that_takes_long_below_the_limit_of_the_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_pattern(folder, "(a|aa)+b")
    monkeypatch.setattr("potstill.components.chat.tokenizer_files._PROBE_LENGTH", 30)
    monkeypatch.setattr("potstill.components.chat.tokenizer_files._PROBE_SECONDS", 0.01)
    with pytest.raises(RecipeError, match="30 times 'a' take more than 0 s to encode"):
        load_chat(folder)


def test_pattern_that_is_slow_on_a_row(folder: Path) -> None:
    with_pattern(folder, "(x+x+)+y")
    chat = load_chat(folder)
    assert chat.decode(chat.encode("x marks"), []) == "x marks"
    with pytest.raises(ValueError, match=r"the tokenizer cannot encode this text .*retry-limit"):
        chat.encode("x" * 100)
