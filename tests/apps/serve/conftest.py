"""A package of the model that says what it is told to say, and one server that most tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from chain_models import make_chain_model, to_gguf
from served import Server, make_package, serving


@pytest.fixture(scope="session")
def chain_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain model's file, with room for an answer that takes longer than any test."""
    return to_gguf(make_chain_model(tmp_path_factory.mktemp("served") / "chain", context=131_072))


@pytest.fixture(scope="session")
def package(chain_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that no test may change."""
    return make_package(tmp_path_factory.mktemp("package"), chain_gguf)


@pytest.fixture(scope="session")
def server(package: Path) -> Iterator[Server]:
    """A server with default limits, but for small bodies."""
    with serving(package, "--body-kb=64") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[OpenAI]:
    """OpenAI's client, as its users have it."""
    with OpenAI(base_url=server.url, api_key="unused", max_retries=0, timeout=60) as made:
        yield made
