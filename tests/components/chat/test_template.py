"""Which chat template counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from potstill.components.chat.template import PLAIN_TEMPLATE, own_templates, read_templates
from potstill.core.errors import RecipeError


def test_files_count_before_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "tokenizer_config.json"
    assert own_templates(tmp_path) is None
    named = [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert own_templates(tmp_path) == ("D", None)
    config.write_text(json.dumps({"chat_template": [*named, {"name": "tool_use", "template": "T"}]}))
    assert own_templates(tmp_path) == ("D", "T")
    config.write_text(json.dumps({"chat_template": [{"name": "tool_use", "template": "T"}]}))
    assert own_templates(tmp_path) == ("T", None)
    config.write_text(json.dumps({"chat_template": "C"}))
    assert own_templates(tmp_path) == ("C", None)
    (tmp_path / "chat_template.jinja").write_text("J")
    assert own_templates(tmp_path) == ("J", None)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("U")
    assert own_templates(tmp_path) == ("J", "U")


def test_a_recipe_chooses_the_models_own_a_plain_one_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has no chat template"):
        read_templates(tmp_path, "own")
    assert read_templates(tmp_path, "plain") == (PLAIN_TEMPLATE, None)
    (tmp_path / "mine.jinja").write_text("M")
    assert read_templates(tmp_path, tmp_path / "mine.jinja") == ("M", None)
    with pytest.raises(RecipeError, match=r"chat\.template: .*none\.jinja: no such file"):
        read_templates(tmp_path, tmp_path / "none.jinja")
