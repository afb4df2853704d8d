"""A package is whole, says what it is, runs where it says, and tells nothing of the machine it was made on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from finished_run import RECIPE, finished_run, metrics
from potstill.components.packages.manifest import portable_recipe
from potstill.core.errors import RecipeError, StepError
from potstill.core.files import write_json
from potstill.core.hashing import hash_file
from potstill.core.recipe import Recipe, load_recipe
from potstill.stages.package.stage import run, verify_package

FILES = {"LICENSE", "Modelfile", "README.md", "lights-Q8_0.gguf", "manifest.json"}


def packaged(folder: Path, recipe: str = RECIPE, kind: str = "INCONCLUSIVE", **measured: Any) -> Path:
    """Folder of a package made from a finished run; `measured` replaces parts of metrics.json."""
    loaded, steps = finished_run(folder / "run", recipe, kind)
    if measured:
        path = steps["evaluate"] / "metrics.json"
        write_json(path, json.loads(path.read_text()) | measured)
    out = folder / "package-0123456789ab"
    out.mkdir()
    run(loaded, steps, out)
    return out / "package"


def modelfile(text: str) -> dict[str, list[str]]:
    """Values of each instruction, parameters under their own names, as Ollama's parser reads them."""
    out: dict[str, list[str]] = {}
    rest = "\n".join(line for line in text.split('"""')[0].splitlines() if not line.startswith("#"))
    rest += '"""' + '"""'.join(text.split('"""')[1:])
    pattern = r'\s*([A-Z]+) +("""(?P<long>.*?)"""|"(?P<quoted>.*?)"|(?P<bare>[^\n]*))[ \t]*(\n|$)'
    position = 0
    while rest[position:].strip():
        match = re.compile(pattern, re.DOTALL).match(rest, position)
        assert match, rest[position:][:80]
        name, value = match[1], next(v for v in match.group("long", "quoted", "bare") if v is not None)
        if name == "PARAMETER":
            name, _, value = value.partition(" ")
            value = value.strip('"')
        out.setdefault(name, []).append(value)
        position = match.end()
    return out


def front_matter(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "README.md").read_text().split("---\n")[1]))


# ---- the whole ----


def test_package_has_its_files_and_verifies(tmp_path: Path) -> None:
    folder = packaged(tmp_path)
    assert {p.name for p in folder.iterdir()} == FILES
    assert verify_package(folder) == []
    source = next((tmp_path / "run" / "runs").glob("export-*/*.gguf"))
    assert (folder / source.name).samefile(source)
    assert [p.name for p in folder.parent.iterdir()] == ["package"]


def test_killed_and_run_again_leaves_the_same(tmp_path: Path) -> None:
    folder = packaged(tmp_path)
    before = {p.name: hash_file(p) for p in folder.iterdir()}
    (folder.parent / "package.tmp").mkdir()
    (folder.parent / "package.tmp" / "half").write_text("written")
    (folder / "stray").write_text("x")
    found = sorted((tmp_path / "run" / "runs").iterdir(), key=lambda p: p.name.rpartition("-")[2])
    steps = {p.name.rpartition("-")[0]: p for p in found}
    run(load_recipe(tmp_path / "run" / "lights.yaml"), steps, folder.parent)
    assert {p.name: hash_file(p) for p in folder.iterdir()} == before


def test_without_a_gguf_nothing_is_written(tmp_path: Path) -> None:
    recipe, steps = finished_run(tmp_path / "run")
    next(steps["export"].glob("*.gguf")).unlink()
    with pytest.raises(StepError, match="no GGUF to package"):
        run(recipe, steps, tmp_path)
    assert not (tmp_path / "package").exists()


# ---- the manifest ----


