"""Parity passes on an honest export, and each planted fault is told by its cause."""

from __future__ import annotations

import datetime
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from fixtures import TOOLS, make_tokenizer, write_jsonl
from potstill.components.chat.format import ChatFormat, Example, load_chat
from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.conversion.file_template import adds_bos, file_template, spoken_tokens
from potstill.components.parity.distributions import compare_log_probs
from potstill.components.parity.parity import check_parity
from potstill.components.parity.text import TEST_TEXTS
from potstill.components.runtimes.gguf import GGUFServer
from potstill.core.artifacts.exported import Exported, LogProbParity, Parity, TemplateParity
from potstill.core.errors import ParityError, StepError
from potstill.core.hashing import hashed_value
from potstill.core.recipe import Recipe
from potstill.core.records import Function, Message, Row, ToolCall
from potstill.stages.export.stage import STAGE
from stage_runs import run_stage, stage_inputs

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def call(**arguments: Any) -> Message:
    function = Function(name="set_light", arguments=json.dumps(arguments))
    return Message(role="assistant", tool_calls=(ToolCall(function=function),))


def rows() -> list[Row]:
    return [
        Row(
            messages=(Message(role="user", content=f"{'please ' * i}lights 'on' in the <kitchen>, café №{i}"),),
            tools=tuple(TOOLS) if i % 2 else (),
            completion=call(room="kitchen", state="on"),
            where=f"validation.jsonl:{i + 1}",
        )
        for i in range(3)
    ]


