"""A package is whole, says what it is, runs where it says, and tells nothing of the machine it was made on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from finished_run import RECIPE, finished_run, made_up_example, metrics
from fixtures import make_tokenizer, write_jsonl
from potstill.cli.main import main
from potstill.components.chat.format import load_chat
from potstill.components.packages.portable import portable_recipe
from potstill.components.packages.verify import verify_package
from potstill.core.artifacts.exported import Exported
from potstill.core.artifacts.manifest import Manifest, manifest_digest
from potstill.core.artifacts.metrics import LeakedRows, Metrics, Models
from potstill.core.errors import RecipeError, StepError
from potstill.core.files import unfinished, write_json
from potstill.core.hashing import hash_file
from potstill.core.recipe import Recipe, load_recipe
from potstill.core.records import Message, Row
from potstill.stages.package.stage import STAGE
from potstill.stages.package.turns import prints_schemas
from potstill.stages.package.workload import workload_of
from stage_runs import run_stage

FILES = {"LICENSE", "Modelfile", "README.md", "bom.cdx.json", "lights-Q8_0.gguf", "manifest.json", "tools.json"}


@pytest.fixture(autouse=True)
def _made_up_example() -> Iterator[None]:
    with made_up_example():
        yield


def packaged(folder: Path, recipe: str = RECIPE, kind: str = "INCONCLUSIVE", measured: Metrics | None = None) -> Path:
    """Folder of a package made from a finished run; `measured` replaces its metrics."""
    loaded, steps = finished_run(folder / "run", recipe, kind)
    if measured:
        measured.write(steps["evaluate"])
    out = folder / "package-0123456789ab"
    run_stage(STAGE, loaded, steps, out)
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
    killed = unfinished(folder)
    killed.mkdir()
    (killed / "half").write_text("written")
    (folder / "stray").write_text("x")
    found = sorted((tmp_path / "run" / "runs").iterdir(), key=lambda p: p.name.rpartition("-")[2])
    steps = {p.name.rpartition("-")[0]: p for p in found}
    run_stage(STAGE, load_recipe(tmp_path / "run" / "lights.yaml"), steps, folder.parent)
    assert {p.name: hash_file(p) for p in folder.iterdir()} == before
    assert not killed.exists()


def test_without_a_gguf_nothing_is_written(tmp_path: Path) -> None:
    recipe, steps = finished_run(tmp_path / "run")
    (steps["export"] / Exported.read(steps["export"]).file).unlink()
    with pytest.raises(StepError, match=r"the export step left no lights-Q8_0\.gguf"):
        run_stage(STAGE, recipe, steps, tmp_path)
    assert not (tmp_path / "package").exists()


# ---- the manifest ----


def test_manifest_says_where_everything_came_from(tmp_path: Path) -> None:
    manifest = Manifest.read(packaged(tmp_path))
    assert set(manifest.files) == FILES - {"manifest.json"}
    test, found = tmp_path / "run" / "data" / "test.jsonl", manifest.data.files["test"]
    assert (found.file, found.sha256, found.bytes) == ("test.jsonl", hash_file(test), test.stat().st_size)
    assert found.rows == 12 and manifest.data.files["tools"].rows is None
    assert manifest.data.license == "apache-2.0"
    assert manifest.teacher.license == "apache-2.0"
    assert manifest.teacher.identity and manifest.teacher.identity.weights_sha256 == "ab" * 32
    assert manifest.recipe["data"]["prompts"] == "data/train.jsonl"
    assert manifest.recipe["teacher"]["model"] == "teacher"
    assert manifest.recipe["gates"]["retention"] == 0.95
    assert manifest.verdict.verdict == "INCONCLUSIVE"
    assert manifest.steps["gate"].fingerprint == "6" * 64
    assert manifest.versions["torch"] == "2.13.0"
    assert manifest.parity.tokenization.identical == 28
    assert manifest.metrics.regressions == ()


def test_no_file_has_a_path_of_this_machine(tmp_path: Path) -> None:
    endpoint = RECIPE.replace(
        "teacher: {model: teacher, ", "teacher: {model: teacher, finetune: {rows: data/train.jsonl}, "
    )
    folder = packaged(tmp_path, endpoint)
    for path in folder.iterdir():
        if path.suffix != ".gguf":
            assert str(tmp_path) not in path.read_text(), path.name
            assert not re.search(r"(?<![\w./:])/(?:home|root|tmp|work|Users|var)/", path.read_text()), path.name


def test_files_far_apart_have_their_names_only(tmp_path: Path) -> None:
    value = yaml.safe_load(RECIPE) | {"teacher": {"model": "/somewhere/ann/big"}}
    found = portable_recipe(Recipe.model_validate(value, context={"folder": tmp_path}))
    assert found["teacher"]["model"] == "big"
    assert found["data"]["test"] == "test.jsonl"


def flip(path: Path) -> None:
    """Change one bit, in a copy: the file may be linked to the export's."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda f: flip(f / "lights-Q8_0.gguf"), "lights-Q8_0.gguf has changed"),
        (
            lambda f: replace(f / "manifest.json", '"license": "apache-2.0"', '"license": "mit"'),
            "manifest.json has changed",
        ),
        (lambda f: (f / "README.md").write_text("better"), "README.md has 6 bytes"),
        (lambda f: (f / "Modelfile").unlink(), "Modelfile is missing"),
        (lambda f: (f / "extra.bin").write_text("x"), "extra.bin is not in the manifest"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "manifest.json").write_text("[]"), "not a manifest"),
        (lambda f: (f / "manifest.json").write_text("{"), "not a manifest"),
        (lambda f: ((f / "LICENSE").unlink(), (f / "LICENSE").symlink_to(f / "README.md")), "not a plain file"),
    ],
    ids=["bit", "license", "size", "gone", "extra", "no manifest", "list", "broken", "link"],
)
def test_verify_names_each_fault(tmp_path: Path, change: Any, problem: str) -> None:
    folder = packaged(tmp_path)
    change(folder)
    found = verify_package(folder)
    assert len(found) == 1 and problem in found[0]


