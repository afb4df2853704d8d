"""`potstill verify`, `sign` and `update`: compare a package with its manifest, say who made it, and renew it."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from potstill.cli.options import json_option

__all__ = ["sign", "update", "verify"]

_DAYS = 365


def _package(folder: Path) -> None:
    if not folder.is_dir():
        raise click.UsageError(f"{folder}: no such folder. Name the package that a run has left.")


@click.command()
@click.argument("folder", metavar="PACKAGE", type=click.Path(path_type=Path))
@click.option(
    "--public-key", type=click.Path(path_type=Path), help="Also check the signature with this key, a .pub file."
)
@json_option
def verify(folder: Path, public_key: Path | None, as_json: bool) -> None:
    """Compare every file of a package with its manifest, and the signature with a key.

    Without --public-key, this shows that the package is complete and unchanged since it was made. It does not show who
    made it. The exit code is 1 if the package differs from its manifest, or if the signature is not valid.
    """
    from potstill.cli.render.page import print_json, say
    from potstill.components.packages.verify import verify_signed
    from potstill.core.errors import StepError

    _package(folder)
    key = None
    if public_key:
        from potstill.components.packages.keys import read_public_key

        key = read_public_key(public_key)
    found = verify_signed(folder, key)
    if as_json:
        signed = {**found.signed_with.to_json(), "checked": found.checked} if found.signed_with else None
        whole = not found.problems
        print_json({"package": str(folder), "whole": whole, "problems": list(found.problems), "signature": signed})
    elif not found.problems:
        say(f"{folder}: every file is as its manifest says.")
        if found.signed_with:
            key_id, expires = found.signed_with.key_id, found.signed_with.expires
            unchecked = "" if found.checked else " The signature was not checked: give the key with --public-key."
            say(f"Signed with the key {key_id}, which is valid until {expires}.{unchecked}")
        else:
            say("The package is not signed.")
    if found.problems:
        what = "the package differs from its manifest, or its signature is not valid."
        raise StepError(f"{folder}: {what if as_json else ' '.join(found.problems)}")


@click.command()
@click.argument("folder", metavar="[PACKAGE]", required=False, type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="File of the private key to sign with.")
@click.option(
    "--new-key",
    type=click.Path(path_type=Path),
    help="Write a new private key here, and its public key to PATH.pub.",
)
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d"]),
    help=f"Last day of the new key, in UTC; default: {_DAYS} days from now.",
)
def sign(folder: Path | None, key: Path | None, new_key: Path | None, expires: datetime.datetime | None) -> None:
    """Sign a package with an Ed25519 key, or make a key.

    The signature covers the manifest, which has the SHA-256 of every file. It is written to signature.json in the
    package's folder. Give the .pub file to whoever receives packages, and keep the other file to yourself.
    """
    from potstill.cli.render.page import say
    from potstill.components.packages import keys

    if (folder is None or key is None) == (new_key is None) or (new_key and (folder or key)):
        raise click.UsageError("Give PACKAGE and --key to sign a package, or --new-key to make a key.")
    if expires and not new_key:
        raise click.UsageError("--expires belongs to --new-key: the last day of an existing key is in its file.")
    if new_key:
        last = expires.date() if expires else keys.today() + datetime.timedelta(days=_DAYS)
        if last < keys.today():
            raise click.UsageError(f"--expires {last} is in the past: the key could sign nothing.")
        made = keys.new_key(new_key, last)
        say(f"{new_key}: private key, valid until {last}. Whoever has this file can sign as you.")
        say(f"{new_key}{keys.PUBLIC}: public key {made.id}, for whoever verifies your packages.")
    if folder and key:
        _sign(folder, key)


def _sign(folder: Path, key: Path) -> None:
    from potstill.cli.render.page import say
    from potstill.components.packages.keys import read_signing_key, today
    from potstill.components.packages.sign import sign_manifest
    from potstill.components.packages.verify import verify_package
    from potstill.core.errors import StepError

    _package(folder)
    found = read_signing_key(key)
    problems = verify_package(folder)
    if problems:
        raise StepError(f"{folder}: the package was not signed. {' '.join(problems)}")
    signed = sign_manifest(folder, found, today())
    say(f"{folder}: signed with the key {signed.key_id}, which is valid until {signed.expires}.")


@click.command()
@click.argument("folder", metavar="PACKAGE", type=click.Path(path_type=Path))
@click.option("--from", "source", help="Folder or URL of the new package.")
@click.option(
    "--public-key", type=click.Path(path_type=Path), help="Refuse a package that this key, a .pub file, has not signed."
)
@click.option("--roll-back", is_flag=True, help="Go back to the package that was there before the last update.")
def update(folder: Path, source: str | None, public_key: Path | None, roll_back: bool) -> None:
    """Replace an installed package by a newer one, or go back.

    Only files that have changed are fetched. The new package is verified before it takes the place of the old one, in
    one step: whoever loads it finds one or the other, never a mixture. PACKAGE becomes a symbolic link to a folder in
    PACKAGE.versions. If it does not exist yet, the package is installed.
    """
    from potstill.cli.render.page import say
    from potstill.components.packages import update as updates
    from potstill.core.format import format_count, format_size

    if roll_back == (source is not None):
        raise click.UsageError("Give --from with the new package, or --roll-back.")
    if source is None:
        updates.roll_back(folder)
        say(f"{folder}: as it was before the last update.")
        return
    key = None
    if public_key:
        from potstill.components.packages.keys import read_public_key

        key = read_public_key(public_key)
    done = updates.update_package(folder, source, key)
    fetched, kept = (format_count(len(names), "file") for names in (done.fetched, done.kept))
    files = f"{fetched} fetched ({format_size(done.bytes)}), {kept} kept"
    say(f"{folder}: {files}. {'Verified with the key' if key else 'Verified without a key'}.")