def make_student(
    folder: Path, family: str = "Llama", spoil: Callable[[Any], None] | None = None, **changes: Any
) -> Path:
    """A folder with a random model (the same each time) whose tokens differ in likelihood, norms uneven."""
    import torch
    import transformers

    make_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    sizes = {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.15,
        "bos_token_id": None,
    }
    config = getattr(transformers, f"{family}Config")(**(sizes | changes))
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
        if spoil:
            spoil(model)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A folder with a random Llama."""
    return make_student(tmp_path / "student")


def parity(gguf: Path, folder: Path, tolerance: float = 0.1, given: list[Row] | None = None) -> Parity:
    return check_parity(gguf, folder, load_chat(folder), given or rows(), tolerance=tolerance, context=256)


def to_gguf(folder: Path, quantization: str = "F32", **options: Any) -> Path:
    out = folder.with_suffix(".gguf")
    convert_checkpoint(folder, out, quantization=quantization, **options)
    return out


# ---- honest files ----


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_an_honest_file_passes(tmp_path: Path, family: str) -> None:
    folder = make_student(tmp_path / "student", family)
    found = parity(to_gguf(folder), folder, tolerance=1e-3)
    completion = load_chat(folder).example(rows()[0]).n_supervised
    texts = 3 + len(TEST_TEXTS) + 1
    assert (found.tokenization.texts, found.tokenization.identical) == (texts, texts)
    assert found.template == TemplateParity(rows=3, identical=3)
    assert (found.stop_tokens.tokens, found.stop_tokens.identical) == (1, 1)
    assert found.log_probs.tokens == 3 * completion
    assert found.log_probs.argmax_agreement == 1
    assert 0 < found.log_probs.max_difference < 1e-3


def test_a_file_without_a_template_is_compared_without(student: Path) -> None:
    (student / "chat_template.jinja").unlink()
    gguf = to_gguf(student)
    found = check_parity(gguf, student, load_chat(student, "plain"), rows(), tolerance=1e-3, context=256)
    assert found.template is None


def test_the_test_texts_are_normal_and_all_different() -> None:
    assert all(unicodedata.normalize("NFC", text) == text for text in TEST_TEXTS)
    assert len(set(TEST_TEXTS)) == len(TEST_TEXTS) > 15


# ---- planted faults in the weights ----


def _swap_query_rows(model: Any) -> None:
    weight = model.model.layers[0].self_attn.q_proj.weight
    weight.copy_(weight.reshape(4, 2, 8, 64).flip(1).reshape(64, 64).clone())


def _swap_key_rows(model: Any) -> None:
    weight = model.model.layers[1].self_attn.k_proj.weight
    weight.copy_(weight.flip(0).clone())


def _scale_down_projection(model: Any) -> None:
    model.model.layers[1].mlp.down_proj.weight.mul_(1.1)


def _lose_a_norm(model: Any) -> None:
    model.model.layers[0].input_layernorm.weight.fill_(1)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (_swap_query_rows, "blk.0.attn_q.weight holds the same values in another order"),
        (_swap_key_rows, "blk.1.attn_k.weight holds the same values in another order"),
        (_scale_down_projection, "blk.1.ffn_down.weight holds other values"),
        (_lose_a_norm, "blk.0.attn_norm.weight holds other values"),
    ],
)
def test_a_wrong_weight_is_named(student: Path, fault: Callable[[Any], None], cause: str) -> None:
    gguf = to_gguf(make_student(student.with_name("wrong"), spoil=fault), "F16")
    place = (
        r"wrong\.gguf: .* In validation\.jsonl:\d, at token \d+ \(after '.+'\), the log-probability of '.+' is -?\d+\."
    )
    with pytest.raises(ParityError, match=rf"{place}.*\n?.*{cause}\. Export it again") as caught:
        parity(gguf, student)
    assert "parity_tolerance is 0.1" in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"rms_norm_eps": 0.1}, {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}]
)
def test_right_weights_with_wrong_settings_are_told_as_such(student: Path, change: dict[str, Any]) -> None:
    gguf = to_gguf(make_student(student.with_name("wrong"), **change))
    with pytest.raises(ParityError, match="holds the checkpoint's weights, so the arithmetic differs"):
        parity(gguf, student)


# ---- planted faults around them ----


def test_altered_merges_are_told_with_both_readings(student: Path) -> None:
    wrong = make_student(student.with_name("wrong"))
    tokenizer = json.loads((wrong / "tokenizer.json").read_text())
    merges = tokenizer["model"]["merges"]
    merges.remove(next(pair for pair in merges if "".join(pair) == "Ġthe"))
    (wrong / "tokenizer.json").write_text(json.dumps(tokenizer))
    gguf = to_gguf(wrong)
    told = r"In .+, at token \d+, after .* in\", llama\.cpp has \d+ \('Ġ'\), the checkpoint \d+ \('Ġthe'\)"
    with pytest.raises(
        ParityError,
        match=rf"wrong\.gguf: .*tokenizes text differently.* {told}\. llama\.cpp does not support this tokenizer",
    ):
        parity(gguf, student)


TODAY = datetime.datetime.now().strftime("%d %B %Y")


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("<|im_start|>assistant\n", "<|im_start|>assistant", "The file has another chat template"),
        ("<|im_end|>\n", "\n", "The file has another chat template"),
        ("{{ tool | tojson }}", "{{ tool.function.name }}", "The difference is in the tools"),
        ("{% if tools %}", "{{ strftime_now('%d %B %Y') }}{% if tools %}", "The template writes a date"),
    ],
)
def test_a_changed_template_is_told_by_its_cause(student: Path, old: str, new: str, cause: str) -> None:
    gguf = to_gguf(student, chat_template=TEMPLATE.replace(old, new))
    place = r"another prompt from validation\.jsonl:\d than training does: at token \d+, after "
    with pytest.raises(ParityError, match=f"{place}.*{cause}"):
        parity(gguf, student)


def test_a_variable_that_the_server_sets_is_named(student: Path) -> None:
    thinks = TEMPLATE + "{% if enable_thinking is defined %}<think>{% endif %}"
    (student / "chat_template.jinja").write_text(thinks)
    with pytest.raises(ParityError, match=r"reads enable_thinking, which .* Set it in chat\.template_kwargs"):
        parity(to_gguf(student, chat_template=thinks), student)


def test_another_tokenizer_is_told_from_another_template(student: Path) -> None:
    """The words of the ninth row are where the tokenizers differ; the rows before are the same in both."""
    wrong = make_student(student.with_name("wrong"))
    tokenizer = json.loads((wrong / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": 399, "content": "zyx"})
    (wrong / "tokenizer.json").write_text(json.dumps(tokenizer))
    odd = rows()[0].model_copy(update={"messages": (Message(role="user", content="say zyx"),), "where": "rows:9"})
    with pytest.raises(ParityError, match=r"another prompt from rows:9 .*same text, so the tokenizers differ"):
        parity(to_gguf(wrong), student, given=[rows()[0]] * 8 + [odd])


def test_a_template_that_needs_tools_is_compared_with_them(student: Path) -> None:
    """Without tools it cannot be rendered at all, in training or in llama.cpp."""
    needs = TEMPLATE.replace("{% if tools %}", "").replace(
        "{% endfor %}<|im_end|>\n{% endif %}", "{% endfor %}<|im_end|>\n", 1
    )
    (student / "chat_template.jinja").write_text(needs)
    with_tools = [row.model_copy(update={"tools": tuple(TOOLS)}) for row in rows()]
    with pytest.raises(ValueError, match="not iterable"):
        load_chat(student).render(with_tools[0].messages)
    assert parity(to_gguf(student), student, given=with_tools).template == TemplateParity(rows=3, identical=3)
    other = to_gguf(student, chat_template=needs.replace("{{ tool | tojson }}", "{{ tool.function.name }}"))
    with pytest.raises(ParityError, match=r"another prompt from validation\.jsonl:1 "):
        parity(other, student, given=with_tools)


def test_a_template_that_llama_cpp_cannot_run_is_told_in_its_words(student: Path) -> None:
    gguf = to_gguf(student, chat_template="{{ raise_exception('never') }}" + TEMPLATE)
    with pytest.raises(StepError, match=r"cannot serve .*student\.gguf.*Jinja Exception: never.*template, simplify it"):
        parity(gguf, student)


def test_a_row_that_llama_cpps_template_refuses_is_told(student: Path) -> None:
    """The template runs on llama.cpp's own trial messages, and not on this row's."""
    refusing = (
        "{% if messages[0].content.startswith('lights') %}{{ raise_exception('no lights') }}{% endif %}" + TEMPLATE
    )
    with pytest.raises(
        ParityError, match=r"cannot run the chat template on validation\.jsonl:1\..*no lights.*Simplify"
    ):
        parity(to_gguf(student, chat_template=refusing), student)


def test_what_llama_cpp_writes_otherwise_is_found(student: Path) -> None:
    """llama.cpp's tojson writes six digits, so a history with a longer number is another prompt there."""
    row = rows()[0]
    history = (*row.messages, call(latitude=52.520008), Message(role="tool", content="ok"))
    with pytest.raises(
        ParityError, match=r"at token \d+, after '.*\"latitude\": 52\.52.*llama\.cpp writes numbers with six digits"
    ):
        parity(to_gguf(student), student, given=[row.model_copy(update={"messages": history})])


