"""Evaluate a model on a suite: each item is asked once per model, judged, and written down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from potstill import __version__
from potstill.apps.suites.targets import Asking, Target, open_target
from potstill.components.runtimes import Answer, Sampling
from potstill.components.runtimes.journal import Journal
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.components.runtimes.readings import as_served, own_reading
from potstill.components.suites.checks import check_answer, check_expected, expected_text, item_row
from potstill.components.suites.folder import ITEMS, Suite
from potstill.components.suites.items import Item
from potstill.core.artifacts.answers import AnswerError
from potstill.core.artifacts.suite_results import ItemResult, SuiteResults, write_results
from potstill.core.errors import UsageError
from potstill.core.hashing import fingerprint

__all__ = ["Evaluated", "evaluate"]

_ENDINGS: dict[str, AnswerError] = {"length": "cut_off", "unfinished": "unfinished", "refused": "refused"}
_SHORT = 12  # digits of a hash in a file name


@dataclass(frozen=True)
class Evaluated:
    """What was measured, and the folder that holds it."""

    folder: Path
    results: SuiteResults
    items: tuple[ItemResult, ...]


def evaluate(suite: Suite, target: str, asking: Asking, out: Path | None, home: Path) -> Evaluated:
    """Answer the items of a suite, judge the answers and write the results.

    An answer that the same model gave to the same item under the same conditions is not asked for again, so a run that
    was killed goes on where it stopped, and a suite that has grown costs its new items.

    Args:
        suite: the suite.
        target: a model's folder, a GGUF file, a package, or the address of an endpoint.
        asking: how the model is asked.
        out: folder of the results; None: a folder below `home` that is named after suite and model.
        home: folder of all evaluations, which also holds the answers so far.

    Raises:
        UsageError: the suite is empty or the target is none.
        StepError: the model cannot be run.
    """
    if not suite.items:
        raise UsageError(f"{suite.folder}: the suite has no items. Add some with `potstill suite add`.")
    check_expected(suite.items)
    with open_target(target, asking) as opened:
        items = _answered(suite, opened, asking, home)
    record = suite.record
    results = SuiteResults(
        suite=record.name,
        suite_version=record.version,
        suite_sha256=suite.sha256,
        drafts=len(suite.drafts),
        model=opened.model,
        conditions=opened.conditions,
        items=len(items),
        right=sum(item.right for item in items),
        items_sha256="",
        potstill=__version__,
    )
    folder = out or home / record.name / f"{_file_name(opened.model.name)}-{opened.model.sha256[:_SHORT]}"
    return Evaluated(folder, write_results(folder, results, items), tuple(items))


def _answered(suite: Suite, target: Target, asking: Asking, home: Path) -> list[ItemResult]:
    rows = [item_row(item, f"{suite.folder / ITEMS}:{number}") for number, item in enumerate(suite.items, 1)]
    identity = fingerprint({"model": target.model.sha256, "conditions": target.conditions.to_json()})
    file = f"{_file_name(target.model.name)}-{identity[:_SHORT]}.sqlite"
    journal = Journal(home.absolute() / ".answers" / file, identity, suite.record.name)
    sampling = Sampling(asking.max_new_tokens, asking.temperature, seed=asking.seed)
    answers = JournaledRuntime(target.runtime, journal).answer(rows, sampling, f"answer {suite.record.name}")
    return [_judged(item, answer) for item, answer in zip(suite.items, answers, strict=True)]


def _judged(item: Item, answer: Answer) -> ItemResult:
    row = item_row(item)
    finding = check_answer(item, as_served(answer, row, "auto") or own_reading(answer.text, row, "auto"))
    cut = answer.finish_reason != "stop"  # an answer that did not end is wrong, however it begins
    right = finding.right and not cut
    return ItemResult(
        item=item.item_id,
        kind=item.expected.kind,
        prompt=item.prompt,
        expected=expected_text(item.expected),
        text=answer.text,
        right=right,
        error=_ENDINGS[answer.finish_reason] if cut else finding.error,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        tags=item.tags,
        core=item.core,
        group=item.group,
        weight=item.weight,
    )


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[-60:].strip("-.") or "model"
