"""The policy in force: read, bound to what is served, and asked about each answer."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Literal

from potstill.components.models.gguf_header import read_header
from potstill.core.artifacts.policy import Bound, Policy, policy_digest
from potstill.core.errors import StepError
from potstill.core.files import read_json_object

__all__ = ["bound_to", "read_policy", "void_reasons"]

_TEMPLATE = "tokenizer.chat_template"
_ADVICE, _AGAIN = "calibrate the package again", "Calibrate the package again."
VoidReason = Literal["model", "quantization", "template", "runtime"]


def bound_to(model: Path, model_sha256: str, quantization: str) -> Bound:
    """What a policy for this file on this machine is bound to."""
    template = str(read_header(model).values.get(_TEMPLATE, ""))
    return Bound(
        model_sha256=model_sha256,
        quantization=quantization,
        template_sha256=hashlib.sha256(template.encode()).hexdigest(),
        runtime=f"llama.cpp of xllamacpp {importlib.metadata.version('xllamacpp')}",
    )


def read_policy(path: Path) -> Policy:
    """A policy from its file.

    Raises:
        StepError: the file is absent or broken, its format is unknown, or a byte of it has changed.
    """
    policy = Policy.read_file(path, _ADVICE)
    value = read_json_object(path, error=StepError)
    try:
        whole = value.get("sha256") == policy_digest(value)
    except ValueError:  # a NaN, which no policy is written with
        whole = False
    if not whole:
        raise StepError(f"{path}: the policy has changed since it was written, and its promise is gone. {_AGAIN}")
    return policy


def void_reasons(policy: Policy, found: Bound) -> tuple[VoidReason, ...]:
    """What differs from what the policy was made for; empty where the policy is in force."""
    differs: dict[VoidReason, bool] = {
        "model": policy.bound.model_sha256 != found.model_sha256,
        "quantization": policy.bound.quantization != found.quantization,
        "template": policy.bound.template_sha256 != found.template_sha256,
        "runtime": policy.bound.runtime != found.runtime,
    }
    return tuple(name for name, differs_here in differs.items() if differs_here)