def test_an_end_token_that_llama_cpp_does_not_know_is_told(student: Path) -> None:
    gguf = to_gguf(student)
    chat = load_chat(student)
    more = ChatFormat(chat.tokenizer, chat.template, None, "<|im_end|>", frozenset([77]))
    with pytest.raises(ParityError, match=r"ends an answer with token 77 .*continues after it"):
        check_parity(gguf, student, more, rows(), tolerance=0.1, context=256)


def test_rows_beyond_the_context_cannot_be_compared(student: Path) -> None:
    with pytest.raises(ParityError, match=r"None of 3 rows has a completion within 16 tokens"):
        check_parity(to_gguf(student), student, load_chat(student), rows(), tolerance=0.1, context=16)


# ---- tokens that begin a prompt ----

PROCESSORS: dict[str, dict[str, Any]] = {
    "template": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    },
    "roberta": {
        "type": "RobertaProcessing", "sep": ["<|im_end|>", 2], "cls": ["<|im_start|>", 1],
        "trim_offsets": True, "add_prefix_space": False,
    },
    "bert": {"type": "BertProcessing", "sep": ["<|im_end|>", 2], "cls": ["<|im_start|>", 1]},
}  # fmt: skip
PROCESSORS["sequence"] = {
    "type": "Sequence",
    "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}, PROCESSORS["template"]],
}