def test_verify_of_a_step_names_the_package_in_it(tmp_path: Path) -> None:
    folder = packaged(tmp_path)
    (problem,) = verify_package(folder.parent)
    assert problem == f"This is a step of a run, not a package. Give the folder {folder.parent / 'package'} in it."


def test_manifest_cannot_point_outside(tmp_path: Path) -> None:
    folder = packaged(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    outside = {"name": "../../secret", "digest": {"sha256": hash_file(secret)}, "annotations": {"bytes": 1}}
    manifest["subject"].append(outside)
    manifest["predicate"]["sha256"] = manifest_digest(manifest)
    write_json(folder / "manifest.json", manifest)
    assert verify_package(folder) == ["../../secret is not a plain file in the package's own folder."]


# ---- the Modelfile ----


def test_modelfile_sets_what_the_file_was_judged_with(tmp_path: Path) -> None:
    said = modelfile((packaged(tmp_path) / "Modelfile").read_text())
    assert said["FROM"] == ["./lights-Q8_0.gguf"]
    assert said["stop"] == ["<|im_end|>"]
    assert said["num_ctx"] == ["512"]
    assert said["num_predict"] == ["128"]
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
    (tmp_path / "last.jinja").write_text("{{ messages[-1].content }}")
    only_last = RECIPE.replace("{context: 512}", "{context: 512, template: ../last.jinja}")
    text = (packaged(tmp_path, only_last) / "Modelfile").read_text()
    assert "TEMPLATE" not in modelfile(text)
    assert "# No TEMPLATE:" in text and "leaves out, repeats or moves" in " ".join(text.split("\n# "))


def test_text_that_a_modelfile_cannot_hold_is_refused(tmp_path: Path) -> None:
    quotes = RECIPE.replace("You switch the lights.", """'say \"\"\"hello\"\"\"'""")
    with pytest.raises(RecipeError, match=r"package\.system: an Ollama Modelfile cannot hold this text"):
        packaged(tmp_path, quotes)


NO_SYSTEM = re.sub(r"\npackage: .*", "", RECIPE)


def spoiled_rows(folder: Path, **changes: Any) -> Path:
    """A package of a run whose rows all have these system messages and tools."""
    loaded, steps = finished_run(folder / "run", NO_SYSTEM)
    for name in ("train", "test"):
        path = folder / "run" / "data" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if system := changes.get("system"):
                row["messages"].insert(0, {"role": "system", "content": system})
            row |= {key: value for key, value in changes.items() if key != "system"}
        write_jsonl(path, rows)
    out = folder / "package-0123456789ab"
    run_stage(STAGE, loaded, steps, out)
    return out / "package"


def in_comments(path: Path) -> str:
    return " ".join(line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("# "))


def test_a_system_message_that_all_rows_have_is_the_modelfiles(tmp_path: Path) -> None:
    path = spoiled_rows(tmp_path, system='You are Potty.\nBe "brief".') / "Modelfile"
    assert modelfile(path.read_text())["SYSTEM"] == ['You are Potty.\nBe "brief".']


def test_a_system_message_that_cannot_be_held_is_told(tmp_path: Path) -> None:
    path = spoiled_rows(tmp_path, system='Say """no""".') / "Modelfile"
    assert "SYSTEM" not in modelfile(path.read_text())
    assert "Every row begins with the same system message, which this Modelfile cannot hold" in in_comments(path)


def test_different_system_messages_are_nobodys(tmp_path: Path) -> None:
    rows = [Row(messages=(Message(role="system", content=c), Message(role="user", content="x"))) for c in ("a", "b")]
    assert workload_of(rows).system is None
    assert workload_of(rows[:1] * 2).system == "a"
    assert workload_of([rows[0], Row(messages=rows[0].messages[1:])]).system is None


def test_a_longer_prompt_is_told_what_it_meets(tmp_path: Path) -> None:
    assert "does not refuse a longer prompt" in in_comments(packaged(tmp_path) / "Modelfile")


@pytest.mark.parametrize("prints", [True, False])
def test_what_ollama_drops_from_tools_is_told_where_the_template_prints_it(tmp_path: Path, prints: bool) -> None:
    schema = {"type": "object", "properties": {"level": {"type": "number", "minimum": 1, "pattern": "x"}}}
    tool = {"type": "function", "function": {"name": "dim", "description": "", "parameters": schema}}
    rows = [Row(messages=(Message(role="user", content="x"),), tools=(tool,))]
    assert workload_of(rows).dropped == ("minimum", "pattern")
    folder = make_tokenizer(tmp_path / "tokenizer")
    template = (folder / "chat_template.jinja").read_text()
    if prints:
        template = template.replace("{{ tool.function.name }}", "{{ tool | tojson }}")
    (folder / "chat_template.jinja").write_text(template)
    assert prints_schemas(load_chat(folder)) == prints


def test_notes_of_the_export_are_in_modelfile_card_and_manifest(tmp_path: Path) -> None:
    note = "llama.cpp does not normalize text to NFC"
    loaded, steps = finished_run(tmp_path / "run")
    Exported.read(steps["export"]).model_copy(update={"notes": (note,)}).write(steps["export"])
    run_stage(STAGE, loaded, steps, tmp_path / "out")
    folder = tmp_path / "out" / "package"
    assert note in in_comments(folder / "Modelfile")
    assert "Llama.cpp does not normalize text to NFC" in (folder / "README.md").read_text()
    assert Manifest.read(folder).notes == (note,)


def test_licences_nobody_named_are_not_invented(tmp_path: Path) -> None:
    nameless = re.sub(r"licenses: .*", "", RECIPE)
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
    [
        ("PASS", "This file passes all gates"),
        ("FAIL", "This file fails a gate"),
        ("INCONCLUSIVE", "It is not decided whether this file"),
    ],
)
def test_card_says_the_verdict_first(tmp_path: Path, kind: str, says: str) -> None:
    text = (packaged(tmp_path, kind=kind) / "README.md").read_text().split("---\n", 2)[2]
    assert text.index(f"**Verdict: {kind}.**") < text.index("## Gates")
    assert says in text
    assert ("before you ship it" in text) == (kind != "PASS")


