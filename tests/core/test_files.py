"""Files are written whole or not at all; reading JSON says what is wrong, and where."""

from __future__ import annotations

import errno
import json
import os
import re
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.core.errors import DataError, StepError
from potstill.core.files import (
    file_errors,
    file_lines,
    move_into_place,
    read_json,
    read_json_lines,
    read_json_object,
    read_text,
    replacing,
    split_lines,
    unfinished,
    write_bytes,
    write_json,
    write_json_lines,
    write_link,
    write_text,
)

SRC = Path(__file__).parents[2] / "src" / "potstill"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Zoë", "n": [1, 2.5, None]})
    write_json_lines(tmp_path / "a.jsonl", [{"n": 1}, {"text": "two\nlines"}])
    write_text(tmp_path / "a.txt", "one\r\ntwo\n")
    write_bytes(tmp_path / "a.bin", b"\0\1")
    assert read_json(tmp_path / "a.json") == {"name": "Zoë", "n": [1, 2.5, None]}
    assert list(read_json_lines(tmp_path / "a.jsonl")) == [(1, {"n": 1}), (2, {"text": "two\nlines"})]
    assert (tmp_path / "a.txt").read_bytes() == b"one\r\ntwo\n"
    assert (tmp_path / "a.bin").read_bytes() == b"\0\1"
    assert len(list(tmp_path.iterdir())) == 4


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with suppress(RuntimeError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.txt", float("nan"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b))[1])
    write_text(tmp_path / "a.txt", "new")
    assert done == ["fsync", "replace", "fsync"]


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "old").write_text("old")
    killed = unfinished(tmp_path / "package")
    killed.mkdir()
    (killed / "half").write_text("left by a killed process")
    with replacing(tmp_path / "package") as folder:
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "new").write_text("new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inner", "new", "package"]


def test_neighbours_with_usual_names_of_temporary_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt.tmp").write_text("a user's")
    (tmp_path / "folder.tmp").mkdir()
    (tmp_path / "folder.tmp" / "notes").write_text("a user's too")
    write_text(tmp_path / "a.txt", "new")
    with replacing(tmp_path / "folder") as folder:
        folder.mkdir()
    assert (tmp_path / "a.txt.tmp").read_text() == "a user's"
    assert (tmp_path / "folder.tmp" / "notes").read_text() == "a user's too"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.txt.tmp", "folder", "folder.tmp"]


def test_a_link_replaces_another_and_moves_with_its_target(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir()
        write_link(tmp_path / "in" / "link", tmp_path / "in" / name)
    (tmp_path / "in").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "link").resolve() == tmp_path / "moved" / "two"
    unfinished(tmp_path / "link").symlink_to(tmp_path / "moved")  # as if killed on the way
    write_link(tmp_path / "link", tmp_path / "moved" / "one")
    assert {path.name for path in tmp_path.iterdir()} == {"moved", "link"}
    assert (tmp_path / "moved" / "two").is_dir()


def test_a_finished_file_is_moved_over_another(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    move_into_place(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new" and not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b'{"a": 1,\n "b"}', "line 2, column 5"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "too many digits"),
    ],
)
def test_an_unreadable_file_is_named_with_the_reason_and_the_advice(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StepError) as caught:
        read_json(path, error=StepError, advice="Save it again.")
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and says in message and message.endswith(" Save it again.")


