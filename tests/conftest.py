"""Fixtures that tests share; the network is never used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from endpoints import Endpoint, Script, serve, serve_badly
from fixtures import SHARED, TOOLS, light_rows, make_model, write_jsonl
from potstill.components.hardware import devices
from workshop import Workshop

# a shared machine may be slow for a moment: time is the benchmarks' matter. Examples are the same in every run, so that
# one change in the code is one change in the result; `--hypothesis-profile=default` draws new ones
settings.register_profile("potstill", deadline=None, derandomize=True)
settings.load_profile("potstill")

if "PYTEST_XDIST_WORKER" in os.environ:
    # each core has a process of its own, so more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if not torch.cuda.is_available():
    # read when Triton is first loaded, which other tests may do
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 4-layer Llama with tokenizer and template. Do not write into it."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    """Folder with train, validation and test rows and tools."""
    folder = tmp_path / "workload"
    folder.mkdir()
    (folder / "tools.json").write_text(json.dumps(TOOLS))
    write_jsonl(folder / "train.jsonl", light_rows(["", "please "]))
    write_jsonl(folder / "validation.jsonl", light_rows(["now "])[:6])
    write_jsonl(folder / "test.jsonl", light_rows(["now "])[6:])
    return folder


@pytest.fixture(autouse=True)
def own_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a test measures, or makes up, of this machine out of the user's own cache."""
    monkeypatch.setattr(devices, "_probe_file", lambda: tmp_path / "probe.json")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A small run that is complete, for a test to spoil."""
    folder = tmp_path / "workshop"
    folder.mkdir()
    return Workshop(folder)


@pytest.fixture
def shared_data() -> Path:
    """Real data kept beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return SHARED


@pytest.fixture
def misbehaving() -> Iterator[Callable[[str], str]]:
    """Starts servers that misbehave below HTTP; see `serve_badly`."""
    with ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(serve_badly(behaviour))


@pytest.fixture
def endpoint() -> Iterator[Callable[[Script], Endpoint]]:
    """Starts scripted endpoints."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(serve(script))
