"""No command sends control characters to the terminal: not those of names, of headers, and of rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from forged_shards import write_store
from made_package import manifest_of
from potstill.cli.main import main
from potstill.components.hardware.random_gguf import random_metadata, write_random_gguf
from potstill.components.models.configs import from_config
from potstill.core.artifacts.manifest import FileEntry
from workshop import CONFIG, Workshop

EVIL = "a\x1b[2J\x07\x9b31m\u202eb"
SOURCES = Path(__file__).parents[2] / "src" / "potstill"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound run's inputs, a store and a GGUF file in a folder whose name and whose texts are hostile."""
    folder = tmp_path_factory.mktemp("escapes") / EVIL
    folder.mkdir()
    shop = Workshop(folder)
    shop.recipe(target={"device": "my board"})
    shop.spoil("test.jsonl", 1, lambda row: row["messages"][0].update(content=EVIL))
    write_store(folder / "store", "counts")
    spec = from_config({**CONFIG, "architectures": ["LlamaForCausalLM"], "rope_scaling": None}).quantized("F32")
    write_random_gguf(spec, folder / "m.gguf", random_metadata(spec) | {"general.name": EVIL})
    (folder / "package").mkdir()
    (folder / "package" / EVIL).touch()
    (folder / "package" / "manifest.json").write_text(
        json.dumps(manifest_of({EVIL: FileEntry(bytes=1, sha256="0" * 64)}))
    )
    return folder


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["init", "new", "--tokenizer", "train.jsonl", "--vocabulary", "300"], 0),
        (["init", "store", "--tokenizer", "train.jsonl"], 2),
        (["check", "recipe.yaml"], 0),
        (["check", "absent.yaml"], 2),
        (["run", "recipe.yaml", "--until", "check"], 0),
        (["plan", "recipe.yaml", "--context", "100000"], 2),
        (["plan", "recipe.yaml"], 0),
        (["search", "recipe.yaml"], 0),
        (["licences", "recipe.yaml"], 0),
        (["fit", "m.gguf"], 0),
        (["fit", "absent.gguf"], 2),
        (["calibrate-device", "absent.gguf"], 2),
        (["targets", "stats", "store"], 0),
        (["targets", "stats", "package"], 2),
        (["verify", "package"], 1),
        (["verify", "absent"], 2),
        (["bench", "package"], 1),
        (["bench", "store"], 2),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_what_a_command_prints_does_nothing_to_a_terminal(
    folder: Path, command: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "settings"))
    monkeypatch.chdir(folder.parent)
    named = [str(folder / word) if (folder / word).exists() or "absent" in word else word for word in command]
    named = [str(folder / "new") if word == "new" else word for word in named]
    result = CliRunner().invoke(main, named)
    assert result.exit_code == code, result.output
    assert not set("\x1b\x07\x9b\u202e") & set(result.output + result.stderr)


def test_text_is_printed_through_one_function() -> None:
    """`click.echo` prints what it is given; only JSON, whose control characters are escaped, may go there."""
    raw = re.compile(r"click\.echo\((?!json\.dumps)")
    used = {path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py") if raw.search(path.read_text())}
    assert used == {"cli/group.py", "cli/render/page.py"}
