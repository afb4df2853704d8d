"""Bad input is reported before it costs anything: exit code 2, where it is, what to do, and nothing left behind."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import TOOLS, light_row, light_rows, write_jsonl
from potstill.cli.render.check import render_check
from potstill.components.chat.format import ChatFormat, load_chat
from potstill.core import tools
from potstill.core.artifacts.check import CheckResult
from potstill.core.errors import RecipeError
from potstill.core.hashing import hashed_value
from potstill.core.recipe import Recipe
from potstill.core.records import Row
from potstill.core.steps import Done
from potstill.stages.check import lengths
from potstill.stages.check.check import check_recipe
from potstill.stages.check.stage import STAGE

if TYPE_CHECKING:
    from workshop import Workshop

PUBLIC_TEMPLATES = (
    "Qwen-Qwen2.5-7B-Instruct",
    "meta-llama-Llama-3.1-8B-Instruct",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
)


# ---- a sound run ----


def test_a_sound_run_is_summed_up(workshop: Workshop, tmp_path: Path) -> None:
    recipe = workshop.recipe(target={"file_mb": 1, "memory_mb": 100})
    assert workshop.check(recipe, tmp_path) == check_recipe(recipe)
    found = json.loads((tmp_path / "check.json").read_text())
    chat = load_chat(workshop.model)
    given = [Row.model_validate(row | {"tools": TOOLS}) for row in workshop.rows("test.jsonl")]
    examples = [chat.example(row) for row in given]
    assert found["rows"] == {"prompts": 24, "test": 12}
    assert found["prompt_tokens"]["test"]["max"] == max(e.n_prompt for e in examples)
    assert found["supervised_tokens"]["test"]["min"] == min(e.n_supervised for e in examples)
    assert found["leaked"] == [] and found["warnings"] == []
    assert found["teacher"]["vocab"] == chat.vocab_size
    assert found["teacher"]["padded_vocab"] == 384
    assert found["student"]["layers"] == 2
    assert found["student"]["parameters"] == found["teacher"]["parameters"] - 2 * (2 * 64 + 3 * 64 * 96 + 6 * 64 * 32)
    assert found["file"]["limit_bytes"] == 1_000_000
    assert found["disk"]["needed"] > sum(found["disk"]["stays"].values()) / 2
    assert found["memory"]["needed"] == sum(found["memory"]["parts"].values())


def test_predictions_are_what_an_export_of_the_student_writes(workshop: Workshop, tmp_path: Path) -> None:
    from potstill.components.conversion.convert import convert_checkpoint
    from potstill.components.runtimes.load import load_causal_lm
    from potstill.components.training.students import from_teacher_layers, save_model

    recipe = workshop.recipe(export={"quantization": "Q4_K_M"})
    found = check_recipe(recipe)
    student = from_teacher_layers(load_causal_lm(workshop.model), 2)
    save_model(student, workshop.model, tmp_path / "student")
    written = convert_checkpoint(tmp_path / "student", tmp_path / "s.gguf", quantization="Q4_K_M", threads=1)
    assert found.student.parameters == student.num_parameters()
    assert found.file.bits_per_weight == pytest.approx(written.bits_per_weight, abs=1e-4)
    assert found.file.bytes == pytest.approx(written.file_bytes, abs=300)
    assert any("not a multiple of 256" in warning for warning in found.warnings)


def test_the_base_install_is_enough(workshop: Workshop, tmp_path: Path) -> None:
    import subprocess

    workshop.recipe()
    code = (
        "import sys\n"
        "absent = ['torch', 'transformers', 'gguf', 'safetensors', 'xllamacpp', 'httpx']\n"
        "sys.modules.update(dict.fromkeys(absent))  # as if they were not installed\n"
        "import pathlib, potstill.stages.check.check as c, potstill.core.recipe as r\n"
        "import potstill.cli.render.check as s\n"
        "found = c.check_recipe(r.load_recipe(pathlib.Path(sys.argv[1])))\n"
        "s.render_check(found)\n"
        "print(found.trial)"
    )
    command = [sys.executable, "-c", code, str(workshop.folder / "recipe.yaml")]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "None"


def test_a_check_reads_at_80_columns(workshop: Workshop, tmp_path: Path) -> None:
    from rich.console import Console

    name = "a-model-whose-folder-has-a-very-long-name-indeed"
    workshop.make_model(name)
    found = check_recipe(workshop.recipe(teacher={"model": name}, licenses={"data": "unknown"}))
    pages = []
    found.write(tmp_path)
    for result in (found, CheckResult.read(tmp_path)):
        console = Console(file=io.StringIO(), width=80, highlight=False)
        console.print(render_check(result))
        pages.append(console.file.getvalue())  # type: ignore[attr-defined]
    assert pages[0] == pages[1]
    assert max(map(len, pages[0].splitlines())) <= 80
    words = (*found.rows, "very-long-name-indeed", f"{found.student.parameters:,}", "licenses.data", "Q8_0", "disk")
    for word in words:
        assert word in pages[0]


def test_a_check_is_repeated_when_a_file_that_it_read_has_changed(workshop: Workshop) -> None:
    """Content counts, and nothing else: neither free disk nor where the recipe lies."""

    def key(**changes: Any) -> Any:
        inputs = STAGE.inputs(workshop.recipe(**changes), Done({}, STAGE.reads))
        return hashed_value(inputs)

    before = key()
    assert key() == before
    assert key(trainer={"tracker": "none"}) == before  # changes no answer
    for changes in ({"licenses": {"data": "unknown"}}, {"licenses": {"teacher": "unknown"}}, {"chat": {"context": 200}},
                    {"data": {"limit": 5}}, {"gates": {"exact": 0.9}}, {"target": {"file_mb": 1}}):  # fmt: skip
        assert key(**changes) != before, changes
    keys = [before]
    for path in (workshop.model / "model.safetensors", workshop.test, workshop.prompts, workshop.folder / "tools.json"):
        path.write_bytes(path.read_bytes()[:-1])
        keys.append(key())
    assert len({json.dumps(one) for one in keys}) == len(keys)


# ---- data ----


def test_unknown_key_is_reported_with_the_nearest(workshop: Workshop) -> None:
    expected = r"recipe\.yaml:\d+: unknown key 'data.promts'; did you mean 'prompts'"
    with pytest.raises(RecipeError, match=expected) as caught:
        workshop.recipe(data={"promts": "train.jsonl"})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", ["prompts", "test", "validation", "labelled", "tools"])
def test_missing_files_are_named(workshop: Workshop, key: str) -> None:
    assert "nowhere: no such file" in workshop.refused(workshop.recipe(data={key: "nowhere"}))


def test_broken_jsonl_is_reported_with_its_line(workshop: Workshop) -> None:
    text = workshop.test.read_text().splitlines()
    workshop.test.write_text("\n".join([*text[:4], text[4][:-9], *text[5:]]))
    assert f"{workshop.test}:5: not valid JSON" in workshop.refused(workshop.recipe())


def finetuned(workshop: Workshop) -> Recipe:
    return workshop.recipe(teacher={"finetune": {"rows": "train.jsonl"}})


def test_a_finetune_row_without_assistant_turn_is_reported(workshop: Workshop) -> None:
    where = workshop.spoil("train.jsonl", 3, lambda row: (row.pop("completion"), row.pop("gold")))
    assert f"{where}: the row has no assistant turn" in workshop.refused(finetuned(workshop))


def test_the_same_row_is_a_fine_prompt(workshop: Workshop) -> None:
    workshop.spoil("train.jsonl", 3, lambda row: row.pop("completion"))
    assert check_recipe(workshop.recipe()).supervised_tokens["prompts"].rows == 23


ON_POLICY = {"objective": {"name": "forward_kl", "on_policy": {}}}


def test_prompts_that_only_the_student_answers_are_checked(workshop: Workshop) -> None:
    write_jsonl(workshop.folder / "more.jsonl", [*light_rows(["perhaps "]), light_row("hall", "on", "x " * 400)])
    recipe = workshop.recipe(data={"unanswered": "more.jsonl", "limit": {"unanswered": 12}}, train=ON_POLICY)
    assert check_recipe(recipe).rows["unanswered"] == 12
    recipe = workshop.recipe(data={"unanswered": "more.jsonl"}, train=ON_POLICY)
    assert "more.jsonl:13" in workshop.refused(recipe)
    recipe = workshop.recipe(data={"unanswered": "nowhere"}, train=ON_POLICY)
    assert "nowhere: no such file" in workshop.refused(recipe)
    recipe = workshop.recipe(data={"unanswered": "test.jsonl"}, train=ON_POLICY)
    assert "test prompts are trained on too" in workshop.refused(recipe)


def test_prompts_that_only_the_student_answers_need_on_policy(workshop: Workshop) -> None:
    with pytest.raises(RecipeError, match=r"data.unanswered has prompts .* set train.objective.on_policy"):
        workshop.recipe(data={"unanswered": "train.jsonl"})


def test_labelled_rows_that_are_test_rows_are_refused(workshop: Workshop) -> None:
    assert "test prompts are trained on too" in workshop.refused(workshop.recipe(data={"labelled": "test.jsonl"}))


BAD_TOOLS = {
    "type": "function",
    "function": {"name": "set_light", "parameters": {"type": "object", "properties": {"room": {"type": "strnig"}}}},
}
REMOTE_TOOLS = {
    "type": "function",
    "function": {"name": "far", "parameters": {"type": "object", "properties": {"a": {"$ref": "https://x.invalid/a"}}}},
}


def test_tools_with_invalid_schemas_are_reported(workshop: Workshop) -> None:
    (workshop.folder / "tools.json").write_text(json.dumps([BAD_TOOLS]))
    message = workshop.refused(workshop.recipe())
    assert "tools.json: the parameters of tool 'set_light' are not a valid JSON Schema" in message


@pytest.mark.parametrize(("tool", "expected"), [(BAD_TOOLS, "not a valid JSON Schema"), (REMOTE_TOOLS, "not fetched")])
def test_a_rows_own_tools_are_checked_too(workshop: Workshop, tool: Any, expected: str) -> None:
    where = workshop.spoil("train.jsonl", 7, lambda row: row.update(tools=[tool]))
    message = workshop.refused(workshop.recipe())
    assert f"{where}: the parameters of tool" in message and expected in message


@pytest.mark.parametrize(("reasoning", "done"), [("learn", "it is learnt"), ("drop", "it is left out")])
def test_thinking_in_answers_is_counted(workshop: Workshop, reasoning: str, done: str) -> None:
    for line in (2, 5):
        workshop.spoil("train.jsonl", line, lambda row: row["completion"].update(reasoning_content="It is dark."))
    recipe = workshop.recipe(teacher={"finetune": {"rows": "train.jsonl"}}, chat={"reasoning": reasoning})
    rows = len(workshop.rows("train.jsonl"))
    sentence = f"teacher.finetune.rows: 2 of {rows} answers have thinking; {done} (chat.reasoning: {reasoning})."
    assert sentence in check_recipe(recipe).warnings


def test_each_set_of_tools_is_checked_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"type": "function", "function": {"name": "own", "parameters": {"type": "object"}}}
    for line in (2, 5, 9):
        workshop.spoil(
            "train.jsonl", line, lambda row: row.update(row.pop("gold") and {"tools": [own], "completion": None})
        )
    seen: list[str] = []
    made = tools._validator
    tools._validators.cache_clear()
    monkeypatch.setattr(tools, "_validator", lambda name, schema: (seen.append(name), made(name, schema))[1])
    check_recipe(workshop.recipe())
    assert sorted(seen) == ["own", "set_light"]


GOLDS: dict[str, tuple[dict[str, Any], str]] = {
    "continuation": ({"continuation": True}, "does not use gold.continuation. Give the row the behaviour answer"),
    "regex": ({"match": "(on|off"}, "gold.match is not a valid regular expression"),
    "name": ({"calls": [{"name": "set_lihgt"}]}, "names tool 'set_lihgt', which the row does not have"),
    "type": (
        {"calls": [{"name": "set_light", "arguments": {"room": ["hall", 3], "state": ["on"]}}]},
        'the right arguments {"room": 3, "state": "on"} do not fit',
    ),
    "enum": (
        {"calls": [{"name": "set_light", "arguments": {"room": ["hall"], "state": ["dim"]}}]},
        '"dim" is not one of',
    ),
    "extra": (
        {"calls": [{"name": "set_light", "arguments": {"room": ["hall"], "state": ["on"], "hue": [1]}}]},
        "do not fit the schema of tool 'set_light'",
    ),
    "required": (
        {"calls": [{"name": "set_light", "arguments": {"room": ["hall"], "state": ["on"]}, "optional": ["state"]}]},
        '"state" is a required property',
    ),
    "empty": (
        {"calls": [{"name": "set_light", "arguments": {"room": [], "state": ["on"]}}]},
        "'room' accepts no value",
    ),
}


@pytest.mark.parametrize("case", GOLDS)
def test_golds_that_nothing_can_match_are_reported(workshop: Workshop, case: str) -> None:
    gold, expected = GOLDS[case]
    where = workshop.spoil("test.jsonl", 2, lambda row: row.update(gold=gold))
    message = workshop.refused(workshop.recipe())
    assert message.startswith(where) and expected in message


# ---- rendering ----


def test_a_prompt_longer_than_the_context_is_reported(workshop: Workshop) -> None:
    long = [{"role": "user", "content": "on in the hall " * 60}]
    where = workshop.spoil("train.jsonl", 11, lambda row: row.update(messages=long))
    row = Row.model_validate({"messages": long, "tools": TOOLS})
    tokens = len(load_chat(workshop.model).prompt_ids(row))
    message = workshop.refused(workshop.recipe())
    assert f"{where}: the prompt has {tokens} tokens; with generate.max_new_tokens (64) that is" in message
    assert f"that is {tokens + 64}, more than chat.context (256)" in message


def test_a_prompt_that_just_fits_is_let_through(workshop: Workshop) -> None:
    longest = check_recipe(workshop.recipe()).prompt_tokens
    most = max(found.max for found in longest.values())
    check_recipe(workshop.recipe(chat={"context": most + 64}))
    assert f"({most + 63})" in workshop.refused(workshop.recipe(chat={"context": most + 63}))


def test_a_finetune_row_longer_than_the_context_is_reported(workshop: Workshop) -> None:
    long = {"role": "assistant", "content": "on in the hall " * 60}
    where = workshop.spoil("train.jsonl", 4, lambda row: row.update(completion=long))
    check_recipe(workshop.recipe())  # as a prompt its own answer is not learnt
    message = workshop.refused(finetuned(workshop))
    assert message.startswith(f"{where}: the row has") and "more than chat.context (256)" in message


def template(workshop: Workshop, change: Callable[[str], str]) -> None:
    path = workshop.model / "chat_template.jinja"
    path.write_text(change(path.read_text()))


def without_answers(workshop: Workshop) -> None:
    """Rows that are prompts alone, so that only the probe can tell."""
    for path in (workshop.prompts, workshop.test):
        given = workshop.rows(path.name)
        write_jsonl(path, [{key: row[key] for key in row if key != "completion"} for row in given])


def users_alone(text: str) -> str:
    every = "{% for message in messages %}"
    text = text.replace(every, "{% for message in messages if message.role == 'user' %}")
    return text.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "")


def users_words(text: str) -> str:
    text = text.replace("{{ message.content or '' }}", "{{ message.content if message.role == 'user' }}")
    return text.replace("message.tool_calls or []", "[]")


SPOILT: dict[str, tuple[Callable[[str], str], str]] = {
    "error": (lambda text: "{{ messages[9].content + 1 }}" + text, "cannot render this conversation"),
    "no end": (lambda text: text.replace("<|im_end|>\n", "\n"), "no end-of-turn token (<|im_end|>) follows the answer"),
    "no answer": (users_words, "no supervised token of the answer"),
    "no turn": (users_alone, "no supervised token of the answer"),
    "prompt": (lambda text: "{{ messages | length }}" + text, "renders the prompt differently once it is answered"),
    "refusal": (lambda text: "{{ raise_exception('not today') }}" + text, "cannot render this conversation: not today"),
}


@pytest.mark.parametrize("prompts_alone", [False, True])
@pytest.mark.parametrize("case", SPOILT)
def test_templates_that_cannot_be_learnt_from_are_reported(workshop: Workshop, case: str, prompts_alone: bool) -> None:
    change, expected = SPOILT[case]
    if prompts_alone:
        without_answers(workshop)
    template(workshop, change)
    message = workshop.refused(workshop.recipe())
    assert message.startswith(f"{workshop.prompts}:1: ") and expected in message


def test_a_template_that_drops_tool_calls_alone_is_reported(workshop: Workshop) -> None:
    template(workshop, lambda text: text.replace("message.tool_calls or []", "[]"))
    assert "no supervised token of the answer" in workshop.refused(workshop.recipe())


def test_an_unfinished_answer_needs_no_end(workshop: Workshop) -> None:
    template(workshop, lambda text: text.replace("<|im_end|>\n", "\n"))
    cut = {"finish_reason": "length"}
    for path in (workshop.prompts, workshop.test):
        write_jsonl(path, [row | {"provenance": cut} for row in workshop.rows(path.name)])
    check_recipe(workshop.recipe())


def test_text_continued_without_roles_passes(workshop: Workshop) -> None:
    # the answer "OK" would merge with the prompt's last word; a continuation begins with a space
    for path in (workshop.prompts, workshop.test):
        word = path.stem
        lines = [{"messages": [{"role": "user", "content": f"{word} the kitchen {i}"}]} for i in range(5)]
        write_jsonl(path, [*lines, {"messages": [{"role": "user", "content": f"{word} the kit"}]}])
    found = check_recipe(workshop.recipe(chat={"template": "plain"}, data={"tools": None}))
    assert found.supervised_tokens == {}


def test_cached_pieces_give_the_same_ids(shared_data: Path) -> None:
    from tokenizers import Tokenizer

    messages = [
        {"role": "user", "content": "  off <|im_end|>in the  hall\n"},
        {"role": "assistant", "content": "Which one? "},
        {"role": "user", "content": "é 東京 <tool_call> 12  "},
    ]
    whole = [light_row(room, "on") | {"tools": TOOLS, "messages": messages} for room in ("a", " b\n")]
    given = [Row.model_validate(row) for row in whole]
    compared = 0
    for folder in sorted((shared_data / "tokenizers").glob("*/tokenizer.json")):
        for path in (shared_data / "chat_templates").glob("*.jinja"):
            if path.stem not in PUBLIC_TEMPLATES:
                continue
            tokenizer = Tokenizer.from_file(str(folder))
            tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>"])
            chat = ChatFormat(tokenizer, path.read_text(), None, "<|im_end|>")
            fast = lengths.faster_chat(chat, given)
            for row in given:
                text = chat.render((*row.messages, row.completion), row.tools)  # type: ignore[arg-type]
                assert fast.encode(text) == chat.encode(text), (folder, path)
            compared += isinstance(fast, lengths.PieceCache)
    assert compared >= 4


def test_a_cache_that_would_differ_is_not_used(workshop: Workshop) -> None:
    from tokenizers import AddedToken

    chat = load_chat(workshop.model)
    # it reaches over the beginning of <tool_call>, where text would be cut
    chat.tokenizer.add_tokens([AddedToken("hall<tool_call>x", normalized=False)])
    odd = Row.model_validate({"messages": [{"role": "user", "content": "in the hall<tool_call>x"}]})
    assert type(lengths.faster_chat(chat, [odd])) is ChatFormat
    assert isinstance(lengths.faster_chat(chat, [Row.model_validate(light_row("hall", "on"))]), lengths.PieceCache)


def test_what_rows_share_is_encoded_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [{"type": "function", "function": {**TOOLS[0]["function"], "name": f"tool_{i}"}} for i in range(40)]
    template(workshop, lambda text: text.replace("{{ tool.function.name }}", "{{ tool | tojson }}"))
    (workshop.folder / "tools.json").write_text(json.dumps([*TOOLS, *long]))
    write_jsonl(workshop.prompts, [light_row("hall", "on", f"please {i} ") for i in range(1000)])
    config = workshop.model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 9000}))
    encoded: list[int] = []
    encode = ChatFormat.encode
    monkeypatch.setattr(ChatFormat, "encode", lambda chat, text: (encoded.append(len(text)), encode(chat, text))[1])
    found = check_recipe(workshop.recipe(chat={"context": 9000}))
    assert found.prompt_tokens["prompts"].min > 4000
    # a prompt is encoded by itself and with its answer; nearly all of it is the tools
    assert sum(encoded) < 0.05 * 2 * 1000 * max(encoded)


# ---- leakage ----


def test_a_test_prompt_that_is_trained_on_is_reported(workshop: Workshop) -> None:
    write_jsonl(workshop.test, [light_row("hall", "on", f"now {i} ") for i in range(200)])
    leak = light_row("hall", "on", "now 5 ")
    lines = workshop.rows("train.jsonl")
    write_jsonl(workshop.prompts, [*lines, leak])
    found = check_recipe(workshop.recipe())
    assert found.leaked == (Row.model_validate(leak | {"tools": TOOLS}).row_id,)
    expected = f"1 of 200 test prompts are trained on too, the first at {workshop.test}:6 and {workshop.prompts}:25"
    assert [w for w in found.warnings if expected in w]
    write_jsonl(workshop.prompts, [*lines, leak, light_row("hall", "on", "now 6 "), light_row("hall", "on", "now 7 ")])
    assert "3 of 200 test prompts are trained on too" in workshop.refused(workshop.recipe())


def test_prompts_that_differ_in_case_and_spaces_leak_too_and_repeats_are_told(workshop: Workshop) -> None:
    rows = [light_row("hall", "on", f"now {i} ") for i in range(100)]
    write_jsonl(workshop.test, [*rows, light_row("hall", "on", "Now  0: ")])
    lines = workshop.rows("train.jsonl")
    alike = [light_row("hall", "on", f"NOW {i}, ") for i in range(5)]
    write_jsonl(workshop.prompts, [*lines, *alike[1:]])
    found = check_recipe(workshop.recipe())
    assert len(found.leaked) == 4
    warning = next(w for w in found.warnings if "4 of 101 test prompts are trained on too" in w)
    assert warning.endswith("of every score. 1 of 101 test prompts repeat earlier ones. Each prompt is scored once.")
    write_jsonl(workshop.prompts, [*lines, *alike])
    assert "6 of 101 test prompts are trained on too" in workshop.refused(workshop.recipe())


def test_the_same_words_with_other_tools_are_another_prompt(workshop: Workshop) -> None:
    own = {"type": "function", "function": {**TOOLS[0]["function"], "description": "Other"}}
    workshop.spoil("train.jsonl", 1, lambda row: row.update(light_row("hall", "on", "now ")) or row.update(tools=[own]))
    assert check_recipe(workshop.recipe()).leaked == ()


def test_leakage_into_the_teachers_own_rows_counts(workshop: Workshop) -> None:
    write_jsonl(workshop.folder / "gold.jsonl", [light_row("hall", "on", "now ")])
    recipe = workshop.recipe(teacher={"finetune": {"rows": "gold.jsonl"}})
    assert f"{workshop.folder / 'gold.jsonl'}:1" in workshop.refused(recipe)


def test_validation_rows_that_are_test_rows_or_trained_on_are_told(workshop: Workshop) -> None:
    same = workshop.recipe(data={"validation": "test.jsonl"})
    assert "test prompts are trained on or used for validation too" in workshop.refused(same)
    write_jsonl(workshop.folder / "own.jsonl", workshop.rows("train.jsonl")[:2])
    (warning,) = check_recipe(workshop.recipe(data={"validation": "own.jsonl"})).warnings
    assert warning.startswith(f"data.validation: 2 of 2 prompts are trained on too, the first at {workshop.folder}")


def test_a_trimmed_vocabulary_makes_sizes_upper_bounds(workshop: Workshop) -> None:
    """What is kept is known once rows are generated: until then a budget may still be met."""
    tight = {"file_mb": 0.01, "memory_mb": 0.01}
    with pytest.raises(RecipeError, match=r"target\.file_mb"):
        check_recipe(workshop.recipe(target=tight))
    found = check_recipe(workshop.recipe(target=tight, student={"vocabulary": "workload"}))
    assert any(text.startswith("student.vocabulary: sizes and memory are given for all") for text in found.warnings)
