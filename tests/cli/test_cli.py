"""The whole run as a user makes it: once, again, killed, and with bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from fixtures import make_tokenizer
from potstill.core.artifacts.training import StoredTargets

STAGES = ["check", "generate", "train", "worth", "export", "speed", "evaluate", "gate", "package", "report"]
POTSTILL = [sys.executable, "-m", "potstill"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write_recipe(folder: Path, model: Path, workload: Path, **changes: Any) -> Path:
    recipe = {
        "name": "tiny",
        "data": {n: str(workload / f"{n}.jsonl") for n in ("validation", "test")}
        | {"prompts": str(workload / "train.jsonl"), "tools": str(workload / "tools.json")},
        "chat": {"context": 128},
        "teacher": {"model": str(model)},
        "generate": {"max_new_tokens": 8, "temperature": 1.0, "keep_truncated": True, "batch_size": 4},
        "student": {"init": "teacher_layers", "layers": 2},
        "train": {"epochs": 4, "batch_tokens": 256},
        "trainer": {"checkpoint_every": 2},
        "evaluate": {"threads": 1},
        "gates": {"exact": 0.5, "top1_agreement": 0.1},
        "licenses": {"data": "cc0-1.0", "teacher": "mit", "package": "mit"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | changes))
    return path


def potstill(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*POTSTILL, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, check=False
    )


def test_run_then_run_again(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, workload)
    first = potstill("run", recipe, "--json", cwd=tmp_path)
    assert first.returncode == 3, first.stderr  # a random teacher teaches nothing: the floor of exact match fails
    out = json.loads(first.stdout)
    assert out["verdict"] == "FAIL"
    assert list(out["stages"]) == STAGES
    assert not any(stage["cached"] for stage in out["stages"].values())
    metrics = out["metrics"]
    assert metrics["teacher_exact"] == metrics["start_exact"] == 0.0
    assert (
        "Before training, the student had 0 of 6 test rows right; after it, the student 0 and its control 0."
        in (tmp_path / out["package"] / "README.md").read_text()
    )
    assert metrics["params_student"] < metrics["params_teacher"]
    assert 0 <= metrics["top1_agreement"] <= 1
    assert metrics["kl_mean"] > 0
    assert metrics["peak_rss_mb"] > 1
    package = tmp_path / out["package"]
    gguf = next(package.glob("*.gguf"))
    assert gguf.stat().st_size == metrics["gguf_bytes"]
    assert (tmp_path / out["report"]).read_text().lstrip().lower().startswith("<!doctype html>")

    again = potstill("run", recipe, cwd=tmp_path)
    assert again.returncode == 3
    assert again.stderr.count("cached") == len(STAGES)
    assert "verdict  FAIL" in again.stdout
    assert "report.html" in again.stdout
    run = json.loads((tmp_path / "runs/tiny/run.json").read_text())
    assert run["verdict"] == "FAIL"
    assert all(stage["cached"] for stage in run["stages"].values())

    # a threshold changes the verdict and nothing before it
    changed = write_recipe(tmp_path, tiny_model, workload, gates={"top1_agreement": 0.01})
    judged = json.loads(potstill("run", changed, "--json", cwd=tmp_path).stdout)
    cached = {name for name, stage in judged["stages"].items() if stage["cached"]}
    assert cached == {"generate", "train", "worth", "export", "speed", "evaluate"}


def test_two_processes_train_one_recipe(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    """As `accelerate launch` starts them, with shards; what they leave is what one process goes on from."""
    recipe = write_recipe(
        tmp_path,
        tiny_model,
        workload,
        student={"init": "teacher_layers", "layers": 2, "vocabulary": "workload"},
        train={"epochs": 2, "batch_tokens": 256, "lora_rank": 2},
        trainer={"gradient_accumulation": 2, "precision": "bf16"},
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    sharded = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
    launched = subprocess.run(
        [*launcher, "-m", "potstill", "run", str(recipe), "--until", "train", "--json"],
        capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT | sharded | {"ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr[-3000:]
    stages = json.loads(launched.stdout)["stages"]  # one of them speaks
    assert list(stages) == ["check", "generate", "train"]
    assert not any(stage["cached"] for stage in stages.values())
    for name in ("student", "control"):
        saved = load_file(tmp_path / stages["train"]["dir"] / name / "model.safetensors")
        assert saved["model.layers.1.self_attn.q_proj.weight"].shape == (64, 64)
        assert not any("lora" in key for key in saved)
    alone = json.loads(potstill("run", recipe, "--until", "train", "--json", cwd=tmp_path).stdout)["stages"]
    assert all(stage["cached"] for stage in alone.values())


def test_a_sweep_shares_what_its_variants_have_in_common(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    """The teacher answers once and is scored once; each variant has its own student, verdict and page."""
    recipe = write_recipe(
        tmp_path, tiny_model, workload, train={"epochs": 1, "objective": {"targets": {"kind": "counts", "k": 8}}}
    )
    swept = potstill("run", recipe, "--json", "--sweep", "train.objective.hard_label_weight=0,0.5", cwd=tmp_path)
    assert swept.returncode == 3, swept.stderr
    first, second = json.loads(swept.stdout)["variants"]
    assert [first["changes"], second["changes"]] == [{"train.objective.hard_label_weight": v} for v in ("0", "0.5")]
    assert list(first["stages"]) == [*STAGES[:2], "targets", *STAGES[2:]]
    assert {name for name, stage in second["stages"].items() if stage["cached"]} == {"generate", "targets"}
    assert first["metrics"]["kl_mean"] != second["metrics"]["kl_mean"]
    assert first["report"] != second["report"]
    for variant in (first, second):
        assert (tmp_path / variant["report"]).is_file()
    stored = StoredTargets.read(tmp_path / first["stages"]["targets"]["dir"])
    assert stored.store.sequences > 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train.epochs", "is not KEY=VALUE,VALUE"),
        ("train.epoch=1,2", "did you mean 'epochs'?"),
    ],
)
def test_a_sweep_of_nothing_is_refused(
    tiny_model: Path, workload: Path, tmp_path: Path, option: str, message: str
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, workload)
    refused = potstill("run", recipe, "--sweep", option, cwd=tmp_path)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_killed_again_and_again_ends_like_one_that_was_not(
    tiny_model: Path, workload: Path, tmp_path: Path
) -> None:
    """kill -9 at many moments; what was finished is found again, and the student has the same bits."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write_recipe(folder, tiny_model, workload)
    reference = json.loads(potstill("run", "recipe.yaml", "--json", cwd=whole).stdout)
    kills = 0
    for markers in (
        ".answers/*.sqlite",
        "tiny/train-*/student.log.jsonl",
        "tiny/train-*/control.log.jsonl",
        "tiny/export-*",
        "tiny/evaluate-*/answers-*",
    ):
        process = subprocess.Popen(
            [*POTSTILL, "run", "recipe.yaml"],
            cwd=killed,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not list((killed / "runs").glob(markers)):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 4
    last = json.loads(potstill("run", "recipe.yaml", "--json", cwd=killed).stdout)
    for name in ("check", "generate", "train"):
        assert last["stages"][name]["cached"]
    weights = [(folder / Path(result["stages"]["train"]["dir"]) / "student/model.safetensors").read_bytes()
               for folder, result in ((whole, reference), (killed, last))]  # fmt: skip
    assert weights[0] == weights[1]
    same = ("teacher_exact", "student_exact", "control_exact", "gguf_bytes", "kl_mean", "top1_agreement")
    assert {k: last["metrics"][k] for k in same} == {k: reference["metrics"][k] for k in same}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"epoch": 1}}, "unknown key 'train.epoch'; did you mean 'epochs'?"),
        ({"teacher": {"model": "./nowhere"}}, "no such model folder"),
        ({"generate": {"max_new_tokens": 120}}, "context"),
    ],
)
def test_bad_recipes_cost_nothing(
    tiny_model: Path, workload: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, workload, **change)
    result = potstill("run", recipe, "--json", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("potstill: ")
    assert not list(tmp_path.glob("runs/tiny/*/DONE"))


def test_tokenizers_that_do_not_match_are_refused(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_model.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    make_tokenizer(other, extra_vocabulary=-20)
    recipe = write_recipe(tmp_path, tiny_model, workload, student={"init": "checkpoint", "model": str(other)})
    result = potstill("check", recipe, cwd=tmp_path)
    assert result.returncode == 2
    assert "tokenizer" in result.stderr


def test_broken_rows_are_named(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    with (workload / "train.jsonl").open("a") as file:
        file.write('{"messages": [\n')
    result = potstill("run", write_recipe(tmp_path, tiny_model, workload), cwd=tmp_path)
    assert result.returncode == 2
    assert "train.jsonl:25: not valid JSON" in result.stderr


def test_help_names_every_command(tmp_path: Path) -> None:
    result = potstill("--help", cwd=tmp_path)
    assert result.returncode == 0
    for command in ("plan", "check", "run", "targets"):
        assert f"\n  {command} " in result.stdout
    assert potstill("fly", cwd=tmp_path).returncode == 2


def test_a_stages_old_command_says_where_it_went(tmp_path: Path) -> None:
    for stage in ("train", "package"):
        result = potstill(stage, "recipe.yaml", cwd=tmp_path)
        assert result.returncode == 2
        assert f"'potstill {stage}' is now: potstill run RECIPE --until {stage}" in result.stderr


def test_plan_answers_without_training(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    result = potstill("plan", write_recipe(tmp_path, tiny_model, workload), "--json", cwd=tmp_path)
    planned = json.loads(result.stdout)
    assert [q["quantization"] for q in planned["quantizations"] if q["chosen"]] == ["Q8_0"]
    assert not (tmp_path / "runs").exists()