@pytest.mark.parametrize("writes_bos", [True, False])
@pytest.mark.parametrize("name", PROCESSORS)
def test_prompts_begin_as_in_training_whatever_the_post_processor_adds(
    student: Path, name: str, writes_bos: bool
) -> None:
    """Training takes all special tokens from the template, so a file must add none: neither a second BOS nor an EOS."""
    tokenizer = json.loads((student / "tokenizer.json").read_text()) | {"post_processor": PROCESSORS[name]}
    (student / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((student / "tokenizer_config.json").read_text()) | {"bos_token": "<|endoftext|>"}
    (student / "tokenizer_config.json").write_text(json.dumps(config))
    template = ("{{ bos_token }}" if writes_bos else "") + TEMPLATE
    (student / "chat_template.jinja").write_text(template)
    chat = load_chat(student)
    assert chat.prompt_ids(rows()[0]).count(0) == int(writes_bos)
    gguf = to_gguf(student, chat_template=file_template(chat), adds_bos=adds_bos(chat, rows()))
    assert parity(gguf, student).template == TemplateParity(rows=3, identical=3)
    assert bool(GGUFReader(gguf).get_field("tokenizer.ggml.add_bos_token").contents()) == writes_bos  # type: ignore[union-attr]
    assert not GGUFReader(gguf).get_field("tokenizer.ggml.add_eos_token").contents()  # type: ignore[union-attr]


# ---- special tokens that answers contain ----


def test_special_tokens_of_answers_are_shown_by_the_server(student: Path) -> None:
    """llama.cpp leaves control tokens out of an answer, and with them the tags of calls and the words of a domain."""
    tokenizer = json.loads((student / "tokenizer.json").read_text())
    tag = next(token for token in tokenizer["added_tokens"] if token["content"] == "<tool_call>")
    unsaid = {**tag, "id": 362, "content": "<unsaid>", "special": True}
    word = {**tag, "id": 363, "content": "<lamp_7>", "special": True}
    tag["special"] = True
    tokenizer["added_tokens"] += [unsaid, word]
    (student / "tokenizer.json").write_text(json.dumps(tokenizer))
    chat = load_chat(student)
    says = rows()[0].model_copy(update={"completion": Message(role="assistant", content="I switch <lamp_7>")})
    given = [*rows(), says]
    spoken = spoken_tokens(chat, given)
    assert spoken == {tag["id"], 363}  # not <|im_end|>, which ends the answers, nor <unsaid>
    gguf = to_gguf(student, chat_template=file_template(chat), spoken=spoken)
    assert parity(gguf, student, given=given).tokenization.identical == len(given) + len(TEST_TEXTS) + 1
    with GGUFServer(gguf, context=256) as server:
        for token, shown in ((363, "<lamp_7>"), (362, ""), (tag["id"], "<tool_call>")):
            body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "logit_bias": [[token, 1000]]}
            message = server.post("/v1/chat/completions", body)["choices"][0]["message"]
            assert message["content"] == shown


# ---- ties ----


class _Given:
    """Stands for a runtime: its log-probabilities are given."""

    def __init__(self, chat: ChatFormat, probabilities: list[list[float]]) -> None:
        self.chat = chat
        self._log_probs = np.log(np.array(probabilities, np.float32))

    def log_probs(self, ids: Any, first: int) -> Any:
        return self

    def numpy(self) -> Any:
        return self._log_probs


def _compared(chat: ChatFormat, expected: list[list[float]], found: list[list[float]], tolerance: float) -> Any:
    trusted = _Given(chat, expected)
    tested = _Given(chat, found)
    tested.log_probs = lambda ids, first: tested.numpy()  # type: ignore[method-assign]
    example = Example((1, 2, *range(len(expected))), 2, False)
    return compare_log_probs(tested, trusted, [(rows()[0], example)], tolerance)  # type: ignore[arg-type]


