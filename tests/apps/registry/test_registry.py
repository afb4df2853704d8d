"""A registry only grows; history and bisect name the release and the behaviour that broke."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from potstill.apps.registry.history import bisect, history, with_results
from potstill.apps.registry.registry import RELEASES, find_release, read_registry, record_release, split_version
from potstill.cli.main import main
from potstill.core.errors import StepError, UsageError
from suite_results import first_wrong, item_results, results_of, sha256, write

AS_IS = {"call": first_wrong(200, 20), "refuse": first_wrong(100, 5)}
WEAKENED = {"call": first_wrong(200, 20), "refuse": first_wrong(100, 35)}
REPAIRED = {"call": first_wrong(200, 18), "refuse": first_wrong(100, 6)}


def potstill(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Results of three releases of one student."""
    found = {"as-is": AS_IS, "weakened": WEAKENED, "repaired": REPAIRED}
    return {name: write(tmp_path / name, results_of(item_results(each), name)) for name, each in found.items()}


@pytest.fixture
def registry(tmp_path: Path, folders: dict[str, Path]) -> Path:
    """A registry with the three releases."""
    for name, folder in folders.items():
        record_release(tmp_path / "registry", [folder], None, name)
    return tmp_path / "registry"


def test_three_releases(registry: Path) -> None:
    measured = with_results(read_registry(registry), None)
    first, second, third = history(measured, 0.95, 0.05)
    assert (first.broke, second.broke, third.broke) == ((), ("all items", "refuse"), ())
    found = bisect(measured, "refuse", 0.05)
    assert (found.number, found.name, found.before, found.repaired) == (2, "weakened", 1, 3)
    assert found.items == tuple(f"refuse-{n}" for n in range(5, 35))
    item = bisect(measured, "refuse-20", 0.05)
    assert (item.number, item.before, item.repaired) == (2, 1, 3)
    assert bisect(measured, "call", 0.05).number is None
    assert bisect(measured, "call-199", 0.05).number is None
    with pytest.raises(UsageError, match="No release has an item or a tag 'fly'"):
        bisect(measured, "fly", 0.05)


def test_the_same_on_the_command_line(tmp_path: Path, folders: dict[str, Path]) -> None:
    registry = tmp_path / "registry"
    assert "release 1 (v1)" in potstill("release", folders["as-is"], "--registry", registry, "--name", "v1").output
    gate = ["gate", folders["weakened"], "--against", f"{registry}@v1", "--junit", tmp_path / "j.xml"]
    done = potstill(*gate, "--markdown", tmp_path / "m.md")
    assert done.exit_code == 3, done.output
    assert "tag refuse: A drop is shown" in done.output and "verdict  FAIL" in done.output
    assert (tmp_path / "j.xml").read_text().count("<failure") == 2
    assert (tmp_path / "m.md").read_text().startswith("### FAIL")

    waivers = tmp_path / "waivers.yaml"
    text = "waivers:\n- {tag: refuse, owner: Ana, reason: known, expires: DATE, models: [MODEL]}\n"
    waivers.write_text(text.replace("MODEL", sha256("weakened")).replace("DATE", "9999-01-01"))
    done = potstill(*gate, "--waivers", waivers)
    assert (done.exit_code, "verdict  WAIVED" in done.output) == (0, True)
    waivers.write_text(text.replace("MODEL", sha256("weakened")).replace("DATE", "2020-01-01"))
    done = potstill(*gate, "--waivers", waivers)
    assert (done.exit_code, "expired on 2020-01-01" in done.output) == (3, True)

    potstill("release", folders["weakened"], "--registry", registry, "--name", "v2")
    assert potstill("gate", folders["repaired"], "--against", registry).exit_code == 0
    assert potstill("gate", folders["repaired"], "--against", f"{registry}@1", "--margin", "0.01").exit_code == 4
    potstill("release", folders["repaired"], "--registry", registry)
    shown = potstill("history", "--registry", registry).output
    assert "1 (v1)" in shown and "v 65.0 % of 100" in shown and "94.0 % of 100" in shown
    assert "tag refuse broke in release 2 (v2)" in potstill("bisect", "refuse", "--registry", registry).output
    compared = potstill("compare", f"{registry}@v1", folders["weakened"], "--flips", "2").output
    assert "30 items broke and 0 were fixed" in compared
    assert "before right" in compared and "now    wrong" in compared
    found = json.loads(potstill("compare", f"{registry}@v1", f"{registry}@v2", "--json").output)
    assert len(found["flips"]) == 30


