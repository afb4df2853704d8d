"""`potstill run --offline`: the answers come from the journal, or it is said at once how many are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from endpoints import Endpoint, Script, reply
from potstill.cli.main import main


def run(folder: Path, teacher: dict[str, Any], model: Path, workload: Path, *options: str) -> Result:
    data = {"prompts": "train.jsonl", "test": "test.jsonl", "tools": "tools.json"}
    values = {
        "name": "r",
        "data": {key: str(workload / name) for key, name in data.items()},
        "chat": {"context": 128},
        "teacher": teacher,
        "generate": {"verify": [], "max_new_tokens": 8},
        "student": {"init": "checkpoint", "model": str(model)},
        "train": {"objective": "sft", "control": "none"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    words = ["run", str(path), "--runs", str(folder / "runs"), "--until", "generate", *options]
    return CliRunner().invoke(main, words)


def test_a_run_is_replayed_without_its_endpoint(
    endpoint: Callable[[Script], Endpoint], tiny_model: Path, workload: Path, tmp_path: Path
) -> None:
    server = endpoint(lambda body: (200, reply("Done.")))
    teacher = {"kind": "api", "model": "m", "base_url": server.url}
    missing = run(tmp_path, teacher, tiny_model, workload, "--offline")
    assert missing.exit_code == 2 and server.requests == []
    assert "24 of 24 answers of m at" in missing.stderr and "Traceback" not in missing.stderr
    assert run(tmp_path, teacher, tiny_model, workload).exit_code == 0
    sent = len(server.requests)
    (step,) = (tmp_path / "runs" / "r").glob("generate-*")
    step.rename(step.with_name("moved"))
    again = run(tmp_path, teacher, tiny_model, workload, "--offline")
    assert again.exit_code == 0 and len(server.requests) == sent == 24
    assert (step / "train.jsonl").read_bytes() == (step.with_name("moved") / "train.jsonl").read_bytes()


def test_a_local_teacher_is_not_offline(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    found = run(tmp_path, {"model": str(tiny_model)}, tiny_model, workload, "--offline")
    assert found.exit_code == 2
    assert "--offline is for a teacher behind an endpoint" in found.stderr
