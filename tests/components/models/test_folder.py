"""A model is a folder, or comes from the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.components.models.folder import resolve_model
from potstill.core.errors import RecipeError


def test_missing_models_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such model folder"):
        resolve_model(str(tmp_path / "nowhere"))
    with pytest.raises(RecipeError, match=r"no config\.json"):
        resolve_model(str(tmp_path))
    with pytest.raises(RecipeError, match="the hub did not give it"):
        resolve_model("someone/some-model-that-is-not-there")
