"""The load of a machine is what other processes do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from finished_run import speed
from potstill.core import machine
from potstill.core.machine import LoadWatch, cpu_name


@pytest.mark.parametrize(
    ("board", "cpu_info", "name"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0\0", "model name : other\n", "Raspberry Pi 5 Model B Rev 1.0"),
        (None, "processor\t: 0\nmodel name\t: Intel(R) N100\n", "Intel(R) N100"),
        (None, "processor : 0\nBogoMIPS : 48.00\nHardware : BCM2835\n", "BCM2835"),
    ],
)
def test_name_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: str | None, cpu_info: str, name: str
) -> None:
    monkeypatch.setattr(machine, "_BOARD", tmp_path / "board")
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    if board:
        (tmp_path / "board").write_text(board)
    (tmp_path / "cpuinfo").write_text(cpu_info)
    assert cpu_name() == name


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_own_work_is_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6 seconds that the cores worked in 2 seconds, 2 were this process's."""
    hertz = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    clock = {"time": 10.0, "own": 5.0}

    def worked(seconds: float) -> None:
        ticks = [int(seconds * hertz), 0, 0, 7000, 900, 0, 0, 0, 0, 0]
        stat.write_text("cpu  " + " ".join(map(str, ticks)) + "\ncpu0 1 2 3\n")

    def sleep(seconds: float) -> None:
        clock["time"] += seconds
        worked(float(stat.read_text().split()[1]) / hertz + 1.5 * seconds)

    monkeypatch.setattr(machine, "_STAT", stat)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: clock["time"])
    monkeypatch.setattr(machine.time, "sleep", sleep)
    monkeypatch.setattr(machine.os, "times", lambda: os.times_result((clock["own"], 0.0, 0.0, 0.0, 0.0)))
    worked(100)
    watch = LoadWatch()
    worked(106.75)
    clock["time"] += 2
    clock["own"] += 2
    load = watch.stop()
    assert (load.before, load.after, load.others) == (1.5, 1.5, 2.0)


@pytest.mark.parametrize(
    ("before", "others", "busy"), [(3.0, 0.2, False), (0.0, 1.2, True), (1.2, None, True), (None, None, False)]
)
def test_a_machine_is_busy_by_what_others_do(before: float | None, others: float | None, busy: bool) -> None:
    found = speed().machine.model_copy(update={"load_before": before, "load_others": others})
    assert found.busy == busy
    assert ("The machine was busy." in found.sentence) == (busy and before is not None)
