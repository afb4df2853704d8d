"""What the runtime tests share: models of `chain_models`, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain_models import CALL, make_chain_model, make_random_model, to_gguf


@pytest.fixture(scope="session")
def chain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the model that follows `CHAINS`; its F32 files are beside it, with suffixes .gguf and .plain.gguf."""
    folder = make_chain_model(tmp_path_factory.mktemp("models") / "chain")
    to_gguf(folder)
    to_gguf(folder, "plain")
    return folder


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random model; its F32 file is beside it, with suffix .gguf."""
    folder = make_random_model(tmp_path_factory.mktemp("models") / "random")
    to_gguf(folder)
    return folder


@pytest.fixture(scope="session")
def call() -> str:
    """What the chain model says after ChatML's generation prompt."""
    return CALL
