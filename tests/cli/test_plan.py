"""Options of `potstill plan`: what is refused and by which name, what counts once, and what fits into 80 columns."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from click.testing import CliRunner

from fixtures import CONFIGS
from potstill.apps.plan.answer import aligned
from potstill.apps.plan.options import Ask, Wanted
from potstill.cli.main import main
from potstill.components.hardware.devices import load_devices
from potstill.components.models.gguf_types import QUANTIZATIONS
from potstill.components.models.shapes import shape_to_config
from potstill.core.errors import UsageError
from potstill.core.format import format_duration, format_size, format_speed
from potstill.core.recipe import Quantization

if TYPE_CHECKING:
    from click.testing import Result

    from workshop import Workshop

MODEL = str(CONFIGS / "qwen3-4b.json")
SHAPE = "llama:layers=4,hidden=256,ffn=1024,heads=4,kv_heads=2,vocab=49152,tied=1,context=2048"


def run(*words: str, columns: int | None = None) -> Result:
    return CliRunner(env={"COLUMNS": str(columns) if columns else None}).invoke(main, ["plan", *words])


def told(*words: str) -> str:
    """The message of a wrong usage; nothing else is printed."""
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.endswith(".\n")
    return done.stderr


def planned(*words: str) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


# ---- numbers ----


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1"])
@pytest.mark.parametrize("option", ["--memory", "--decode", "--ttft"])
def test_a_measure_is_positive_and_finite(option: str, value: str) -> None:
    words = [MODEL, "--device", "pi5", option, value, *(["--search"] if option != "--memory" else [])]
    assert f"{option} must be more than 0 and finite, found" in told(*words)


@pytest.mark.parametrize("option", ["--context", "--parallel", "--vocabulary"])
def test_a_count_is_positive(option: str) -> None:
    for value in ("0", "-3"):
        said = told(MODEL, "--device", "pi5", option, value, *(["--search"] if option == "--vocabulary" else []))
        assert f"{option} must be more than 0" in said


def test_what_no_machine_can_count_is_told() -> None:
    for option in ("--context", "--parallel"):
        assert f"{option} must be at most 2,147,483,647" in told(MODEL, "--device", "pi5", option, "9" * 400)
    assert "--memory must be at most" in told(MODEL, "--device", "pi5", "--memory", "1e300")


def test_limits_reach_the_search() -> None:
    words = (SHAPE, "--search", "--device", "pi5", "--context", "256")
    limits = planned(*words, "--decode", "0.5", "--ttft", "90000.5")["limits"]
    assert (limits["decode"], limits["ttft"]) == (0.5, 90.0005)
    # one so small that it would have counted as none
    assert planned(*words, "--decode", "1e-9")["limits"]["decode"] == 1e-9
    with pytest.raises(UsageError, match="--ttft"):
        Wanted(ttft=float("nan"))


def test_a_vocabulary_has_a_token_for_each_byte_and_none_that_the_teacher_has_not() -> None:
    words = (SHAPE, "--search", "--device", "pi5", "--vocabulary")
    assert "--vocabulary 255: a trimmed vocabulary keeps 256 tokens" in told(*words, "255")
    assert "--vocabulary 49153: the teacher has 49,152 tokens" in told(*words, "49153")
    assert planned(*words, "256")["vocabulary"] == 256


# ---- the model's own context ----


def test_no_model_is_planned_beyond_its_positions() -> None:
    said = told(SHAPE, "--device", "pi5", "--context", "2049")
    assert "--context 2049" in said and "was made for 2,048 tokens at most" in said
    assert planned(SHAPE, "--device", "pi5", "--context", "2048")["context"] == 2048
    # where none is asked, 4096 is no serving but a usual length
    assert planned(SHAPE, "--device", "pi5")["context"] == 2048
    assert planned(SHAPE, "--device", "pi5", "--search")["context"] == 2048
    assert "the teacher was made for 2,048 tokens" in told(SHAPE, "--device", "pi5", "--search", "--context", "2049")
    # a shape that says nothing of it has no bound
    assert planned(SHAPE.replace(",context=2048", ""), "--device", "pi5", "--context", "9000")["context"] == 9000


# ---- options that nothing reads ----

SEARCHING = [["--decode", "5"], ["--ttft", "100"], ["--vocabulary", "9000"], ["--write", "1"]]


@pytest.mark.parametrize("option", SEARCHING, ids=lambda words: words[0])
def test_limits_of_a_search_are_refused_without_one(option: list[str], workshop: Workshop) -> None:
    workshop.recipe()
    for what in (MODEL, str(workshop.folder / "recipe.yaml")):
        assert told(what, "--device", "pi5", *option).startswith(f"potstill: {option[0]} has no effect for a ")


def test_what_does_not_apply_is_refused_by_name(workshop: Workshop) -> None:
    workshop.recipe()
    recipe = str(workshop.folder / "recipe.yaml")
    cases = {
        (recipe, "--quantization", "Q8_0"): "--quantization has no effect for a recipe",
        (recipe, "--host", "Desktop DDR4-3200"): "--host has no effect for a recipe",
        (recipe, "--search", "--host", "Desktop DDR4-3200"): "--host has no effect in the search of a recipe",
        (MODEL, "--search", "--host", "Desktop DDR4-3200"): "--host has no effect in the search of a model",
        (MODEL, "--train-on", "RTX 4090"): "--train-on has no effect for a model",
        (MODEL, "--search", "--train-on", "RTX 4090"): "--train-on has no effect in the search of a model",
        (MODEL, "--search", "--write", "1"): "--write has no effect in the search of a model",
        (MODEL, "--devices"): "MODEL|RECIPE has no effect with --devices",
        ("--devices", "--device", "pi5"): "--device has no effect with --devices",
        (MODEL, "--device", "pi5", "--host", "Desktop DDR4-3200"): "--host Desktop DDR4-3200: a host takes",
    }
    for words, said in cases.items():
        assert said in told(*words)


def test_a_gguf_file_has_a_quantization_of_its_own(tmp_path: Path) -> None:
    from potstill.components.hardware.random_gguf import write_random_gguf
    from potstill.components.models.configs import from_config

    path = tmp_path / "model.gguf"
    write_random_gguf(from_config(shape_to_config(SHAPE.replace("49152", "512"))).quantized("Q8_0"), path)
    assert planned(str(path), "--device", "pi5")["quantization"] == "mixed"  # it names no file type
    assert "is a GGUF file, whose weights are mixed" in told(str(path), "--device", "pi5", "--quantization", "q4_0")


def test_an_unknown_device_is_told_under_its_own_option(workshop: Workshop) -> None:
    workshop.recipe()
    recipe = str(workshop.folder / "recipe.yaml")
    assert "--device 'abacus': no such device" in told(MODEL, "--device", "abacus")
    assert "--host 'abacus': no such device" in told(MODEL, "--device", "RTX 3060", "--host", "abacus")
    for words in ((recipe,), (recipe, "--search")):
        assert "--train-on 'abacus': no such device" in told(*words, "--device", "pi5", "--train-on", "abacus")


# ---- names ----


def test_capitals_do_not_count_and_what_is_said_twice_is_planned_once() -> None:
    once = planned(
        MODEL, "--device", "pi5", "--quantization", "q4_k_m", "--quantization", "Q4_K_M", "--kv-type", "Q8_0"
    )
    assert (once["quantization"], once["kv_type"], once["device"]) == ("Q4_K_M", "q8_0", "Raspberry Pi 5")
    devices = ("--device", "pi5", "--device", "3060", "--device", "raspberry-pi 5", "--device", "pi5")
    assert [one["device"] for one in planned(MODEL, *devices)["plans"]] == ["Raspberry Pi 5", "RTX 3060"]
    # named twice it is one device still
    assert Ask(devices=("pi5", "Raspberry Pi 5")).one_device("unnamed") is not None
    with pytest.raises(UsageError, match="give --device once"):
        Ask(devices=("pi5", "RTX 3060")).one_device("unnamed")


def test_a_search_honours_quantizations_that_a_recipe_can_ask_for() -> None:
    words = (SHAPE, "--search", "--device", "pi5")
    found = planned(*words, "--quantization", "q5_k_m", "--quantization", "F16", "--quantization", "Q5_K_M")
    assert {one["quantization"] for one in found["students"]} <= {"Q5_K_M", "F16"}
    assert found["teacher_itself"] == ["Q5_K_M", "F16"]
    unwritten = next(name for name in QUANTIZATIONS if name not in get_args(Quantization))
    said = told(*words, "--quantization", unwritten)
    assert f"--quantization {unwritten!r} is not one of {', '.join(get_args(Quantization))}" in said
    # of a model that somebody else has quantized it can be asked
    assert planned(MODEL, "--device", "pi5", "--quantization", unwritten)["quantization"] == unwritten


def test_devices_are_listed_as_json_with_where_they_come_from() -> None:
    found = planned("--devices")["devices"]
    assert [one["name"] for one in found] == [device.name for device in load_devices()]
    for one, device in zip(found, load_devices(), strict=True):
        assert (one["source"], one["date"], one["memory"]) == (device.source, device.date, device.memory)
        assert one["bandwidth"] == pytest.approx(device.bandwidth) and one["usable_bytes"] == device.usable_bytes
        assert set(vars(device)) <= set(one)


# ---- 80 columns ----


def narrow(*words: str) -> list[str]:
    """Lines of a page on a terminal of 80 columns; no cell is cut."""
    done = run(*words, columns=80)
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "…" not in done.stdout and done.stdout.isascii()
    return lines


def test_devices_in_80_columns() -> None:
    lines = narrow("--devices")
    for device in load_devices():
        assert any(line.startswith(f"{device.name} ") and line.endswith(device.date) for line in lines), device.name
        assert not any(device.source in line for line in lines)
    assert "potstill plan --devices --json" in lines[-1]


def test_devices_and_quantizations_in_80_columns() -> None:
    names = ["pi5", "RTX 3060", "NVIDIA A100 80GB"]
    words = [str(CONFIGS / "llama-3.1-70b.json")]
    words += [word for name in names for word in ("--device", name)]
    words += [word for name in QUANTIZATIONS for word in ("--quantization", name)]
    lines, plans = narrow(*words), planned(*words)["plans"]
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
    words = (str(CONFIGS / f"{name}.json"), "--search", "--device", device, "--context", "2048")
    lines, found = narrow(*words), planned(*words)
    for number in found["shown"]:
        one = found["students"][number - 1]
        place = lines.index(f"{number:>3}  {one['id']}")
        low, high = one["decode_tokens_per_s"]
        assert lines[place + 1].split() == [
            f"{one['kept']:.0%}", *format_size(one["file_bytes"]).split(), *format_size(one["needed_bytes"]).split(),
            format_speed(low, high, "-"), *format_duration(*[one["ttft_seconds"][1]] * 2, short=True).split(),
        ]  # fmt: skip
    assert not any(re.search(r"\de[+-]\d", line) for line in lines)


def test_a_recipes_pages_in_80_columns(workshop: Workshop) -> None:
    workshop.recipe(target={"device": "pi5", "file_mb": 0.01, "decode_tokens_per_s": 1e9, "ttft_ms": 1e-6})
    lines = narrow(str(workshop.folder / "recipe.yaml"))
    assert any(line.startswith("*  Q8_0 ") and "kB" in line for line in lines)
    workshop.recipe(target={"device": "pi5"})
    lines = narrow(str(workshop.folder / "recipe.yaml"), "--search", "--train-on", "Raspberry Pi Zero 2 W")
    head = next(line for line in lines if line.startswith("row"))
    assert head.split() == ["row", "kept", "file", "memory", "tokens/s", "1st", "token", "training", "disk"]


def test_a_sentence_is_one_line_where_no_width_is_known() -> None:
    words = (str(CONFIGS / "llama-3.1-8b.json"), "--device", "pi5", "--quantization", "Q8_0")
    advice = next(line for line in run(*words).stdout.splitlines() if line.startswith("would fit"))
    assert len(advice) > 110 and advice.endswith("in all free for the model.")
    assert not any(len(line) > 80 for line in map(str.rstrip, run(*words, columns=80).stdout.splitlines()))


# ---- words ----


def test_lines_are_as_wide_as_their_longest_cell() -> None:
    assert aligned([("name", "n"), ("a", "12,345"), ("longer", "1")]) == [
        "name         n",
        "a       12,345",
        "longer       1",
    ]


def test_one_token_is_one_token() -> None:
    page = run(SHAPE, "--device", "pi5", "--context", "1").stdout
    assert "1 token, f16" in page and "1 tokens" not in page
    page = run(SHAPE, "--device", "pi5", "--context", "2", "--search").stdout
    assert "after a prompt of 1 token." in page and "1 tokens" not in page
