"""A signed package is accepted as it was signed, and every change of it is refused by name."""

from __future__ import annotations

import base64
import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from made_package import make_package
from potstill.cli.main import main
from potstill.components.packages import keys, verify
from potstill.core.artifacts.manifest import manifest_digest

EXPIRES = datetime.date(2100, 1, 31)


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def key(tmp_path: Path) -> Path:
    keys.new_key(tmp_path / "key", EXPIRES)
    return tmp_path / "key"


@pytest.fixture
def package(tmp_path: Path, key: Path) -> Path:
    folder = make_package(tmp_path / "package")
    assert call("sign", folder, "--key", key).exit_code == 0
    return folder


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def rewritten(folder: Path) -> None:
    """Another licence in the manifest, with the hash that a forger can compute as well as anyone."""

    def change(value: dict[str, Any]) -> None:
        value["predicate"]["license"] = "mit"
        value["predicate"]["sha256"] = manifest_digest(value)

    edited(folder / "manifest.json", change)


def swapped(folder: Path) -> None:
    first, second = folder / "m.gguf", folder / "README.md"
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def resigned(folder: Path) -> None:
    """The signed statement with a later last day, and the old signature."""

    def change(envelope: dict[str, Any]) -> None:
        payload = base64.b64decode(envelope["payload"]).replace(b"2100", b"2900")
        envelope["payload"] = base64.b64encode(payload).decode()

    edited(folder / "signature.json", change)


def test_a_signed_package_verifies_with_and_without_the_key(package: Path, key: Path) -> None:
    with_key = call("verify", package, "--public-key", public(key))
    assert with_key.exit_code == 0
    assert f"Signed with the key {keys.read_public_key(public(key)).id}, which is valid until 2100-01-31.\n" in (
        with_key.output
    )
    without = call("verify", package)
    assert without.exit_code == 0 and "The signature was not checked" in without.output
    answer = json.loads(call("verify", package, "--public-key", public(key), "--json").stdout)
    assert answer["whole"] and answer["signature"]["checked"] and answer["signature"]["expires"] == "2100-01-31"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda f: (f / "m.gguf").write_bytes(b"weighty"), "m.gguf has changed"),
        (swapped, "m.gguf has"),
        (swapped, "README.md has"),
        (lambda f: (f / "LICENSE").unlink(), "LICENSE is missing"),
        (lambda f: (f / "setup.sh").write_text("rm"), "setup.sh is not in the manifest"),
        (rewritten, "manifest.json is not the one that was signed"),
        (lambda f: (f / "signature.json").unlink(), "is not signed: it has no signature.json"),
        (lambda f: (f / "signature.json").write_text("{}"), "signature.json is not a signature"),
        (resigned, "signature.json has changed, or was forged"),
    ],
    ids=["flip", "swap", "swap2", "drop", "add", "manifest", "no signature", "empty signature", "later day"],
)
def test_every_change_is_refused_by_name(
    package: Path, key: Path, change: Callable[[Path], object], problem: str
) -> None:
    change(package)
    result = call("verify", package, "--public-key", public(key))
    assert result.exit_code == 1 and problem in result.stderr


def test_another_manifest_is_noticed_without_a_key(package: Path) -> None:
    rewritten(package)
    result = call("verify", package)
    assert result.exit_code == 1 and "manifest.json is not the one that was signed" in result.stderr


def test_another_key_is_refused(package: Path, key: Path, tmp_path: Path) -> None:
    other = keys.new_key(tmp_path / "other", EXPIRES)
    result = call("verify", package, "--public-key", tmp_path / "other.pub")
    assert result.exit_code == 1 and f"not with {other.id}" in result.stderr
    assert keys.read_public_key(public(key)).id in result.stderr


def test_an_expired_key_neither_signs_nor_verifies(package: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "today", lambda: EXPIRES)
    assert call("verify", package, "--public-key", public(key)).exit_code == 0
    monkeypatch.setattr(verify, "today", lambda: EXPIRES + datetime.timedelta(days=1))
    result = call("verify", package, "--public-key", public(key))
    assert result.exit_code == 1 and "expired on 2100-01-31" in result.stderr
    monkeypatch.setattr(keys, "today", lambda: EXPIRES + datetime.timedelta(days=1))
    result = call("sign", package, "--key", key)
    assert result.exit_code == 2 and "expired on 2100-01-31" in result.stderr


def test_the_receivers_copy_of_the_key_may_expire_earlier(package: Path, key: Path) -> None:
    public(key).write_text(public(key).read_text().replace("2100-01-31", "2020-01-31"))
    result = call("verify", package, "--public-key", public(key))
    assert result.exit_code == 1 and "expired on 2020-01-31" in result.stderr


def test_a_damaged_package_is_not_signed(package: Path, key: Path) -> None:
    (package / "signature.json").unlink()
    (package / "m.gguf").write_bytes(b"x")
    result = call("sign", package, "--key", key)
    assert result.exit_code == 1 and "m.gguf has 1 bytes" in result.stderr
    assert not (package / "signature.json").exists()


def test_signing_twice_gives_the_same_bytes(package: Path, key: Path) -> None:
    first = (package / "signature.json").read_bytes()
    assert call("sign", package, "--key", key).exit_code == 0
    assert (package / "signature.json").read_bytes() == first


def test_the_signature_is_an_envelope_that_others_can_check(package: Path, key: Path) -> None:
    """By the text of DSSE's specification, without potstill's code."""
    envelope = json.loads((package / "signature.json").read_text())
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    signed = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
    found: Any = load_pem_public_key(public(key).read_bytes())
    found.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_reads_the_keys(key: Path) -> None:
    for words in ([key], ["-pubin", public(key)]):
        done = subprocess.run(
            ["openssl", "pkey", "-noout", "-text", "-in", *reversed([str(w) for w in words])],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and "ED25519" in done.stdout, done.stderr


def test_only_the_owner_can_read_a_private_key(key: Path) -> None:
    assert key.stat().st_mode & 0o077 == 0


def test_a_key_is_never_overwritten(key: Path) -> None:
    before = key.read_bytes()
    assert call("sign", "--new-key", key).exit_code == 2
    assert key.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "not a public Ed25519 key"), ("-----BEGIN PUBLIC KEY-----\n%\n", "not a public"), (None, "Expires: 2027")],
)
def test_a_file_that_is_no_key_is_refused(package: Path, key: Path, text: str | None, problem: str) -> None:
    without_day = public(key).read_text().replace("Expires: ", "Until: ")
    public(key).write_text(without_day if text is None else text)
    result = call("verify", package, "--public-key", public(key))
    assert result.exit_code == 2 and problem in result.stderr


def test_new_key_on_the_command_line(tmp_path: Path) -> None:
    result = call("sign", "--new-key", tmp_path / "k", "--expires", "2099-12-31")
    assert result.exit_code == 0 and "valid until 2099-12-31" in result.output
    assert keys.read_signing_key(tmp_path / "k").expires == datetime.date(2099, 12, 31)
    assert call("sign", tmp_path).exit_code == call("sign").exit_code == 2


def test_verification_without_a_key_needs_no_cryptography(package: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from potstill.cli.main import main\n"
        "main(['verify', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(package)], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "Signed with the key" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--new-key", "."), ".: this exists, and may hold a key"),
        (("--new-key", "old", "--expires", "2020-01-31"), "--expires 2020-01-31 is in the past"),
    ],
)
def test_keys_that_would_be_of_no_use_are_not_made(
    options: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("sign", *options)
    assert done.exit_code == 2 and message in done.output and not list(tmp_path.iterdir())