def test_a_near_tie_is_counted_and_a_far_one_refused(student: Path) -> None:
    chat = load_chat(student)
    near, turned = [[0.500, 0.499, 0.001]], [[0.499, 0.500, 0.001]]
    same = [[0.1, 0.2, 0.7]]
    assert _compared(chat, near + same, turned + same, 0.01) == LogProbParity.model_construct(
        rows=1, tokens=2, max_difference=pytest.approx(0.002, abs=1e-5), argmax_agreement=0.5, near_ties=1
    )
    # every difference is within the tolerance, but together they move the likeliest token too far: 0.07 nats
    with pytest.raises(ParityError, match=r"at token 2 .*is -0\.69\d\d in llama\.cpp and -0\.74\d\d in the checkpoint"):
        _compared(chat, [[0.510, 0.475, 0.015]], [[0.485, 0.4995, 0.0155]], 0.06)


def test_a_token_that_only_one_side_finds_likely_counts(student: Path) -> None:
    chat = load_chat(student)
    rare, common = [[0.9999, 0.00005, 0.00005]], [[0.9990, 0.00095, 0.00005]]
    for expected, found in ((rare, common), (common, rare)):
        with pytest.raises(ParityError, match=f"of '{chat.tokenizer.id_to_token(1)}'"):
            _compared(chat, expected, found, 0.05)
    # both unlikely: not compared
    assert _compared(chat, [[0.9999, 0.00009, 0.00001]], [[0.9999, 0.00001, 0.00009]], 0.05).tokens == 1


def test_not_a_number_is_a_difference(student: Path) -> None:
    with pytest.raises(ParityError, match="nan"):
        _compared(load_chat(student), [[0.5, 0.5, float("nan")]], [[0.4, 0.5, 0.1]], 0.5)


# ---- the stage ----


def recipe(**changes: Any) -> Recipe:
    value: dict[str, Any] = {
        "name": "lights",
        "data": {"prompts": "p.jsonl", "test": "t.jsonl"},
        "chat": {"context": 256},
        "teacher": {"model": "maker/big-model"},
        "student": {"init": "teacher_layers", "layers": 2},
        "licenses": {"package": "apache-2.0"},
    }
    return Recipe.model_validate(value | changes)


@pytest.fixture
def steps(student: Path, tmp_path: Path) -> dict[str, Path]:
    """Directories of train, generate and export."""
    found = {name: tmp_path / name for name in ("train", "generate", "export")}
    for folder in found.values():
        folder.mkdir()
    student.rename(found["train"] / "student")
    write_jsonl(
        found["generate"] / "train.jsonl", [json.loads(row.model_dump_json(exclude_none=True)) for row in rows()]
    )
    (found["generate"] / "validation.jsonl").write_text("")
    (found["generate"] / "tools.json").write_text("[]")
    return found


def export(recipe: Recipe, steps: dict[str, Path]) -> Exported:
    """What the stage leaves, on these finished steps."""
    run_stage(STAGE, recipe, {name: steps[name] for name in ("train", "generate")}, steps["export"])
    return Exported.read(steps["export"])


def test_the_stage_leaves_the_shipped_file_and_its_numbers(steps: dict[str, Path]) -> None:
    import gguf

    found = export(recipe(), steps)
    shipped = steps["export"] / "lights-Q8_0.gguf"
    assert sorted(p.name for p in steps["export"].iterdir()) == ["exported.json", "lights-Q8_0.gguf"]
    assert found.file == shipped.name and found.quantization == "Q8_0"
    assert found.bytes == shipped.stat().st_size < found.bytes_f16
    assert 8.5 <= found.bits_per_weight < 9
    assert found.parity.log_probs.rows == 3
    fields = gguf.GGUFReader(shipped).fields
    said = {key: fields[f"general.{key}"].contents() for key in ("name", "license", "base_model.0.repo_url")}
    assert said == {
        "name": "lights",
        "license": "apache-2.0",
        "base_model.0.repo_url": "https://huggingface.co/maker/big-model",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"licenses": {"package": "mit"}},
        {"name": "lamps"},
        {"teacher": {"model": "maker/other-model"}},
        {"export": {"quantization": "F16"}},
        {"chat": {"template": "plain", "context": 256}},
    ],
)
def test_what_the_file_says_is_in_the_steps_fingerprint(steps: dict[str, Path], change: dict[str, Any]) -> None:
    folders = {name: steps[name] for name in ("train", "generate")}
    before, after = (hashed_value(stage_inputs(STAGE, recipe(**c), folders)) for c in ({}, change))
    assert before != after


