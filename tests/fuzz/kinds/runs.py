"""Damaged files of a run: artifacts, stored answers and targets, journals, packages and their Modelfile."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner
from tokenizers import Tokenizer

import forged_shards as shards
from fixtures import TEMPLATE
from fuzz.harness import Make
from fuzz.kinds.texts import byte_tokenizer
from fuzz.mutate import damaged_bytes, damaged_json, written
from made_package import FILES, manifest_of
from modelfile import read_modelfile
from potstill.cli.package import verify
from potstill.components.chat.format import ChatFormat
from potstill.components.packages.entries import file_entry
from potstill.components.runtimes import Answer, Sampling
from potstill.components.runtimes.journal import Journal, Usage
from potstill.components.targets import TargetsReader, store_stats
from potstill.components.training.checkpoints import newest_checkpoint
from potstill.core.artifacts.base import Artifact
from potstill.core.artifacts.generated import Generated
from potstill.core.artifacts.manifest import Manifest
from potstill.core.artifacts.signature import Envelope
from potstill.core.artifacts.step import DoneRecord, StepRecord
from potstill.core.artifacts.verdict import Verdict
from potstill.core.hashing import HashedPath, hash_file
from potstill.core.steps import Stage, run_step, step_fingerprint
from potstill.stages.package.ollama import write_modelfile
from potstill.stages.package.workload import Workload

__all__ = ["RUN_KINDS"]


# ---- files of a run ----

_STEP = {
    "stage": "train",
    "stage_version": 1,
    "fingerprint": "0" * 64,
    "seconds": 1.0,
    "inputs": {},
    "reads": {},
    "versions": {},
    "git_commit": None,
    "argv": [],
    "host": {},
    "finished": "2026-01-01T00:00:00+00:00",
}
_GENERATED = {
    "teacher": {"kind": "local", "model": "m"},
    "splits": {"train": {"prompts": 1, "kept": 1, "rejected": {}, "completion_tokens": 1}},
}
_ARTIFACTS: list[tuple[type[Artifact], dict[str, Any]]] = [
    (DoneRecord, DoneRecord.of("0" * 64, {"a.json": "0" * 64}).model_dump()),
    (StepRecord, _STEP),
    (Verdict, {"gates": [], "confidence": 0.9, "verdict": "PASS", "notes": []}),
    (Generated, _GENERATED),
]


def _artifact(r: random.Random, folder: Path) -> Callable[[], object]:
    kind, value = r.choice(_ARTIFACTS)
    written(folder / kind.FILE, damaged_json(r, {"format": kind.FORMAT, **value}))
    return lambda: kind.read(folder)


@cache
def _journal_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j.sqlite"
        kept = Journal(path, "teacher", "run")
        with kept.opened() as opened:
            for key in ("0" * 64, "1" * 64):
                opened.ask({key: Usage(1, 2)})
                opened.end({key: [Answer("a", "stop", 1, 2, 0.1)]})
        return path.read_bytes()


def _teacher_journal(r: random.Random, folder: Path) -> Callable[[], object]:
    kept = Journal(folder / "j.sqlite", "teacher", "run")
    written(kept.path, damaged_bytes(r, _journal_bytes()))

    def read() -> object:
        with kept.opened() as opened:
            return opened.read(["0" * 64])

    return read


@dataclass(frozen=True)
class _Inputs:
    size: int = 3


def _leave(inputs: _Inputs, out: Path) -> None:
    written(out / "rows.jsonl", b'{"a": 1}\n' * inputs.size)
    written(out / "model" / "config.json", b"{}")


_LEFT = {"rows.jsonl": b'{"a": 1}\n' * 3, "model/config.json": b"{}"}
_STAGE: Stage[Any, _Inputs] = Stage("made", (), lambda recipe, done: _Inputs(), _leave, paid=("*.jsonl",))


def _journal(r: random.Random, folder: Path) -> Callable[[], object]:
    """A finished step of which one file has changed: it is noticed, and the step runs again, or nothing has changed."""
    mark = step_fingerprint(_STAGE, _Inputs())
    step = folder / f"made-{mark[:12]}"
    _leave(_Inputs(), step)
    StepRecord.model_validate(_STEP | {"fingerprint": mark, "stage": "made"}).write(step)
    files = {path.relative_to(step).as_posix(): hash_file(path) for path in step.rglob("*") if path.is_file()}
    DoneRecord.of(mark, files).write(step)
    path = step / r.choice([DoneRecord.FILE, DoneRecord.FILE, StepRecord.FILE, *_LEFT])
    old, change = path.read_bytes(), r.randrange(6)
    path.unlink()
    if change == 0:
        path.mkdir()
    elif change == 1:
        path.symlink_to(r.choice(["/dev/zero", "/nowhere", path.name, step]))
    elif change == 2 and path.suffix != ".jsonl":
        path.write_bytes(damaged_json(r, json.loads(old)))
    elif change > 2:
        path.write_bytes(damaged_bytes(r, old))

    def call() -> None:
        found = run_step(_STAGE, _Inputs(), folder, {})
        assert {name: (found.dir / name).read_bytes() for name in _LEFT} == _LEFT

    return call


def _checkpoint(r: random.Random, folder: Path) -> Callable[[], object]:
    """What a training reads before it continues."""
    names = ["checkpoint-3", r.choice(["checkpoint-12", "checkpoint-x", "checkpoint-", "checkpoint.tmp"])]
    for name in names:
        written(folder / name / "time.json", damaged_json(r, {"seconds": 12.5}))
    return lambda: newest_checkpoint(folder)


@cache
def _shard(kind: str) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = shards.write_store(Path(folder), kind)
        return path.read_bytes(), (path.parent / "meta.json").read_bytes()


def _targets(r: random.Random, folder: Path) -> Callable[[], object]:
    """A shard or the identity of a store, damaged; some shards have right checksums."""
    shard, meta = _shard(r.choice(["counts", "top_k"]))
    path = written(folder / "shard-000000.targets", shard)
    written(folder / "meta.json", meta)
    change = r.randrange(5)
    if change == 0:
        written(folder / "meta.json", damaged_json(r, json.loads(meta)))
    elif change == 1:
        written(path, damaged_bytes(r, shard))
    elif change == 2:
        shards.forge(path, lambda footer, sections: None, change_footer=lambda footer: damaged_json(r, footer))
    elif change == 3:
        name = r.choice(["keys", "tokens", "table", "block0"])
        shards.forge(path, lambda footer, sections: sections.update({name: damaged_bytes(r, sections[name])}))

    def call() -> None:
        store_stats(folder)
        found = TargetsReader(folder).lookup(shards.KEYS)
        assert (found.probs >= 0).all() and found.token_ids.max() < shards.V

    return call


def _package(r: random.Random, folder: Path) -> Callable[[], object]:
    """A package with another manifest, or other files, than it was made with."""
    entries = {name: file_entry(written(folder / name, data)) for name, data in FILES.items()}
    manifest = manifest_of(entries, name="m", potstill="0.1", license="mit", recipe={})
    change = r.randrange(4)
    text = damaged_json(r, manifest) if change < 2 else json.dumps(manifest).encode()
    written(folder / Manifest.FILE, text)
    if r.random() < 0.3:
        signed = {"payloadType": Envelope.TYPE, "payload": r.choice(["", "e30=", "%"]), "signatures": [{}]}
        written(folder / Envelope.FILE, damaged_json(r, signed))
    if change == 2:
        name = r.choice(list(FILES))
        written(folder / name, damaged_bytes(r, FILES[name]))
    if r.random() < 0.2:
        (folder / r.choice([Envelope.FILE, "\x1b[2J", "x" * 200, "a\nb", "\udcff"])).symlink_to("/etc/passwd")

    def call() -> None:
        result = CliRunner().invoke(verify, [str(folder)], catch_exceptions=False, standalone_mode=False)
        assert "\x1b" not in result.output

    return call


_END_TOKENS = [
    "<|im_end|>",
    "</s>",
    '"',
    '"\nFROM x',
    "\\",
    "\r",
    "\x1b[31m",
    "\u2028",
    "{{ .Prompt }}",
    "\0",
    "é",
    "a b",
    "#",
]
_SYSTEMS = [
    "Be brief.",
    '"""',
    '"',
    "\n",
    "FROM ./x",
    "\x1b[2J",
    "\0",
    "\r\n",
    "\u202e",
    "\\",
    "{{ .System }}",
    "PARAMETER stop a",
]


