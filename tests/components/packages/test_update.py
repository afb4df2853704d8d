"""An update fetches what changed, is verified before it is seen, and can be undone; a bad one changes nothing."""

from __future__ import annotations

import datetime
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from made_package import FILES, make_package
from potstill.cli.main import main
from potstill.components.packages import keys
from potstill.components.packages import update as updates
from potstill.components.packages.verify import verify_package
from potstill.core.errors import StepError

NEWER = FILES | {"m.gguf": b"better weights", "tools.json": b"[]"}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    return make_package(tmp_path / "installed")


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    return make_package(tmp_path / "newer", NEWER)


@pytest.fixture
def served(newer: Path) -> Iterator[tuple[str, list[str]]]:
    """URL of the newer package, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(newer)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_what_changed_is_fetched(installed: Path, newer: Path, served: tuple[str, list[str]]) -> None:
    url, asked = served
    done = updates.update_package(installed, url)
    assert (done.fetched, set(done.kept)) == (("m.gguf", "tools.json"), {"LICENSE", "README.md"})
    assert {path.strip("/") for path in asked} == {"manifest.json", "signature.json", "m.gguf", "tools.json"}
    assert contents(installed) == contents(newer) and verify_package(installed) == []


def test_an_update_is_undone_and_done_again(installed: Path, newer: Path) -> None:
    before = contents(installed)
    assert call("update", installed, "--from", newer).exit_code == 0
    assert contents(installed) == contents(newer)
    assert call("update", installed, "--roll-back").exit_code == 0
    assert contents(installed) == before
    result = call("update", installed, "--from", newer)
    assert result.exit_code == 0 and contents(installed) == contents(newer)


def test_two_versions_are_kept(installed: Path, newer: Path, tmp_path: Path) -> None:
    newest = make_package(tmp_path / "newest", FILES | {"m.gguf": b"best"})
    for source in (newer, newest):
        updates.update_package(installed, str(source))
    folders = [path for path in installed.with_name("installed.versions").iterdir() if not path.is_symlink()]
    assert len(folders) == 2 and contents(installed) == contents(newest)
    updates.roll_back(installed)
    assert contents(installed) == contents(newer)


def test_a_folder_that_is_not_there_is_installed(tmp_path: Path, newer: Path) -> None:
    result = call("update", tmp_path / "fresh", "--from", newer)
    assert result.exit_code == 0 and contents(tmp_path / "fresh") == contents(newer)
    assert call("update", tmp_path / "fresh", "--roll-back").exit_code == 1


def test_the_same_package_again_fetches_nothing(installed: Path, newer: Path) -> None:
    updates.update_package(installed, str(newer))
    assert updates.update_package(installed, str(newer)).fetched == ()


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("m.gguf", b"weights of a thief", "larger than 14 bytes"),
        ("m.gguf", b"worse weights!", "m.gguf has changed"),
        ("m.gguf", None, "has no m.gguf"),
        ("manifest.json", b"{}", "is not a manifest"),
        ("manifest.json", None, "has no manifest.json"),
    ],
    ids=["longer", "other", "absent", "no manifest", "no package"],
)
def test_a_bad_package_changes_nothing(
    installed: Path, newer: Path, name: str, data: bytes | None, problem: str
) -> None:
    before = contents(installed)
    (newer / name).unlink()
    if data is not None:
        (newer / name).write_bytes(data)
    with pytest.raises(StepError, match=problem):
        updates.update_package(installed, str(newer))
    assert contents(installed) == before and not installed.is_symlink()
    assert list(installed.with_name("installed.versions").iterdir()) == []


def test_a_server_that_breaks_off_changes_nothing(installed: Path) -> None:
    before = contents(installed)
    with pytest.raises(StepError, match="cannot be fetched"):
        updates.update_package(installed, "http://127.0.0.1:9")
    assert contents(installed) == before


def test_an_update_must_have_the_right_signature(installed: Path, newer: Path, tmp_path: Path) -> None:
    keys.new_key(tmp_path / "key", datetime.date(2100, 1, 1))
    keys.new_key(tmp_path / "other", datetime.date(2100, 1, 1))
    result = call("update", installed, "--from", newer, "--public-key", tmp_path / "key.pub")
    assert result.exit_code == 1 and "is not signed" in result.stderr
    assert call("sign", newer, "--key", tmp_path / "key").exit_code == 0
    result = call("update", installed, "--from", newer, "--public-key", tmp_path / "other.pub")
    assert result.exit_code == 1 and "was signed with the key" in result.stderr
    assert call("update", installed, "--from", newer, "--public-key", tmp_path / "key.pub").exit_code == 0
    assert call("verify", installed, "--public-key", tmp_path / "key.pub").exit_code == 0


def test_a_killed_update_leaves_the_installed_package(
    installed: Path, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the fetch and the swap; what is left over does not disturb the next update."""
    before = contents(installed)

    def kill(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(updates, "_install", kill)
        with pytest.raises(KeyboardInterrupt):
            updates.update_package(installed, str(newer))
    assert contents(installed) == before
    updates.update_package(installed, str(newer))
    assert contents(installed) == contents(newer)