def test_card_gives_numbers_with_intervals(tmp_path: Path) -> None:
    text = (packaged(tmp_path) / "README.md").read_text()
    assert "| multi_call | 96.7 % (89.9 to 99.4), 58 of 60 | 86.7 % (77.2 to 93.2), 52 of 60 |" in text
    assert "0.0311 nats on average and 0.412" in text
    assert "| decode speed | 1,184 tokens/s (1,145 to 1,224); slowest 5 %: 947.2 (916.1 to 979.4) |" in text


def with_every_model(update: dict[str, Any], **models: Any) -> Metrics:
    """The finished run's metrics with an update to each model, and models replaced."""
    found = metrics()
    changed = {name: model.model_copy(update=update) for name, model in found.models.present()}
    return found.model_copy(update={"models": Models.model_construct(**(changed | models))})


def test_text_continuation_has_no_counts_and_no_chat(tmp_path: Path) -> None:
    unjudged = with_every_model({"exact": None, "behaviours": {}, "schema_valid": None})
    plain = RECIPE.replace("{context: 512}", "{context: 512, template: plain}")
    folder = packaged(tmp_path, plain, measured=unjudged)
    text = (folder / "README.md").read_text()
    assert "do not say what is right" in text and "/completion" in text and "chat/completions" not in text
    assert "exact_match" not in text
    said = modelfile((folder / "Modelfile").read_text())
    assert said["TEMPLATE"][0].count("{{ .Content }}") == 2


def test_api_teacher_leaves_out_fidelity(tmp_path: Path) -> None:
    folder = packaged(tmp_path, measured=with_every_model({"fidelity": None}, control=None))
    text = (folder / "README.md").read_text()
    assert "KL divergence" not in text and "kl_mean" not in text.split("---\n")[1]


def test_leaked_rows_are_on_the_card(tmp_path: Path) -> None:
    leaked = LeakedRows(rows=3, of=433, row_ids=("a" * 12,))
    folder = packaged(tmp_path, measured=metrics().model_copy(update={"leaked": leaked}))
    assert (
        "3 of 433 test rows were also trained on or used for validation, and are left out"
        in (folder / "README.md").read_text()
    )


# ---- the command ----


def test_verify_says_whether_a_package_is_whole(tmp_path: Path) -> None:
    folder = packaged(tmp_path)
    whole = CliRunner().invoke(main, ["verify", str(folder)])
    assert whole.exit_code == 0 and "every file is as its manifest says" in whole.output
    (folder / "Modelfile").write_text("FROM scratch")
    changed = CliRunner().invoke(main, ["verify", str(folder)])
    assert changed.exit_code == 1 and "Modelfile has 12 bytes" in changed.output
    as_json = CliRunner().invoke(main, ["verify", str(folder), "--json"])
    assert as_json.exit_code == 1 and json.loads(as_json.stdout)["whole"] is False
    assert CliRunner().invoke(main, ["verify", str(tmp_path / "absent")]).exit_code == 2