def test_an_f16_file_is_shipped_as_it_was_compared(steps: dict[str, Path]) -> None:
    assert export(recipe(export={"quantization": "F16"}), steps).file == "lights-F16.gguf"
    assert sorted(p.name for p in steps["export"].iterdir()) == ["exported.json", "lights-F16.gguf"]


def test_no_file_is_shipped_when_parity_fails(steps: dict[str, Path]) -> None:
    strict = recipe(export={"parity_tolerance": 1e-7})
    with pytest.raises(ParityError, match=r"f16\.gguf: .*parity_tolerance is 1e-07.*rounding"):
        export(strict, steps)
    assert not list(steps["export"].glob("lights-*"))


def test_the_plain_template_is_shipped_and_starts_with_no_token_of_llama_cpps_own(steps: dict[str, Path]) -> None:
    """llama.cpp gives a template some bos_token also where the tokenizer has none: the prompt would begin with it."""
    plain = recipe(chat={"template": "plain", "context": 256})
    assert export(plain, steps).parity.template == TemplateParity(rows=3, identical=3)


def test_a_date_that_training_never_saw_is_kept_out(steps: dict[str, Path], tmp_path: Path) -> None:
    """llama.cpp gives templates today's date, in one variable for Llama 3.1 and by a function for Llama 3.2."""
    dated = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n"
    (tmp_path / "dated.jinja").write_text(dated + TEMPLATE)
    chosen = recipe(chat={"template": str(tmp_path / "dated.jinja"), "context": 256})
    assert export(chosen, steps).parity.template == TemplateParity(rows=3, identical=3)


def test_a_finished_file_has_what_was_trained_and_says_so(steps: dict[str, Path]) -> None:
    generated = steps["generate"]
    (generated / "validation.jsonl").write_text((generated / "train.jsonl").read_text())
    finish = {"steps": 10, "rows": 2, "learning_rate": 1e-4, "norm_learning_rate": 1e-3}
    plain = export(recipe(export={"quantization": "Q4_0"}), steps)
    before = (steps["export"] / plain.file).read_bytes()
    found = export(recipe(export={"quantization": "Q4_0", "finish": finish}), steps)
    assert sorted(p.name for p in steps["export"].iterdir()) == ["exported.json", "lights-Q4_0.gguf"]
    assert plain.finished is None and found.finished is not None
    assert found.finished.kl_after < found.finished.kl_before and found.finished.weight_difference <= 1e-6
    assert found.bytes == plain.bytes and (steps["export"] / found.file).read_bytes() != before


def test_a_file_with_other_weights_than_were_trained_is_refused(
    steps: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = steps["generate"]
    (generated / "validation.jsonl").write_text((generated / "train.jsonl").read_text())
    monkeypatch.setattr("potstill.components.conversion.file_weights.largest_difference", lambda *given: 2e-6)
    with pytest.raises(ParityError, match="differs from the model that was trained by 2e-06"):
        export(recipe(export={"quantization": "Q4_0", "finish": {"steps": 1}}), steps)
    assert not (steps["export"] / "exported.json").exists()


def test_a_format_without_blocks_cannot_be_finished() -> None:
    with pytest.raises(ValueError, match="finish trains through a quantized format, and F16 is none"):
        recipe(export={"quantization": "F16", "finish": {}})
