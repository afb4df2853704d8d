"""`potstill fit`, `search`, `devices` and `plan`: wrong options, names that mean the same, and pages of 80 columns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from click.testing import CliRunner

from fixtures import CONFIGS
from potstill.apps.plan.options import ServingOptions
from potstill.apps.plan.search import SearchOptions
from potstill.cli.main import main
from potstill.cli.render.tables import aligned
from potstill.components.hardware.devices import load_devices
from potstill.components.hardware.fit import FITS, NO_FIT
from potstill.components.models.gguf_types import QUANTIZATIONS
from potstill.components.models.shapes import shape_to_config
from potstill.core.errors import UsageError
from potstill.core.format import format_duration, format_size, format_speed
from potstill.core.recipe import Quantization

if TYPE_CHECKING:
    from click.testing import Result

    from workshop import Workshop

MODEL = str(CONFIGS / "qwen3-4b.json")
LLAMA = str(CONFIGS / "llama-3.1-8b.json")
SHAPE = "llama:layers=4,hidden=256,ffn=1024,heads=4,kv_heads=2,vocab=49152,tied=1,context=2048"
KEYS = [
    "weight_bytes", "bits_per_weight", "kv_bytes", "compute_bytes", "total_bytes", "decode_tokens_per_s",
    "max_context", "verdict",
]  # fmt: skip


def run(*words: str, columns: int | None = None) -> Result:
    return CliRunner(env={"COLUMNS": str(columns) if columns else None}).invoke(main, [*words])


def refused(*words: str) -> str:
    """The message of a wrong usage; nothing else is printed."""
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.endswith(".\n")
    return done.stderr


def found(*words: str) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def page(*words: str) -> str:
    done = run(*words)
    assert done.exit_code == 0, done.output
    return done.output


def recipe_of(workshop: Workshop, **changes: Any) -> str:
    workshop.recipe(**changes)
    return str(workshop.folder / "recipe.yaml")


# ---- numbers ----


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1"])
@pytest.mark.parametrize(("command", "option"), [("fit", "--memory"), ("search", "--decode"), ("search", "--ttft")])
def test_a_measure_must_be_positive_and_finite(command: str, option: str, value: str) -> None:
    message = refused(command, MODEL, "--device", "pi5", option, value)
    assert f"{option} must be more than 0 and finite, found" in message


@pytest.mark.parametrize(
    ("command", "option"), [("fit", "--context"), ("fit", "--parallel"), ("search", "--vocabulary")]
)
def test_a_count_must_be_positive(command: str, option: str) -> None:
    for value in ("0", "-3"):
        assert f"{option} must be more than 0" in refused(command, MODEL, "--device", "pi5", option, value)


def test_numbers_that_no_machine_can_count_are_refused() -> None:
    for option in ("--context", "--parallel"):
        assert f"{option} must be at most 2,147,483,647" in refused("fit", MODEL, "--device", "pi5", option, "9" * 400)
    assert "--memory must be at most" in refused("fit", MODEL, "--device", "pi5", "--memory", "1e300")


def test_a_share_without_a_measurement_is_refused() -> None:
    done = run("search", SHAPE, "--device", "pi5", "--share", "nan")
    assert done.exit_code == 2 and "--share is for --measure." in done.stderr


def test_limits_reach_the_search() -> None:
    words = ("search", SHAPE, "--device", "pi5", "--context", "256")
    limits = found(*words, "--decode", "0.5", "--ttft", "90000.5")["limits"]
    assert (limits["decode"], limits["ttft"]) == (0.5, 90.0005)
    # a limit so small that it could have counted as none
    assert found(*words, "--decode", "1e-9")["limits"]["decode"] == 1e-9
    with pytest.raises(UsageError, match="--ttft"):
        SearchOptions(ttft=float("nan"))


def test_a_vocabulary_has_a_token_for_each_byte_and_none_that_the_teacher_lacks() -> None:
    words = ("search", SHAPE, "--device", "pi5", "--vocabulary")
    assert "--vocabulary 255: a trimmed vocabulary keeps 256 tokens" in refused(*words, "255")
    assert "--vocabulary 49153: the teacher has 49,152 tokens" in refused(*words, "49153")
    assert found(*words, "256")["vocabulary"] == 256


# ---- the model's own context ----


def test_no_model_is_predicted_beyond_its_positions() -> None:
    message = refused("fit", SHAPE, "--device", "pi5", "--context", "2049")
    assert "--context 2049" in message and "was made for 2,048 tokens at most" in message
    assert found("fit", SHAPE, "--device", "pi5", "--context", "2048")["context"] == 2048
    # the default of 4096 is lowered to what the model can do
    assert found("fit", SHAPE, "--device", "pi5")["context"] == 2048
    assert found("search", SHAPE, "--device", "pi5")["context"] == 2048
    assert "the teacher was made for 2,048 tokens" in refused("search", SHAPE, "--device", "pi5", "--context", "2049")
    # a shape without a context has no bound
    unbound = SHAPE.replace(",context=2048", "")
    assert found("fit", unbound, "--device", "pi5", "--context", "9000")["context"] == 9000


# ---- options that do not apply ----


@pytest.mark.parametrize("option", [["--train-on", "RTX 4090"], ["--write", "1"]], ids=lambda words: words[0])
def test_options_that_need_a_recipe_are_refused_for_a_model(option: list[str]) -> None:
    assert refused("search", MODEL, *option).startswith(f"potstill: {option[0]} needs a recipe (.yaml).")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "--devices"), "'potstill plan --devices' is now: potstill devices"),
        (("plan", "--search", "r.yaml"), "'potstill plan --search' is now: potstill search MODEL|RECIPE"),
        (("plan", MODEL), f"'potstill plan MODEL' is now: potstill fit {MODEL}"),
    ],
)
def test_old_spellings_print_where_they_went(words: tuple[str, ...], message: str) -> None:
    done = run(*words)
    assert done.exit_code == 2 and done.stdout == ""
    assert message in done.stderr


def test_each_command_has_only_its_own_options(workshop: Workshop) -> None:
    recipe = recipe_of(workshop)
    for words in (
        ("plan", recipe, "--quantization", "Q8_0"), ("plan", recipe, "--host", "ddr4"),
        ("plan", recipe, "--decode", "5"), ("plan", recipe, "--write", "1"), ("search", recipe, "--host", "ddr4"),
        ("fit", MODEL, "--train-on", "RTX 4090"), ("fit", MODEL, "--decode", "5"), ("devices", "--device", "pi5"),
    ):  # fmt: skip
        done = run(*words)
        assert done.exit_code == 2 and "No such option" in done.stderr
    assert "--host Desktop DDR4-3200: a host takes" in refused(
        "fit", MODEL, "--device", "pi5", "--host", "Desktop DDR4-3200"
    )


def test_a_gguf_file_has_a_quantization_of_its_own(tmp_path: Path) -> None:
    from potstill.components.hardware.random_gguf import write_random_gguf
    from potstill.components.models.configs import from_config

    path = tmp_path / "model.gguf"
    write_random_gguf(from_config(shape_to_config(SHAPE.replace("49152", "512"))).quantized("Q8_0"), path)
    assert found("fit", str(path), "--device", "pi5")["quantization"] == "mixed"  # it names no file type
    message = refused("fit", str(path), "--device", "pi5", "--quantization", "q4_0")
    assert "is a GGUF file, whose weights are mixed" in message


def test_an_unknown_device_is_reported_under_its_own_option(workshop: Workshop) -> None:
    recipe = recipe_of(workshop)
    assert "--device 'abacus': there is no such device" in refused("fit", MODEL, "--device", "abacus")
    assert "--host 'abacus': there is no such device" in refused(
        "fit", MODEL, "--device", "RTX 3060", "--host", "abacus"
    )
    for command in ("plan", "search"):
        message = refused(command, recipe, "--device", "pi5", "--train-on", "abacus")
        assert "--train-on 'abacus': there is no such device" in message


# ---- names ----


def test_case_does_not_matter_and_what_is_given_twice_is_predicted_once() -> None:
    once = found(
        "fit", MODEL, "--device", "pi5", "--quantization", "q4_k_m", "--quantization", "Q4_K_M", "--kv-type", "Q8_0"
    )
    assert (once["quantization"], once["kv_type"], once["device"]) == ("Q4_K_M", "q8_0", "Raspberry Pi 5")
    devices = ("--device", "pi5", "--device", "3060", "--device", "raspberry-pi 5", "--device", "pi5")
    assert [one["device"] for one in found("fit", MODEL, *devices)["plans"]] == ["Raspberry Pi 5", "RTX 3060"]
    # one device named twice is still one device
    assert ServingOptions(devices=("pi5", "Raspberry Pi 5")).one_device("unnamed") is not None
    with pytest.raises(UsageError, match="give --device once"):
        ServingOptions(devices=("pi5", "RTX 3060")).one_device("unnamed")


def test_a_search_takes_the_quantizations_that_a_recipe_can_have() -> None:
    words = ("search", SHAPE, "--device", "pi5")
    result = found(*words, "--quantization", "q5_k_m", "--quantization", "F16", "--quantization", "Q5_K_M")
    assert {one["quantization"] for one in result["students"]} <= {"Q5_K_M", "F16"}
    assert result["teacher_itself"] == ["Q5_K_M", "F16"]
    unwritten = next(name for name in QUANTIZATIONS if name not in get_args(Quantization))
    message = refused(*words, "--quantization", unwritten)
    assert f"--quantization {unwritten!r} is not one of {', '.join(get_args(Quantization))}" in message
    # somebody else may have quantized a model that way
    assert found("fit", MODEL, "--device", "pi5", "--quantization", unwritten)["quantization"] == unwritten


def test_devices_are_listed_as_json_with_their_sources() -> None:
    listed = found("devices")["devices"]
    assert [one["name"] for one in listed] == [device.name for device in load_devices()]
    for one, device in zip(listed, load_devices(), strict=True):
        assert (one["source"], one["date"], one["memory"]) == (device.source, device.date, device.memory)
        assert one["bandwidth"] == pytest.approx(device.bandwidth) and one["usable_bytes"] == device.usable_bytes
        assert set(vars(device)) <= set(one)


# ---- fit ----


def test_json_has_the_keys_of_every_fit() -> None:
    one = found("fit", LLAMA, "--device", "Raspberry Pi 5")
    assert list(one)[: len(KEYS)] == KEYS
    assert one["verdict"] == FITS
    assert one["bits_per_weight"] == pytest.approx(4.894, abs=1e-3)
    low, high = one["decode_tokens_per_s"]
    assert 0.5 < low < high < 5
    assert one["max_context"] > 4096
    several = found("fit", LLAMA, "--device", "pi5", "--device", "3060", "--quantization", "Q8_0")["plans"]
    assert [one["device"] for one in several] == ["Raspberry Pi 5", "RTX 3060"]
    assert [one["verdict"] for one in several] == [NO_FIT, FITS]


def test_the_page_has_the_verdict_and_the_advice() -> None:
    text = page("fit", LLAMA, "--device", "pi5", "--quantization", "Q8_0")
    assert "Raspberry Pi 5: does not fit" in text
    assert "would fit with" in text and "--quantization Q5_K_M" in text
    table = page("fit", LLAMA, "--device", "pi5", "--quantization", "Q8_0", "--quantization", "Q4_K_M")
    assert "Raspberry Pi 5" in table and table.count("does not fit") == 1 and table.count("fits") == 1
    assert "Jetson Orin Nano" in page("devices")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such file or folder"),
        ([MODEL, "--quantization", "Q9"], "'Q9' is not one of"),
        ([MODEL, "--kv-type", "q9"], "'q9' is not one of"),
        ([MODEL, "--device", "abacus"], "no such device"),
        ([MODEL, "--context", "0"], "--context must be more than 0"),
        ([MODEL, "--memory", "-1"], "--memory must be more than 0"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage_of_fit_is_refused(arguments: list[str], message: str) -> None:
    done = run("fit", *arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_without_a_network_a_hub_id_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refused("fit", "no-one/no-such-model", "--device", "pi5")
    assert "its config.json could not be downloaded (HF_HUB_OFFLINE is set)" in message


def test_fit_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time\n"
        "from potstill.cli.main import main\n"
        f"main(['fit', {LLAMA!r}, '--device', 'pi5'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'xllamacpp', 'gguf', 'httpx', 'safetensors', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)), time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, seconds = done.stdout.splitlines()[-1].rsplit(" ", 1)
    assert loaded == "[]"
    assert float(seconds) < 1  # of the processor, because another process may slow the clock


# ---- pages ----


def narrow(*words: str) -> list[str]:
    """Lines of a page on a terminal of 80 columns; no cell is cut."""
    done = run(*words, columns=80)
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "…" not in done.stdout and done.stdout.isascii()
    return lines


def test_devices_in_80_columns() -> None:
    lines = narrow("devices")
    for device in load_devices():
        assert any(line.startswith(f"{device.name} ") and line.endswith(device.date) for line in lines), device.name
        assert not any(device.source in line for line in lines)
    assert "potstill devices --json" in lines[-1]


def test_devices_and_quantizations_in_80_columns() -> None:
    names = ["pi5", "RTX 3060", "NVIDIA A100 80GB"]
    words = ["fit", str(CONFIGS / "llama-3.1-70b.json")]
    words += [word for name in names for word in ("--device", name)]
    words += [word for name in QUANTIZATIONS for word in ("--quantization", name)]
    lines, plans = narrow(*words), found(*words)["plans"]
    assert len(plans) == len(names) * len(QUANTIZATIONS)
    rest = iter(lines)
    # device by device, each row with all of its numbers
    for device in dict.fromkeys(one["device"] for one in plans):
        assert any(line.startswith(f"{device}: ") and line.endswith("GB for a model") for line in rest)
        assert next(rest).split() == ["type", "weights", "needed", "tokens/s", "longest", "verdict"]
        for one in (one for one in plans if one["device"] == device):
            rates = one["decode_tokens_per_s"]
            wanted = [
                one["quantization"], *format_size(one["file_bytes"]).split(), *format_size(one["needed_bytes"]).split(),
                format_speed(*rates, "-") if rates[1] else "-", f"{one['max_context']:,}", *one["verdict"].split(),
            ]  # fmt: skip
            assert next(rest).split() == wanted


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen2.5-72b", "qwen3-0.6b"])
@pytest.mark.parametrize("device", ["pi5", "NVIDIA H100 SXM"])
def test_a_search_in_80_columns(name: str, device: str) -> None:
    words = ("search", str(CONFIGS / f"{name}.json"), "--device", device, "--context", "2048")
    lines, result = narrow(*words), found(*words)
    for number in result["shown"]:
        one = result["students"][number - 1]
        place = lines.index(f"{number:>3}  {one['id']}")
        first = format_duration(one["ttft_seconds"][1], short=True)
        assert lines[place + 1].split() == [
            f"{one['kept']:.0%}", *format_size(one["file_bytes"]).split(), *format_size(one["needed_bytes"]).split(),
            format_speed(*one["decode_tokens_per_s"], "-"), *first.split(),
        ]  # fmt: skip
    assert not any(re.search(r"\de[+-]\d", line) for line in lines)


def test_the_table_of_a_search_and_its_json_agree() -> None:
    words = ["search", LLAMA, "--device", "Raspberry Pi 5", "--context", "2048"]
    result, table = found(*words), page(*words)
    students, shown = result["students"], result["shown"]
    assert [one["row"] for one in students] == list(range(1, len(students) + 1))
    assert shown[0] == 1 and len(shown) <= 12 < len(students)
    for one in students:
        line = f"{one['row']:>3}  {one['id']}"
        assert (line in table.splitlines()) is (one["row"] in shown)
    assert f"{result['feasible']} students would do" in table
    assert f"{len(shown)} of these {len(students)} are shown; --json lists them all" in table
    # the headings are the bands of the rows below them
    bands = [students[row - 1]["quality_band"] for row in shown]
    assert [line[7:-1] for line in table.splitlines() if line.startswith("expect ")] == list(dict.fromkeys(bands))
    assert result["teacher_itself"] == ["Q6_K", "Q4_K_M"]
    assert "The teacher itself would do too, in Q6_K, Q4_K_M." in table


def test_when_nothing_fits_the_limits_are_repeated() -> None:
    message = refused("search", MODEL, "--device", "Raspberry Pi 5", "--decode", "5000")
    assert "5000 tokens/s" in message and "--memory" in message


def test_pages_of_a_recipe_in_80_columns(workshop: Workshop) -> None:
    target = {"device": "pi5", "file_mb": 0.01, "decode_tokens_per_s": 1e9, "ttft_ms": 1e-6}
    lines = narrow("plan", recipe_of(workshop, target=target))
    assert any(line.startswith("*  Q8_0 ") and "kB" in line for line in lines)
    recipe = recipe_of(workshop, target={"device": "pi5"})
    lines = narrow("search", recipe, "--train-on", "Raspberry Pi Zero 2 W")
    head = next(line for line in lines if line.startswith("row"))
    assert head.split() == ["row", "kept", "file", "memory", "tokens/s", "1st", "token", "training", "disk"]


def test_a_sentence_is_one_line_where_no_width_is_known() -> None:
    words = ("fit", LLAMA, "--device", "pi5", "--quantization", "Q8_0")
    advice = next(line for line in page(*words).splitlines() if line.startswith("would fit"))
    assert len(advice) > 110 and advice.endswith("in total free for the model.")
    assert not any(len(line) > 80 for line in map(str.rstrip, run(*words, columns=80).stdout.splitlines()))


def test_lines_are_as_wide_as_their_longest_cell() -> None:
    assert aligned([("name", "n"), ("a", "12,345"), ("longer", "1")]) == [
        "name         n",
        "a       12,345",
        "longer       1",
    ]


def test_one_token_is_one_token() -> None:
    text = page("fit", SHAPE, "--device", "pi5", "--context", "1")
    assert "1 token, f16" in text and "1 tokens" not in text
    text = page("search", SHAPE, "--device", "pi5", "--context", "2")
    assert "after a prompt of 1 token." in text and "1 tokens" not in text