def test_manifest_tells_where_all_came_from(tmp_path: Path) -> None:
    folder = packaged(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == FILES - {"manifest.json"}
    test = tmp_path / "run" / "data" / "test.jsonl"
    assert manifest["data"]["test"] == {
        "file": "test.jsonl",
        "sha256": hash_file(test),
        "bytes": test.stat().st_size,
        "rows": 12,
    }
    assert manifest["data"]["license"] == "apache-2.0"
    assert manifest["teacher"]["weights_sha256"] == "ab" * 32
    assert manifest["teacher"]["license"] == "apache-2.0"
    assert manifest["recipe"]["data"]["prompts"] == "data/train.jsonl"
    assert manifest["recipe"]["teacher"]["model"] == "teacher"
    assert manifest["recipe"]["gates"]["retention"] == 0.95
    assert manifest["verdict"]["verdict"] == "INCONCLUSIVE"
    assert manifest["steps"]["gate"]["fingerprint"] == "5" * 64
    assert manifest["versions"]["torch"] == "2.13.0"
    assert manifest["parity"]["tokenization"]["identical"] == 28


def test_no_file_tells_a_path_of_this_machine(tmp_path: Path) -> None:
    endpoint = RECIPE.replace(
        "teacher: {model: teacher, ", "teacher: {model: teacher, finetune: {rows: data/train.jsonl}, "
    )
    folder = packaged(tmp_path, endpoint)
    for path in folder.iterdir():
        if path.suffix != ".gguf":
            assert str(tmp_path) not in path.read_text(), path.name
            assert not re.search(r"(?<![\w./:])/(?:home|root|tmp|work|Users|var)/", path.read_text()), path.name


def test_paths_far_apart_are_told_by_name_alone(tmp_path: Path) -> None:
    value = yaml.safe_load(RECIPE) | {"teacher": {"model": "/somewhere/ann/big"}}
    told = portable_recipe(Recipe.model_validate(value, context={"folder": tmp_path}))
    assert told["teacher"]["model"] == "big"
    assert told["data"]["test"] == "test.jsonl"


def test_password_of_an_endpoint_is_not_told(tmp_path: Path) -> None:
    teacher = {"kind": "api", "model": "big", "base_url": "http://ann:secret@host.example:8080/v1"}
    value = yaml.safe_load(RECIPE) | {
        "teacher": teacher,
        "student": {"init": "checkpoint", "model": "someone/small"},
        "train": {"objective": "sft", "control": "none"},
        "gates": {},
    }
    told = portable_recipe(Recipe.model_validate(value, context={"folder": tmp_path}))
    assert told["teacher"]["base_url"] == "http://host.example:8080/v1"
    assert told["student"]["model"] == "someone/small"


def flip(path: Path) -> None:
    """Change one bit, in a copy: the file may be linked to the export's."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda f: flip(f / "lights-Q8_0.gguf"), "lights-Q8_0.gguf has changed"),
        (lambda f: (f / "README.md").write_text("better"), "README.md has 6 bytes"),
        (lambda f: (f / "Modelfile").unlink(), "Modelfile is missing"),
        (lambda f: (f / "extra.bin").write_text("x"), "extra.bin is not in the manifest"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is not there"),
        (lambda f: (f / "manifest.json").write_text("[]"), "not a manifest"),
        (lambda f: (f / "manifest.json").write_text("{"), "not a manifest"),
        (lambda f: ((f / "LICENSE").unlink(), (f / "LICENSE").symlink_to(f / "README.md")), "not a plain file"),
    ],
    ids=["bit", "size", "gone", "extra", "no manifest", "list", "broken", "link"],
)
def test_verify_names_each_fault(tmp_path: Path, change: Any, problem: str) -> None:
    folder = packaged(tmp_path)
    change(folder)
    found = verify_package(folder)
    assert len(found) == 1 and problem in found[0]


def test_manifest_cannot_point_outside(tmp_path: Path) -> None:
    folder = packaged(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../secret"] = {"sha256": hash_file(secret), "bytes": 1}
    write_json(folder / "manifest.json", manifest)
    assert verify_package(folder) == ["../../secret is not a plain file of the package's own folder."]


# ---- the Modelfile ----


def test_modelfile_sets_what_the_file_was_judged_with(tmp_path: Path) -> None:
    said = modelfile((packaged(tmp_path) / "Modelfile").read_text())
    assert said["FROM"] == ["./lights-Q8_0.gguf"]
    assert said["stop"] == ["<|im_end|>"]
    assert said["num_ctx"] == ["512"]
    assert said["temperature"] == ["0"]
    assert said["SYSTEM"] == ["You switch the lights."]
    assert said["TEMPLATE"][0].endswith("<|im_start|>assistant\n")
    assert "apache-2.0" in said["LICENSE"][0]


def test_sampling_other_than_greedy_is_set_whole(tmp_path: Path) -> None:
    said = modelfile(
        (packaged(tmp_path, RECIPE + "generate: {temperature: 0.8, top_p: 0.9}\n") / "Modelfile").read_text()
    )
    assert (said["temperature"], said["top_p"], said["top_k"]) == (["0.8"], ["0.9"], ["0"])


def test_template_that_cannot_be_written_is_left_out_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "dated.jinja").write_text("{{ strftime_now('%d') }}{% for m in messages %}{{ m.content }}{% endfor %}")
    dated = RECIPE.replace("{context: 512}", "{context: 512, template: ../dated.jinja}")
    text = (packaged(tmp_path, dated) / "Modelfile").read_text()
    assert "TEMPLATE" not in modelfile(text)
    assert "# No TEMPLATE:" in text and "day's date" in " ".join(text.split("\n# "))


def test_text_that_a_modelfile_cannot_hold_is_refused(tmp_path: Path) -> None:
    quotes = RECIPE.replace("You switch the lights.", """'say \"\"\"hello\"\"\"'""")
    with pytest.raises(RecipeError, match=r"package\.system cannot stand"):
        packaged(tmp_path, quotes)


def test_licences_nobody_named_are_not_invented(tmp_path: Path) -> None:
    nameless = re.sub(r"license: apache-2.0", "license: unknown", RECIPE)
    folder = packaged(tmp_path, nameless)
    assert not (folder / "LICENSE").exists()
    assert "LICENSE" not in modelfile((folder / "Modelfile").read_text())
    assert front_matter(folder)["license"] == "unknown"
    assert "no licence for the teacher, the data, this file" in (folder / "README.md").read_text()


# ---- the card ----


def test_card_has_the_front_matter_that_hubs_read(tmp_path: Path) -> None:
    front = front_matter(packaged(tmp_path))
    assert front["base_model"] == "teacher" and front["base_model_relation"] == "finetune"
    assert (front["license"], front["library_name"], front["pipeline_tag"]) == ("apache-2.0", "gguf", "text-generation")
    assert {"gguf", "tool-calling"} <= set(front["tags"])
    scores = {m["type"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert scores["exact_match"] == round(405 / 430, 4) and scores["kl_mean"] == 0.0311


@pytest.mark.parametrize(
    ("kind", "says"),
    [("PASS", "All gates of its recipe hold"), ("FAIL", "does not do what"), ("INCONCLUSIVE", "cannot tell")],
)
def test_card_says_the_verdict_first(tmp_path: Path, kind: str, says: str) -> None:
    text = (packaged(tmp_path, kind=kind) / "README.md").read_text().split("---\n", 2)[2]
    assert text.index(f"**Verdict: {kind}.**") < text.index("## Gates")
    assert says in text
    assert ("before you ship it" in text) == (kind != "PASS")


def test_card_gives_numbers_with_intervals(tmp_path: Path) -> None:
    text = (packaged(tmp_path) / "README.md").read_text()
    assert "| multi_call | 96.7 % (88.6 to 99.1), 58 of 60 | 86.7 % (75.8 to 93.1), 52 of 60 |" in text
    assert "0.0311 nats in the mean and 0.412" in text
    assert "| decode speed | 1184 tokens/s (1113 to 1279) |" in text


def test_text_continuation_has_no_counts_and_no_chat(tmp_path: Path) -> None:
    whole = metrics()
    for model in whole["models"].values():
        model |= {"exact": None, "behaviours": {}, "schema_valid": None}
    plain = RECIPE.replace("{context: 512}", "{context: 512, template: plain}")
    folder = packaged(tmp_path, plain, models=whole["models"])
    text = (folder / "README.md").read_text()
    assert "no right answers to count" in text and "/completion" in text and "chat/completions" not in text
    assert "exact_match" not in text
    said = modelfile((folder / "Modelfile").read_text())
    assert said["TEMPLATE"][0].count("{{ .Content }}") == 2


def test_api_teacher_leaves_out_fidelity(tmp_path: Path) -> None:
    whole = metrics()
    for model in whole["models"].values():
        model["fidelity"] = None
    text = (packaged(tmp_path, models=whole["models"] | {"control": None}) / "README.md").read_text()
    assert "KL divergence" not in text and "kl_mean" not in text.split("---\n")[1]
