"""A model's answers to a suite: results.json, and one line per item in item-results.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from potstill.core.artifacts.answers import AnswerError
from potstill.core.artifacts.base import Artifact, Part, read_parts
from potstill.core.errors import StepError
from potstill.core.files import write_json_lines
from potstill.core.hashing import hash_file

__all__ = [
    "ITEM_RESULTS",
    "Conditions",
    "EvaluatedModel",
    "ItemResult",
    "SuiteResults",
    "read_results",
    "write_results",
]

ITEM_RESULTS = "item-results.jsonl"


class EvaluatedModel(Part):
    """The model that answered.

    name     file or folder name, or the endpoint's name for the model
    sha256   SHA-256 (hex) of the GGUF file or of the model's folder; for an endpoint, of its address and the name
    """

    name: str
    sha256: str


class Conditions(Part):
    """How the model was asked: everything that can change answers, apart from its weights.

    template          SHA-256 (hex) of the chat template; None for an endpoint
    runtime           what ran the model
    runtime_version   version of that library; empty for an endpoint
    processor         name of the processor or GPU; empty for an endpoint
    quantization      format of the weights; empty for an endpoint
    batch_size        items that were answered together
    context           limit of prompt and answer together, in tokens; 0 for an endpoint
    max_new_tokens    limit of an answer, in tokens
    temperature       0 for greedy decoding
    seed              seed of sampling
    """

    template: str | None
    runtime: Literal["transformers", "llama.cpp", "endpoint"]
    runtime_version: str
    processor: str
    quantization: str
    batch_size: int
    context: int
    max_new_tokens: int
    temperature: float
    seed: int

    def differences(self, other: Conditions) -> tuple[str, ...]:
        """Names of the conditions that are not the same."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) != getattr(other, name))


class ItemResult(Part):
    """The answer to one item, and how it was judged.

    item                id of the item
    kind                kind of expectation
    prompt              last message of the user
    expected            what is right, for a person to read
    text                raw answer
    right               whether it is right
    error               why it is wrong; None for a right answer
    finish_reason       `stop`, or `length` for an answer that was cut off; `unfinished` or `refused` by an endpoint
    prompt_tokens       tokens of the prompt; 0 where they are not known
    completion_tokens   tokens of the answer
    tags, core, group, weight   the item's labels
    """

    item: str
    kind: str
    prompt: str
    expected: str
    text: str
    right: bool
    error: AnswerError | None = None
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tags: tuple[str, ...] = ()
    core: bool = False
    group: str | None = None
    weight: float = 1.0


class SuiteResults(Artifact):
    """What a model's answers to a suite were measured with; the answers are in item-results.jsonl.

    suite           name of the suite
    suite_version   its last frozen version; 0 if it was never frozen
    suite_sha256    SHA-256 (hex) over its items
    drafts          number of items that are not frozen
    items           number of items
    right           number of right answers
    items_sha256    SHA-256 (hex) of item-results.jsonl
    potstill        version that wrote this
    """

    FILE: ClassVar[str] = "results.json"

    suite: str
    suite_version: int
    suite_sha256: str
    drafts: int
    model: EvaluatedModel
    conditions: Conditions
    items: int
    right: int
    items_sha256: str
    potstill: str


def write_results(folder: Path, results: SuiteResults, items: Sequence[ItemResult]) -> SuiteResults:
    """Write results into a folder, and return them with the hash of the items."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / ITEM_RESULTS
    write_json_lines(lines, [item.model_dump(mode="json", exclude_defaults=True) for item in items])
    results = results.model_copy(update={"items_sha256": hash_file(lines)})
    results.write(folder)
    return results


def read_results(folder: Path) -> tuple[SuiteResults, list[ItemResult]]:
    """The results in a folder.

    Raises:
        StepError: a file is absent or broken, or the items are not those of results.json.
    """
    results = SuiteResults.read_file(folder / SuiteResults.FILE, "evaluate again")
    lines = folder / ITEM_RESULTS
    if not lines.is_file() or hash_file(lines) != results.items_sha256:
        raise StepError(f"{lines}: the file is missing or has changed since it was written. Evaluate again.")
    return results, read_parts(lines, ItemResult)