def test_a_release_is_recorded_once(registry: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"this is release 1 \(as-is\) already"):
        record_release(registry, [folders["as-is"]], None, "again")
    other = write(folders["as-is"].with_name("other"), results_of(item_results({"call": [True] * 9}), "other"))
    with pytest.raises(UsageError, match="release 2 has the name 'weakened' already"):
        record_release(registry, [other], None, "weakened")
    with pytest.raises(UsageError, match="cannot be the name"):
        record_release(registry, [other], None, "12")
    with pytest.raises(UsageError, match="results of another model"):
        record_release(registry, [folders["as-is"], other], None, None)
    assert [each.entry.number for each in read_registry(registry)] == [1, 2, 3]


def test_what_was_recorded_cannot_be_changed_unseen(registry: Path, tmp_path: Path) -> None:
    def damaged(change: str) -> Path:
        copy = tmp_path / change
        shutil.copytree(registry, copy)
        lines = (copy / RELEASES).read_text().splitlines(keepends=True)
        if change == "line":
            lines[0] = lines[0].replace("as-is", "as-was")
        elif change == "order":
            lines = [lines[1], lines[0], lines[2]]
        elif change == "removed":
            lines = lines[1:]
        (copy / RELEASES).write_text("".join(lines))
        if change == "object":
            released = read_registry(copy)[1]
            digest = released.release.suites[0].items
            path = copy / "objects" / digest[:2] / digest
            path.write_text(path.read_text().replace('"right":true', '"right":false', 1).replace("true", "false", 1))
        return copy

    for change in ("line", "order", "removed"):
        with pytest.raises(StepError, match="does not follow the one before"):
            read_registry(damaged(change))
    copy = damaged("object")
    with pytest.raises(StepError, match="missing or has changed since it was recorded"):
        with_results(read_registry(copy), None)


def test_versions(registry: Path, tmp_path: Path) -> None:
    assert split_version(f"{registry}@v1") == (registry, "v1")
    at = tmp_path / "a@b"
    at.mkdir()
    assert split_version(str(at)) == (at, None)
    assert find_release(registry, None).entry.number == 3
    assert find_release(registry, "weakened").entry.number == find_release(registry, "2").entry.number == 2
    with pytest.raises(UsageError, match=r"it has no release 'v9'. Its releases are 1 \(as-is\)"):
        find_release(registry, "v9")
    with pytest.raises(UsageError, match="it is not a registry"):
        find_release(tmp_path, None)


def test_results_that_were_edited_are_not_released(registry: Path, folders: dict[str, Path]) -> None:
    path = folders["weakened"] / "item-results.jsonl"
    path.write_text(path.read_text().replace('"right": false', '"right": true'))
    with pytest.raises(StepError, match="is missing or has changed"):
        record_release(registry, [folders["weakened"]], None, "better")


def test_a_verdict_is_printed_even_if_its_file_cannot_be_written(folders: dict[str, Path], tmp_path: Path) -> None:
    registry = tmp_path / "one"
    potstill("release", folders["as-is"], "--registry", registry)
    found = potstill("gate", folders["weakened"], "--against", registry, "--junit", tmp_path / "no" / "x.xml")
    assert found.exit_code == 1 and "verdict  FAIL" in found.output


def test_a_folder_without_results_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    registry = tmp_path / "one"
    potstill("release", folders["as-is"], "--registry", registry)
    gate = potstill("gate", tmp_path / "no", "--against", registry)
    compare = potstill("compare", tmp_path / "no", folders["as-is"])
    assert gate.exit_code == compare.exit_code == 2
    assert "no: there is no results.json in it" in gate.output and "--suite" in gate.output
    assert "no: this is neither a folder of results nor a release" in compare.output


@pytest.mark.parametrize("end", [b"", b"\n\n"])
def test_a_release_follows_a_line_whose_end_an_editor_changed(
    folders: dict[str, Path], tmp_path: Path, end: bytes
) -> None:
    registry = tmp_path / "one"
    record_release(registry, [folders["as-is"]], None, "v0.1")
    path = registry / RELEASES
    path.write_bytes(path.read_bytes().rstrip() + end)
    record_release(registry, [folders["weakened"]], None, "v0.2")
    assert [each.title for each in read_registry(registry)] == ["1 (v0.1)", "2 (v0.2)"]
