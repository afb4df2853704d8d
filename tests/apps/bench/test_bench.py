"""`potstill bench` measures a package without the libraries that made it, and its file decides the gates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finished_run import finished_run, made_up_example, speed
from potstill.apps.bench.bench import bench_package
from potstill.components.hardware.random_gguf import write_random_gguf
from potstill.components.models.configs import from_config
from potstill.core.artifacts.exported import Exported
from potstill.core.artifacts.manifest import Manifest
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.errors import StepError, UsageError
from potstill.core.hashing import hash_file
from potstill.stages.package.stage import STAGE
from stage_runs import run_stage

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a run whose GGUF llama.cpp can run."""
    folder = tmp_path_factory.mktemp("run")
    recipe, steps = finished_run(folder)
    path = steps["export"] / Exported.read(steps["export"]).file
    path.unlink()
    write_random_gguf(from_config(CONFIG).quantized("Q8_0"), path)
    speed(context=256, prompt_tokens=(9, 30)).write(steps["speed"])
    with made_up_example():
        run_stage(STAGE, recipe, steps, folder / "out")
    return folder / "out" / "package"


def test_bench_needs_no_library_that_trains(package: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'accelerate', 'safetensors', 'gguf', 'matplotlib', 'zstandard'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv = ['potstill', 'bench', *sys.argv[1:]]\n"
        "from potstill.cli.main import main\n"
        "main()\n"
    )
    file = tmp_path / "bench.json"
    command = [sys.executable, "-c", code, str(package), "--json", str(file), "--requests", "4", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = " ".join(done.stdout.split())
    assert "time to first token, ms" in page and "6 requests in 3 loads of the server" in page
    found = MeasuredSpeed.read_file(file, "run it again")
    gguf = next(package.glob("*.gguf"))
    assert found.model_sha256 == hash_file(gguf)
    assert (found.requests, found.context, found.prompt_tokens, found.machine.threads) == (6, 256, (9, 30), 1)


def test_what_is_no_package_is_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="so it is not a package"):
        bench_package(tmp_path)
    manifest = json.loads((package / Manifest.FILE).read_text())
    manifest["predicate"]["speed"] = None
    (tmp_path / Manifest.FILE).write_text(json.dumps(manifest))
    with pytest.raises(StepError, match="Give the package of a language model"):
        bench_package(tmp_path)


def test_another_file_is_not_measured_under_the_packages_name(package: Path, tmp_path: Path) -> None:
    for path in (package / Manifest.FILE, next(package.glob("*.gguf"))):
        (tmp_path / path.name).write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StepError, match="is not the one that its manifest names"):
        bench_package(tmp_path)
