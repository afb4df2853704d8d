"""Progress in a pipe is a line now and then that says what is done and how long the rest takes."""

from __future__ import annotations

import pytest

from potstill.core import progress
from potstill.core.progress import progress_bar


class Clock:
    """Time that passes when a test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_pipe_gets_a_line_with_the_time_left_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("train the student", 1200) as ticker:
        for _ in range(120):
            clock.now += 1
            ticker.advance(10, loss=0.25)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "  train the student: 50 of 1,200, 1.9 min left, loss 0.25"
    assert lines[1] == "  train the student: 250 of 1,200, 1.6 min left, loss 0.25"
    assert len(lines) == 6


def test_work_that_was_done_before_does_not_shorten_the_rest(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("answer train rows", 100, start=90) as ticker:
        clock.now += 60
        ticker.advance()
    assert capsys.readouterr().err == "  answer train rows: 91 of 100, 9 min left\n"


def test_short_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("check test rows", 3) as ticker:
        for _ in range(3):
            clock.now += 1
            ticker.advance()
    assert capsys.readouterr().err == ""
