"""A GGUF file that makes llama.cpp take memory or time without end is refused by name."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from potstill.cli.main import main
from potstill.components.hardware.random_gguf import random_metadata, write_random_gguf
from potstill.components.models.configs import from_config
from potstill.components.runtimes import gguf
from potstill.components.runtimes.gguf import GGUFServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limits")

DOUBLING = (
    "{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}"
)
ENDLESS = 3 * "{% for a in range(100000) %}" + 3 * "{% endfor %}"


def _with_template(path: Path, template: str) -> Path:
    spec = from_config(
        {"architectures": ["LlamaForCausalLM"], "vocab_size": 600, "hidden_size": 64, "intermediate_size": 64}
        | {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    ).quantized("F32")
    write_random_gguf(spec, path, random_metadata(spec) | {"tokenizer.chat_template": template})
    return path


def _runs_with(file: Path) -> bool:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(file).encode() in process.read_bytes():
                return True
    return False


@pytest.mark.parametrize(
    ("template", "megabytes", "seconds", "said"),
    [(DOUBLING, 32, 60.0, "bad_alloc"), (ENDLESS, 768, 1.0, "more than 2 s of processor time")],
    ids=["memory", "time"],
)
def test_a_file_beyond_the_limits_is_refused_in_one_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, megabytes: int, seconds: float, said: str
) -> None:
    monkeypatch.setattr(gguf, "_PROCESS_BYTES", megabytes << 20)
    monkeypatch.setattr(gguf, "_LOAD_SECONDS", seconds)
    file = _with_template(tmp_path / "hostile.gguf", template)
    result = CliRunner().invoke(main, ["calibrate-device", str(file), "--threads", "1"])
    assert result.exit_code == 1
    assert "hostile.gguf" in result.stderr
    assert said in result.stderr
    assert result.stderr.strip().count("\n") == 0
    deadline = time.monotonic() + 10  # the watcher of a process looks for it each second
    while _runs_with(file) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs_with(file)


def test_time_is_limited_while_a_model_loads_and_memory_always(tmp_path: Path) -> None:
    file = _with_template(tmp_path / "m.gguf", "{{ messages[0].content }}")
    with GGUFServer(file, context=256) as server:
        limits = Path(f"/proc/{server.pid}/limits").read_text()
        lines = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
        assert lines["Max cpu time"] == "unlimited"
        assert int(lines["Max data size"]) == server._memory < 2e9
        assert server.tokenize("a")