def _modelfile(r: random.Random, folder: Path) -> Callable[[], object]:
    """End tokens, system text and names; what Ollama reads must be what was given."""
    tokens = ["<|im_end|>", "</s>", "".join(r.choice(_END_TOKENS) for _ in range(r.randrange(1, 3)))]
    end, other = r.choice(tokens), r.choice(tokens)
    system = "".join(r.choice(_SYSTEMS) for _ in range(r.randrange(1, 5)))
    tokenizer = Tokenizer.from_str(byte_tokenizer().to_str())
    tokenizer.add_special_tokens([end, other])
    stops = frozenset({tokenizer.token_to_id(end), tokenizer.token_to_id(other)})
    chat = ChatFormat(tokenizer, TEMPLATE.replace("<|im_end|>", "{{ eos_token }}"), None, end, stops)
    given = r.random() < 0.5
    values = {"gguf": HashedPath(folder / "m.gguf", "0"), "sampling": Sampling(48), "name": "m"}
    inputs: Any = SimpleNamespace(**values, system=system if given else None, chat=SimpleNamespace(context=256))
    notice = r.choice(["", "MIT", system])

    def call() -> None:
        text = write_modelfile(inputs, chat, notice, Workload(None if given else system, ()))
        read = read_modelfile(text)
        assert [value for name, value in read if name == "FROM"] == ["./m.gguf"]
        assert {value for name, value in read if name == "stop"} == {end, other}
        assert [value for name, value in read if name == "SYSTEM"] in ([system], [] if not given else [system])

    return call


RUN_KINDS: list[tuple[str, Make, float]] = [
    ("artifact", _artifact, 2.0),
    ("answers", _teacher_journal, 1.0),
    ("journal", _journal, 0.3),
    ("checkpoint", _checkpoint, 1.0),
    ("targets", _targets, 1.0),
    ("package", _package, 1.0),
    ("modelfile", _modelfile, 0.4),
]
