"""Hostile bodies of HTTP requests, and hostile policy and count files, for `potstill serve`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixtures import TOOLS
from fuzz.harness import Make
from fuzz.mutate import damaged_json, written
from potstill.apps.serve.errors import ApiError
from potstill.apps.serve.requests import parse_chat, parse_completion
from potstill.components.deferral.policy import read_policy
from potstill.core.artifacts.base import Artifact
from potstill.core.artifacts.drift import DriftAlarm, DriftCounts
from potstill.core.artifacts.policy import Bound, DriftReference, Policy
from potstill.core.errors import DataError

__all__ = ["SERVED_KINDS"]

_SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^x+$"}, "b": {"$ref": "#/$defs/c"}}}
_SCHEMA["$defs"] = {"c": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}
_CHATS: list[dict[str, Any]] = [
    {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True, "temperature": 0.5},
    {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}], "tools": TOOLS,
     "tool_choice": {"type": "function", "function": {"name": "set_light"}}, "logprobs": True, "top_logprobs": 2},
    {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 9, "seed": 1,
     "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}},
]  # fmt: skip
_POLICY = Policy(
    package="m", bound=Bound(model_sha256="a" * 64, quantization="Q8_0", template_sha256="b" * 64, runtime="x"),
    score="mean", excess_aurc={"mean": 0.1}, threshold=-0.5, promise="selective", alpha=0.05, delta=0.05, chosen_on=1,
    tested_on=2, served=1, wrong=0, p_value=0.01, risk=0.1, abstain=0.0, below="defer", offline="defer",
    reference=DriftReference(score_edges=(0.1,), length_edges=(3.0,), counts={"score": (1, 2, 0)}),
)  # fmt: skip
_COUNTS = DriftCounts(
    policy_sha256="a", total={"score": (1, 2)}, alarms=(DriftAlarm(feature="score", block=1, p_value=0.001),)
)


def _requests(r: random.Random, folder: Path) -> Callable[[], object]:
    """What is parsed must also be something that llama.cpp can be asked: JSON."""
    chat = r.random() < 0.8
    value = r.choice(_CHATS) if chat else {"model": "m", "prompt": "a", "max_tokens": 3, "logprobs": 2}
    body = damaged_json(r, value)

    def call() -> None:
        try:
            request = parse_chat(body, "m") if chat else parse_completion(body, "m")
        except ApiError as error:
            raise DataError(str(error)) from None
        json.dumps(request.upstream(100), allow_nan=False).encode()

    return call


def _policies(r: random.Random, folder: Path) -> Callable[[], object]:
    path = written(folder / Policy.FILE, _maybe_damaged(r, _POLICY))
    return lambda: read_policy(path)


def _counts(r: random.Random, folder: Path) -> Callable[[], object]:
    path = written(folder / DriftCounts.FILE, _maybe_damaged(r, _COUNTS))
    return lambda: DriftCounts.read_file(path, "give another file")


def _maybe_damaged(r: random.Random, artifact: Artifact) -> bytes:
    """Nearly every damage is found, so that some files are left whole."""
    value = artifact.to_json()
    return damaged_json(r, value) if r.random() < 0.8 else json.dumps(value).encode()


SERVED_KINDS: list[tuple[str, Make, float]] = [
    ("request", _requests, 2.0),
    ("policy", _policies, 0.5),
    ("counts", _counts, 0.5),
]
