"""Budgets: the estimate before the first request, the hard stops, and how a run goes on after one; offline replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endpoints import Endpoint, Script, reply
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.endpoint import EndpointRuntime
from potstill.components.runtimes.journal import Journal, Spent, Usage
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.components.runtimes.spending import Account, Billing, Spending, estimate
from potstill.core.errors import BudgetError, TeacherError, UsageError
from potstill.core.hashing import hashed_value
from potstill.core.recipe import Budget, TokenPrice
from potstill.core.recipe.teacher import ApiTeacher
from potstill.core.records import Message, Row
from potstill.core.steps import blanked

SAMPLING = Sampling(max_new_tokens=20)
ROWS = [Row(messages=(Message(role="user", content=f"{n} words"),)) for n in range(30)]
KEY = "POTSTILL_TEST_KEY"


def fine(body: dict[str, Any]) -> tuple[int, Any]:
    """An answer of 7 tokens of prompt and 5 of completion."""
    return 200, reply("fine")


def runtime(folder: Path, server: Endpoint, budget: Budget, *, offline: bool = False, at_once: int = 2) -> Any:
    """A teacher whose prompts cost 1 per token and answers 10."""
    teacher = ApiTeacher(kind="api", model="m", base_url=server.url)
    billing = Billing(budget=budget, price=TokenPrice(1e6, 1e7), source="a list")
    endpoint = EndpointRuntime(server.url, "m", KEY, at_once, most_tries=1)
    journal = Journal.for_step(folder / "runs" / "r" / "generate-1", teacher, None)
    return JournaledRuntime(endpoint, journal, Account.of(billing, at_once), offline=offline)


def run(teacher: Any, rows: list[Row] = ROWS) -> list[str]:
    """The texts of the answers, as a stage asks for them."""
    teacher.announce([(rows, SAMPLING)])
    return [answer.text for answer in teacher.answer(rows, SAMPLING, "rows")]


def test_an_estimate_counts_the_prompt_and_the_longest_answer() -> None:
    request = {"messages": [{"role": "user", "content": "é" * 100}], "tools": None, "max_tokens": 3}
    assert estimate(request, 30) == Usage(61, 30)  # 241 bytes of JSON


def test_the_estimate_is_said_before_the_first_request_is_sent(
    endpoint: Callable[[Script], Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def script(body: dict[str, Any]) -> tuple[int, Any]:
        if not said:
            said.append(capsys.readouterr().err)
        return fine(body)

    server = endpoint(script)
    run(runtime(tmp_path, server, Budget()), ROWS[:10])
    assert f"{server.url}: 10 requests, about " in said[0]
    assert "tokens of prompts and at most 200 of answers, at most " in said[0] and "(a list)." in said[0]
    run(runtime(tmp_path, server, Budget()), ROWS[:15])
    assert "5 requests (10 more are in the journal), about " in capsys.readouterr().err
    run(runtime(tmp_path, server, Budget()), ROWS[:15])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("budget", "answered"),
    [
        (Budget(requests=12), 12),
        (Budget(tokens=200), None),
        (Budget(money=1000.0), None),
    ],
)
def test_a_run_stops_at_its_budget_and_goes_on_after_it_is_raised(
    endpoint: Callable[[Script], Endpoint], tmp_path: Path, budget: Budget, answered: int | None
) -> None:
    server = endpoint(fine)
    (name, limit), *_ = budget.model_dump(exclude_none=True).items()
    with pytest.raises(BudgetError, match=rf"^budget\.{name}: .* All answers so far are kept: raise this limit"):
        run(runtime(tmp_path, server, budget))
    sent = len(server.requests)
    assert 0 < sent < len(ROWS) and (answered is None or sent == answered)
    assert sent * {"requests": 1, "tokens": 12, "money": 57.0}[name] <= limit
    with pytest.raises((BudgetError, UsageError), match=rf"^budget\.{name}: .*spent"):
        run(runtime(tmp_path, server, budget))  # what earlier calls spent counts
    assert run(runtime(tmp_path, server, Budget(**{name: 100 * limit}))) == ["fine"] * len(ROWS)
    assert len(server.requests) == len({str(body) for _, body, _ in server.requests}) == len(ROWS)


def test_a_budget_without_room_for_the_first_requests_sends_nothing(
    endpoint: Callable[[Script], Endpoint], tmp_path: Path
) -> None:
    server = endpoint(fine)
    with pytest.raises(UsageError, match=r"^budget\.tokens: 50, of which 0 are spent.*2 requests.*Nothing was sent"):
        run(runtime(tmp_path, server, Budget(tokens=50)))
    assert server.requests == []


def test_minutes_are_counted_from_the_first_request() -> None:
    now = [1000.0]
    spending = Spending(Budget(minutes=2), clock=lambda: now[0])
    account = Account(spending, None, "", 1)
    account.reserve(Usage(1, 1))
    now[0] += 119
    account.reserve(Usage(1, 1))
    now[0] += 1
    with pytest.raises(BudgetError, match=r"^budget\.minutes: 2 minutes are over\."):
        account.reserve(Usage(1, 1))


def test_requests_that_end_with_an_error_are_not_spent(
    endpoint: Callable[[Script], Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expired = [True]
    server = endpoint(lambda body: (401, {"error": {"message": "expired"}}) if expired[0] else fine(body))
    with pytest.raises(TeacherError, match="the key is refused"):
        run(runtime(tmp_path, server, Budget(requests=len(ROWS))))
    expired[0] = False
    assert run(runtime(tmp_path, server, Budget(requests=len(ROWS)))) == ["fine"] * len(ROWS)
    assert "killed" not in capsys.readouterr().err


def test_requests_that_were_on_their_way_at_a_kill_are_spent_and_said(
    endpoint: Callable[[Script], Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    server = endpoint(fine)
    killed = runtime(tmp_path, server, Budget())
    killed.teacher._request_once = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    capsys.readouterr()
    with pytest.raises(BudgetError, match=r"budget\.requests: 30, of which 30 are spent"):
        run(runtime(tmp_path, server, Budget(requests=len(ROWS))))
    assert len(server.requests) == len(ROWS) - 1
    assert "1 request of these had been sent when an earlier run was killed" in capsys.readouterr().err


def test_a_stage_receives_the_price_and_the_budget_and_hashes_neither() -> None:
    billing = Billing(budget=Budget(money=3.0), price=TokenPrice(1.0, 2.0), source="a list")
    assert blanked(billing) == billing
    assert hashed_value(billing) == hashed_value(Billing())


def test_what_is_reserved_is_given_back() -> None:
    spending = Spending(Budget(tokens=100, money=1.0))
    account = Account(spending, TokenPrice(1e3, 1e4), "", 1)
    account.open(Spent(3, Usage(10, 2)))
    account.open(Spent(3, Usage(10, 2)))  # once
    assert (spending.requests, spending.tokens, spending.money) == (3, 12, pytest.approx(0.03))
    account.reserve(Usage(20, 60))
    with pytest.raises(BudgetError):
        account.reserve(Usage(5, 5))
    account.settle(Usage(20, 60), Usage(18, 4))
    account.reserve(Usage(5, 5))
    assert (spending.requests, spending.tokens) == (5, 44)


def test_an_endpoint_that_counts_no_tokens_is_billed_by_the_estimate(
    endpoint: Callable[[Script], Endpoint], tmp_path: Path
) -> None:
    server = endpoint(lambda body: (200, reply("fine") | {"usage": None}))
    with pytest.raises(BudgetError):
        run(runtime(tmp_path, server, Budget(tokens=200)))
    assert len(server.requests) == 6  # each may take 33


def test_offline_needs_no_key_and_says_how_many_answers_are_missing(
    endpoint: Callable[[Script], Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = endpoint(fine)
    run(runtime(tmp_path, server, Budget()), ROWS[:10])
    sent = len(server.requests)
    monkeypatch.setattr(EndpointRuntime, "require_key", lambda self: pytest.fail("the key is not needed"))
    assert run(runtime(tmp_path, server, Budget(), offline=True), ROWS[:10]) == ["fine"] * 10
    with pytest.raises(UsageError, match=r"^5 of 15 answers of .* are not in the journal .*--offline"):
        run(runtime(tmp_path, server, Budget(), offline=True), ROWS[:15])
    assert len(server.requests) == sent
