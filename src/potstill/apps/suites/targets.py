"""What can be evaluated: a model's folder, a GGUF file, a package, or an OpenAI-compatible endpoint."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.components.runtimes.journaled import Teacher
from potstill.core.artifacts.manifest import Manifest
from potstill.core.artifacts.suite_results import Conditions, EvaluatedModel
from potstill.core.errors import StepError, UsageError
from potstill.core.hashing import fingerprint, hash_file, hash_model
from potstill.core.machine import cpu_cores, cpu_name

__all__ = ["Asking", "Target", "open_target"]

_CONTEXT = 4096
"""Context in tokens of a model that could take more."""


@dataclass(frozen=True)
class Asking:
    """How a model is asked.

    context          limit of prompt and answer together, in tokens; None: the model's own, at most 4,096
    max_new_tokens   limit of an answer, in tokens
    temperature      0 for greedy decoding
    seed             seed of sampling
    batch_size       items that a model's folder decodes together
    parallel         requests at the same time, to llama.cpp or to an endpoint
    threads          threads of llama.cpp; None: one per core
    model            the endpoint's name for the model
    api_key_env      environment variable with the endpoint's key
    """

    context: int | None = None
    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 16
    parallel: int = 4
    threads: int | None = None
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Target:
    """A model that is ready to answer."""

    runtime: Teacher
    model: EvaluatedModel
    conditions: Conditions


@contextmanager
def open_target(name: str, asking: Asking) -> Iterator[Target]:
    """The model, loaded or served, until the end of the block.

    Raises:
        UsageError: there is no such model, or it is none that can be evaluated.
        StepError: it cannot be loaded or served, or a package differs from its manifest.
    """
    path = Path(name)
    if name.startswith(("http://", "https://")):
        yield _endpoint(name, asking)
    elif path.suffix in (".yaml", ".yml"):
        raise UsageError(
            f"{name}: this is a recipe. `potstill run RECIPE --until evaluate` evaluates a recipe; this command takes "
            "a model's folder, a GGUF file, a package or the address of an endpoint."
        )
    elif path.suffix == ".gguf" and path.is_file():
        with _gguf(path, asking) as target:
            yield target
    elif (path / Manifest.FILE).is_file():
        with _gguf(_packaged_file(path), asking) as target:
            yield target
    elif (path / "config.json").is_file():
        yield _folder(path, asking)
    else:
        raise UsageError(
            f"{name}: not a model. Give a model's folder (with config.json), a GGUF file, a package's folder (with "
            f"{Manifest.FILE}), or the address of an OpenAI-compatible endpoint."
        )


def _packaged_file(package: Path) -> Path:
    """The GGUF file of a package that is as its manifest says."""
    from potstill.components.packages.verify import verify_package

    if problems := verify_package(package):
        raise StepError(f"{package}: {problems[0]} What is evaluated must be what was packaged.")
    files = sorted(package.glob("*.gguf"))
    if len(files) != 1:
        raise UsageError(f"{package}: this package has {len(files)} GGUF files, and one is evaluated. Name the file.")
    return files[0]


@contextmanager
def _gguf(path: Path, asking: Asking) -> Iterator[Target]:
    from potstill.components.models.gguf_header import from_gguf, read_header
    from potstill.components.runtimes.gguf import GGUFServer
    from potstill.components.runtimes.gguf_chat import GGUFChat

    spec, template = from_gguf(path), read_header(path).values.get("tokenizer.chat_template")
    context = asking.context or min(spec.context or _CONTEXT, _CONTEXT)
    slots, threads = asking.parallel, asking.threads or cpu_cores()
    conditions = Conditions(
        template=fingerprint({"template": template}),
        runtime="llama.cpp",
        runtime_version=importlib.metadata.version("xllamacpp"),
        processor=cpu_name(),
        quantization=spec.quantization or "mixed",
        batch_size=slots,
        context=context,
        **_sampling(asking),
    )
    with GGUFServer(path, context=context * slots, parallel=slots, threads=threads) as server:
        model = EvaluatedModel(name=path.name, sha256=hash_file(path))
        yield Target(GGUFChat(server, slots), model, conditions)


def _folder(path: Path, asking: Asking) -> Target:
    from potstill.components.chat.format import load_chat
    from potstill.components.runtimes.hf import HFRuntime
    from potstill.components.runtimes.load import load_causal_lm, on_device

    model, chat = on_device(load_causal_lm(path)), load_chat(path)
    own = getattr(model.config, "max_position_embeddings", None) or _CONTEXT
    context = asking.context or min(own, _CONTEXT)
    on_cpu = model.device.type == "cpu"
    conditions = Conditions(
        template=fingerprint({"template": chat.template_hash}),
        runtime="transformers",
        runtime_version=importlib.metadata.version("transformers"),
        processor=cpu_name() if on_cpu else _gpu_name(),
        quantization="F32",
        batch_size=asking.batch_size,
        context=context,
        **_sampling(asking),
    )
    runtime = HFRuntime(model, chat, context, asking.batch_size, by_length=False)
    return Target(runtime, EvaluatedModel(name=path.name, sha256=hash_model(path)), conditions)


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "accelerator"


def _endpoint(address: str, asking: Asking) -> Target:
    from potstill.components.runtimes.endpoint import EndpointRuntime

    if not asking.model:
        raise UsageError(f"{address}: name the model of this endpoint with --model.")
    runtime = EndpointRuntime(address, asking.model, asking.api_key_env, asking.parallel)
    identity = EvaluatedModel(name=asking.model, sha256=fingerprint({"address": address, "model": asking.model}))
    conditions = Conditions(
        template=None,
        runtime="endpoint",
        runtime_version="",
        processor="",
        quantization="",
        batch_size=1,
        context=0,
        **_sampling(asking),
    )
    return Target(runtime, identity, conditions)


def _sampling(asking: Asking) -> dict[str, Any]:
    return {"max_new_tokens": asking.max_new_tokens, "temperature": asking.temperature, "seed": asking.seed}