def test_nothing_that_may_never_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        for read in (read_json, read_text, lambda path: list(read_json_lines(path))):
            with pytest.raises(DataError, match="not a regular file"):
                read(path)
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    with pytest.raises(DataError, match=r"a\.json: larger than 8 bytes"):
        read_json(tmp_path / "a.json", most_bytes=8)
    monkeypatch.setattr("potstill.core.files.MOST_BYTES", 20)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": "' + "x" * 20 + '"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: the line is longer than 20 bytes"):
        list(read_json_lines(tmp_path / "a.jsonl"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    for read in (read_json, read_text, lambda path: list(read_json_lines(path))):
        with pytest.raises(DataError, match="it is a folder and not a file"):
            read(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.ENOTDIR])
def test_an_error_of_the_file_system_names_the_file_and_what_to_do(number: int) -> None:
    with pytest.raises(StepError, match=r"^out/a: .+\. [A-Z].+\.$"), file_errors("folder"):
        raise OSError(number, os.strerror(number), "out/a")
    with pytest.raises(StepError, match=r"^folder: .+\. [A-Z].+\.$"), file_errors("folder"):
        raise OSError(number, os.strerror(number))
    with (
        pytest.raises(DataError, match=r"^folder: .+\. Use another\.$"),
        file_errors("folder", error=DataError, advice="Use another."),
    ):
        raise OSError(number, os.strerror(number))


def test_a_network_is_no_file_system() -> None:
    with pytest.raises(ConnectionResetError), file_errors("folder"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_a_failed_write_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"full.*a\.bin"), replacing(tmp_path / "a.bin"):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(StepError, match="the name is too long"), file_errors(tmp_path):
        write_text(tmp_path / ("x" * 300), "")


def test_an_object_is_required_where_an_object_is_read(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "[1]")
    with pytest.raises(DataError, match="must hold a JSON object, found list"):
        read_json_object(tmp_path / "a.json")
    assert read_json_object(tmp_path / "b.json", missing_ok=True) == {}
    (tmp_path / "c.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json_object(tmp_path / "c.json") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}\n\n{\n", r"a\.jsonl:3: not valid JSON"),
        ("[1]\n", r"a\.jsonl:1: a row must be a JSON object, found list"),
        ('{}\n{"a": "\\ud800"}', r"a\.jsonl:2: not valid JSON \(a string holds half of a surrogate pair\)"),
        ("{}\n" + "[" * 100_000, r"a\.jsonl:2: not valid JSON \(it is nested too deeply\)"),
        ('{}\n{"a": NaN}', r"a\.jsonl:2: not valid JSON \(NaN is not"),
        ('{}\n{"a": ' + "1" * 5000 + "}", r"a\.jsonl:2: not valid JSON \(a number has too many digits\)"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, says: str) -> None:
    write_text(tmp_path / "a.jsonl", text)
    with pytest.raises(DataError, match=says):
        list(read_json_lines(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\u0085", "\r"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, end: str) -> None:
    text = json.dumps({"text": f"a{end}b"}, ensure_ascii=False) if end != "\r" else json.dumps({"text": "a"}) + end
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{text}\r\n\n{text}".encode())
    found = list(read_json_lines(tmp_path / "a.jsonl"))
    assert [number for number, _ in found] == [1, 3]
    assert found[0][1] == found[1][1] == json.loads(text)
    assert len(list(file_lines(tmp_path / "a.jsonl"))) == 2


@given(st.binary(max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_lines_do_not_depend_on_how_a_text_arrives(text: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(text)]
    chunks = [text[a:b] for a, b in pairwise(places)]
    lines = list(split_lines(chunks))
    assert lines == list(split_lines([text]))
    assert b"\n".join(lines) == text.removesuffix(b"\n")


def test_no_module_cuts_lines_where_strings_may_hold_them() -> None:
    """`str.splitlines` and httpx's `iter_lines` cut at U+2028; what they may be used for is text that is shown."""
    shown = {
        "components/losses/compiled.py", "components/runtimes/foreign.py", "components/runtimes/gguf.py",
        "core/machine.py", "core/tools.py",
    }  # fmt: skip
    templates = {"stages/check/rendering.py"}
    numbers = {"components/training/checkpoints.py"}
    found = {
        path.relative_to(SRC).as_posix()
        for path in SRC.rglob("*.py")
        if re.search(r"\.splitlines\(|\.iter_lines\(", path.read_text())
    }
    assert found <= shown | templates | numbers


def test_no_other_module_replaces_files() -> None:
    others = [path for path in SRC.rglob("*.py") if path.relative_to(SRC).as_posix() != "core/files.py"]
    assert [path for path in others if "os.replace" in path.read_text()] == []


def test_moved_files_can_be_read_by_others_as_far_as_the_umask_allows(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("1")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_text("2")
    (tmp_path / "made" / "weights").chmod(0o600)  # as safetensors leaves its files
    move_into_place(tmp_path / "made", tmp_path / "folder")
    assert (tmp_path / "folder" / "weights").stat().st_mode == plain.stat().st_mode
