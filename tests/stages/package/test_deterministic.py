"""The same inputs give the same package, byte by byte, in any folder, for any user, in any time zone."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import potstill

BUILD = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from finished_run import finished_run, made_up_example
from potstill.stages.package.stage import STAGE
from stage_runs import run_stage
folder = Path(sys.argv[1])
with made_up_example():
    run_stage(STAGE, *finished_run(folder / "run"), folder / "out")
"""


def build(folder: Path, umask: str, **environment: str) -> dict[str, bytes]:
    """Contents of the files of a package that another process makes in a folder of its own, by name."""
    home = folder / "home"
    home.mkdir(parents=True)
    source, tests = Path(potstill.__file__).parents[1], Path(__file__).parents[2]
    paths = {"PYTHONPATH": f"{source}{os.pathsep}{tests}", "PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder), umask],
        cwd=home, env=paths | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in (folder / "out" / "package").iterdir()}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """The package as two users build it."""
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other") / "deep" / "er"
    return [
        build(one, "022", TZ="Pacific/Kiritimati", USER="adalovelace", LANG="C", PYTHONHASHSEED="1"),
        build(other, "077", TZ="America/Los_Angeles", USER="gracehopper", LANG="C.UTF-8",
              PYTHONHASHSEED="2", SECRET="hunter2hunter2"),
    ]  # fmt: skip


def test_two_builds_are_equal_to_the_byte(packages: list[dict[str, bytes]]) -> None:
    assert packages[0] == packages[1] and "manifest.json" in packages[0]


def test_nothing_of_the_machine_is_inside(packages: list[dict[str, bytes]], tmp_path: Path) -> None:
    words = [
        "adalovelace",
        "gracehopper",
        "hunter2",
        "Kiritimati",
        "/home/",
        str(tmp_path.parent.parent),
        platform.node(),
    ]
    words += [name for name in (getpass.getuser(),) if len(name) > 4]
    for name, data in packages[1].items():
        for word in filter(None, words):
            assert word.encode() not in data, (name, word)
