"""Which chat template counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from potstill.components.chat.template import PLAIN_TEMPLATE, own_template, read_template
from potstill.core.errors import RecipeError


def test_the_file_counts_before_the_configuration_and_tool_use_before_default(tmp_path: Path) -> None:
    config = tmp_path / "tokenizer_config.json"
    assert own_template(tmp_path) is None
    named = [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert own_template(tmp_path) == "D"
    config.write_text(json.dumps({"chat_template": [*named, {"name": "tool_use", "template": "T"}]}))
    assert own_template(tmp_path) == "T"
    config.write_text(json.dumps({"chat_template": "C"}))
    assert own_template(tmp_path) == "C"
    (tmp_path / "chat_template.jinja").write_text("J")
    assert own_template(tmp_path) == "J"


def test_a_recipe_chooses_the_models_own_a_plain_one_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has no chat template"):
        read_template(tmp_path, "own")
    assert read_template(tmp_path, "plain") == PLAIN_TEMPLATE
    (tmp_path / "mine.jinja").write_text("M")
    assert read_template(tmp_path, tmp_path / "mine.jinja") == "M"
    with pytest.raises(RecipeError, match=r"chat\.template: .*none\.jinja: no such file"):
        read_template(tmp_path, tmp_path / "none.jinja")
