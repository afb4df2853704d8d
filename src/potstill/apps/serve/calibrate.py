"""Find the confidence below which a package must not answer, from rows with right answers.

The rows are asked exactly as the server asks: greedy, with a second try for an answer that does not fit the request.
A third of them, drawn by their content, chooses the score and the candidates for the threshold; the threshold is tested
on the others, which have had no part in that choice.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from potstill.apps.serve.attempt import Attempt, ask_twice
from potstill.apps.serve.engine import Engine
from potstill.apps.serve.errors import ApiError
from potstill.apps.serve.package import ServedPackage
from potstill.apps.serve.requests import ChatRequest
from potstill.apps.serve.upstream import Upstream
from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.judge import is_judged, judge_answer
from potstill.components.deferral.curves import choose_score
from potstill.components.deferral.drift import Observation, reference_of, script_of
from potstill.components.deferral.policy import bound_to
from potstill.components.deferral.scores import SCORES
from potstill.components.deferral.thresholds import (
    Tested,
    coverage_grid,
    feasibility,
    learn_then_test,
    risk_control,
)
from potstill.components.runtimes.gguf import GGUFServer
from potstill.components.suites.checks import check_answer, item_row
from potstill.components.suites.folder import read_suite
from potstill.components.suites.items import Item
from potstill.core.artifacts.policy import Policy, PromiseKind, ScoreName, WithheldAction, policy_digest
from potstill.core.errors import DataError
from potstill.core.records import Row, read_rows

__all__ = ["Calibration", "Case", "Judged", "calibrate_package", "make_policy", "read_cases"]

_CHOOSING = 3  # one of this many answers chooses the score
_FEWEST = 30


@dataclass(frozen=True)
class Calibration:
    """What is promised, and what is done with answers below the threshold.

    promise, alpha, delta   see `Policy`
    below, offline          see `Policy`
    seed                    seed of the split
    """

    promise: PromiseKind = "selective"
    alpha: float = 0.05
    delta: float = 0.05
    below: WithheldAction = "defer"
    offline: Literal["clarify", "defer", "abstain"] = "defer"
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """A prompt, and whether an answer to it is right."""

    row: Row
    is_right: Callable[[ParsedAnswer], bool]


@dataclass(frozen=True)
class Judged:
    """An answer as calibration sees it; `scores` is empty for an answer that is never given."""

    key: str
    wrong: bool
    scores: Mapping[ScoreName, float]
    observed: Observation


def read_cases(suite: Path | None, rows: Path | None, tools: Path | None) -> list[Case]:
    """The cases of a suite, or of a file of rows that say what is right.

    Raises:
        DataError: a row or an item is not valid, or too few say what is right.
    """
    if suite is not None:
        cases = [_of_item(item) for item in read_suite(suite).items]
    else:
        assert rows is not None
        cases = [_of_row(row) for row in read_rows(rows, tools=tools) if is_judged(row)]
    if len(cases) < _FEWEST:
        raise DataError(
            f"{suite or rows}: {len(cases)} rows say what is right, and a threshold needs at least {_FEWEST}; for a "
            "promise of 5 % it needs some hundreds. Add rows that are like the requests to come."
        )
    return cases


def _of_item(item: Item) -> Case:
    return Case(item_row(item), lambda answer: check_answer(item, answer).right)


def _of_row(row: Row) -> Case:
    return Case(row, lambda answer: bool(judge_answer(answer, row).exact))


def calibrate_package(
    package: ServedPackage, cases: Sequence[Case], wanted: Calibration, *, max_tokens: int, parallel: int, threads: int,
    progress: Callable[[], None],
) -> Policy:  # fmt: skip
    """Ask a package all cases, and make its policy.

    Raises:
        StepError: llama.cpp cannot load the file.
        DataError: the server would refuse a case.
    """

    def new_server() -> GGUFServer:
        context = package.context * parallel
        return GGUFServer(package.model, context=context, parallel=parallel, threads=threads, alias=package.name)

    judged = asyncio.run(_ask_all(new_server, package.name, cases, max_tokens, parallel, progress))
    return make_policy(package, judged, wanted)


async def _ask_all(
    new_server: Callable[[], GGUFServer], model: str, cases: Sequence[Case], max_tokens: int, parallel: int,
    progress: Callable[[], None],
) -> list[Judged]:  # fmt: skip
    engine = Engine(new_server, lambda text: None)
    upstream, free = Upstream(engine), asyncio.Semaphore(parallel)
    await engine.start()

    async def one(case: Case) -> Judged:
        request = ChatRequest(model=model, messages=case.row.messages, tools=case.row.tools)
        async with free:
            try:
                attempt = await ask_twice(upstream, request, max_tokens, scored=True)
            except ApiError as error:
                raise DataError(f"{case.row.name}: {error}") from None
        progress()
        return _judged(case, attempt)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(case)) for case in cases]
    except* DataError as errors:
        raise errors.exceptions[0] from None
    finally:
        await upstream.close()
        await engine.stop()
    return [task.result() for task in tasks]


def _judged(case: Case, attempt: Attempt) -> Judged:
    prompt = case.row.messages[-1].content or ""
    return Judged(
        key=case.row.row_id,
        wrong=not case.is_right(attempt.parsed),
        scores={} if attempt.problem else attempt.scores,
        observed=Observation(
            score=None,
            length=attempt.prompt_tokens,
            deferred=False,
            invalid=attempt.problem is not None,
            truncated=attempt.finish_reason == "length",
            script=script_of(prompt),
        ),
    )


def make_policy(package: ServedPackage, judged: Sequence[Judged], wanted: Calibration) -> Policy:
    """The policy that judged answers allow."""
    ordered = sorted(judged, key=lambda each: hashlib.sha256(f"{wanted.seed}\0{each.key}".encode()).digest())
    cut = len(ordered) // _CHOOSING
    choosing, testing = ordered[:cut], ordered[cut:]
    scores: dict[ScoreName, list[float]] = {name: _column(choosing, name) for name in SCORES}
    name, excess = choose_score(scores, [each.wrong for each in choosing])
    found = _threshold(testing, choosing, name, wanted)
    demand = feasibility([each.wrong for each in judged], wanted.alpha, wanted.delta)
    policy = Policy(
        package=package.name,
        bound=bound_to(package.model, package.model_sha256, package.quantization),
        score=name,
        excess_aurc=excess,
        threshold=found.threshold,
        promise=wanted.promise,
        alpha=wanted.alpha,
        delta=wanted.delta,
        chosen_on=len(choosing),
        tested_on=len(testing),
        served=found.served,
        wrong=found.wrong,
        p_value=found.bound,
        risk=demand.risk,
        abstain=demand.abstain if wanted.promise == "selective" else max(0.0, demand.risk - wanted.alpha),
        below=wanted.below,
        offline=wanted.offline,
        reference=reference_of([_observed(each, name, found.threshold) for each in testing]),
    )
    return policy.model_copy(update={"sha256": policy_digest(policy.to_json())})


def _column(judged: Sequence[Judged], name: ScoreName) -> list[float]:
    return [each.scores.get(name, -math.inf) for each in judged]


def _threshold(testing: Sequence[Judged], choosing: Sequence[Judged], name: ScoreName, wanted: Calibration) -> Tested:
    scores, wrong = _column(testing, name), [each.wrong for each in testing]
    if wanted.promise == "marginal":
        return risk_control(scores, wrong, wanted.alpha)
    grid = coverage_grid(_column(choosing, name), len(testing), wanted.alpha, wanted.delta)
    return learn_then_test(scores, wrong, grid, wanted.alpha, wanted.delta)


def _observed(judged: Judged, name: ScoreName, threshold: float | None) -> Observation:
    """What the server counts of this answer when the policy is in force."""
    score, seen = judged.scores.get(name), judged.observed
    deferred = score is None or threshold is None or score < threshold
    return Observation(score, seen.length, deferred, seen.invalid, seen.truncated, seen.script)
