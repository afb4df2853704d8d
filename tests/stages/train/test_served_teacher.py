"""A teacher behind an endpoint teaches by the log-probabilities of its answers' tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from endpoints import Endpoint, Script, reply
from fixtures import ROOMS, make_model, write_jsonl
from potstill.components.chat.format import ChatFormat, Example, load_chat
from potstill.components.losses.vocabulary import token_bytes
from potstill.components.runtimes.log_probs import AnswerToken, unpack_tokens
from potstill.components.targets import TargetsReader, TargetsWriter, sequence_key
from potstill.core.artifacts.generated import TOOLS, read_generated, rows_file
from potstill.core.artifacts.training import ServedRowCounts, StoredTargets, Trained
from potstill.core.errors import StepError, TeacherError
from potstill.core.hashing import hashed_value
from potstill.core.recipe import Recipe
from potstill.core.records import Message, Row
from potstill.core.steps import Done
from potstill.pipeline import run as pipeline
from potstill.pipeline.run import RunResult
from potstill.stages.finetune import stage as finetune
from potstill.stages.generate.stage import STAGE, make_inputs
from potstill.stages.targets import stage as targets
from stage_runs import run_stage

START = Callable[[Script], Endpoint]
TOP_K = {"objective": {"targets": {"kind": "top_k", "k": 4}}, "epochs": 1, "batch_tokens": 512}


def talk(polite: str = "") -> list[dict[str, Any]]:
    """Rows with text answers."""
    return [
        {
            "messages": [{"role": "user", "content": f"{polite}{state} in the {room}"}],
            "completion": {"role": "assistant", "content": f"The {room} light is {state} now."},
        }
        for room in ROOMS
        for state in ("on", "off")
    ]


def generated_rows(done: RunResult) -> list[Row]:
    folder = done.folder("generate")
    return read_generated(folder / rows_file("train"), folder / TOOLS)


def recipe(folder: Path, student: Path, url: str, prompts: list[dict[str, Any]], **sections: Any) -> Recipe:
    asked = [{"messages": row["messages"]} for row in prompts]
    return Recipe.model_validate(
        {
            "name": "served",
            "data": {
                "prompts": write_jsonl(folder / "prompts.jsonl", asked),
                "test": write_jsonl(folder / "test.jsonl", talk("now ")),
            },
            "chat": {"context": 128},
            "teacher": {"kind": "api", "model": "m", "base_url": url, "max_concurrency": 2},
            "generate": {"max_new_tokens": 48},
            "student": {"init": "checkpoint", "model": str(student)},
            "train": TOP_K,
            "trainer": {"tracker": "none"},
        }
        | sections
    )


class Teacher:
    """Gives the answers of `talk` in the tokens of `chat`, each with probability 0.9, and the end token with 0.06."""

    def __init__(self, chat: ChatFormat) -> None:
        self.chat = chat
        self.names = token_bytes(json.loads(chat.tokenizer.to_str()))
        self.asked: list[str] = []
        self.silent: set[str] = set()
        self.fail_at: int | None = None

    def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        prompt = body["messages"][-1]["content"]
        if self.fail_at is not None and len(self.asked) >= self.fail_at:
            return 402, {"error": {"message": "no more"}}
        self.asked.append(prompt)
        if prompt in self.silent:
            return 200, reply(None, [("set_light", '{"room": "hall"}')], "tool_calls")
        text = next(r["completion"]["content"] for r in talk() if prompt.endswith(r["messages"][0]["content"]))
        said = Message(role="assistant", content=text)
        example = self.chat.example(Row(messages=(Message(role="user", content=prompt),), completion=said))
        value = reply(text)
        value["choices"][0]["logprobs"] = {"content": [self._entry(i) for i in example.ids[example.n_prompt : -1]]}
        return 200, value

    def _entry(self, number: int) -> dict[str, Any]:
        top = [self._named(number, math.log(0.9)), self._named(self.chat.eos_id, math.log(0.06))]
        return top[0] | {"top_logprobs": top}

    def _named(self, number: int, log_prob: float) -> dict[str, Any]:
        own = (self.names[number] or b"").removeprefix(b"\xff")
        return {"token": own.decode(errors="replace"), "bytes": list(own), "logprob": log_prob}


def test_distributions_of_an_endpoint_are_stored_and_learnt_from(
    endpoint: START, tiny_model: Path, tmp_path: Path
) -> None:
    teacher = Teacher(load_chat(tiny_model))
    prompts = [*talk(), *talk("please ")]
    teacher.silent = {"on in the hall", "off in the attic"}
    given = recipe(tmp_path, tiny_model, endpoint(teacher).url, prompts)
    done = pipeline.run(given, tmp_path / "runs", until="train")
    stored = StoredTargets.read(done.folder("targets"))
    assert stored.rows == ServedRowCounts(distributions=22, tool_calls=2)
    reader = TargetsReader(done.folder("targets") / "store")
    for row in generated_rows(done):
        example = teacher.chat.example(row)
        found = reader.lookup([sequence_key(example.ids, example.n_prompt)])
        assert found.tail is not None
        probs = found.probs.reshape(-1, 4)
        assert found.token_ids.reshape(-1, 4)[:, 0].tolist() == list(example.ids[example.n_prompt :])
        alone = row.messages[0].content in teacher.silent
        # the end token has no log-probabilities; in a row with a parsed tool call, every token counts as certain
        np.testing.assert_allclose(probs[:-1, 0], 1.0 if alone else 0.9, rtol=0.05)
        assert probs[-1].tolist() == [1.0, 0.0, 0.0, 0.0] and found.tail[-1] == 0
        assert (found.tail[:-1] == 0).all() if alone else (found.tail[:-1] > 0.02).all()
    trained = Trained.read(done.folder("train"))
    assert trained.control is not None
    assert trained.student.supervised_tokens == trained.control.supervised_tokens == stored.store.tokens
    assert trained.student.final.teacher_mass == pytest.approx(0.97, abs=0.02)


def test_answers_before_a_kill_are_not_paid_for_again(endpoint: START, tiny_model: Path, tmp_path: Path) -> None:
    teacher = Teacher(load_chat(tiny_model))
    given = recipe(tmp_path, tiny_model, endpoint(teacher).url, [*talk(), *talk("please ")])
    teacher.fail_at = 20
    with pytest.raises(TeacherError, match="no more"):
        pipeline.run(given, tmp_path / "runs", until="targets")
    teacher.fail_at = None
    done = pipeline.run(given, tmp_path / "runs", until="targets")
    assert len(teacher.asked) == len(set(teacher.asked)) == 24
    assert StoredTargets.read(done.folder("targets")).rows == ServedRowCounts(distributions=24)
    # a store that exists is continued, and the summary counts all rows
    before = (done.folder("targets") / "summary.json").read_bytes()
    run_stage(targets.STAGE, given, {"generate": done.folder("generate")}, done.folder("targets"))
    assert (done.folder("targets") / "summary.json").read_bytes() == before


def test_another_tokenizer_is_reported_after_the_first_answers(
    endpoint: START, tiny_model: Path, tmp_path: Path
) -> None:
    teacher = Teacher(load_chat(make_model(tmp_path / "other", layers=1, extra_vocabulary=60)))
    given = recipe(tmp_path, tiny_model, endpoint(teacher).url, [*talk(), *talk("please ")])
    for _ in range(2):
        with pytest.raises(StepError, match=r"another tokenizer.*16 of 16 .*prompts\.jsonl:1 token \d+ is .*endpoint"):
            pipeline.run(given, tmp_path / "runs", until="targets")
    assert len(teacher.asked) == 16


def test_tool_calls_without_distributions_are_reported(endpoint: START, tiny_model: Path, tmp_path: Path) -> None:
    teacher = Teacher(load_chat(tiny_model))
    teacher.silent = {row["messages"][0]["content"] for row in talk()[:8]}
    given = recipe(tmp_path, tiny_model, endpoint(teacher).url, talk())
    with pytest.raises(StepError, match=r"8 of 12 answers .* 8 are tool calls that the endpoint parsed"):
        pipeline.run(given, tmp_path / "runs", until="train")
    assert len(teacher.asked) == 12


def test_log_probabilities_are_in_the_fingerprint_only_where_requested(tiny_model: Path, tmp_path: Path) -> None:
    def parts(**sections: Any) -> dict[str, Any]:
        given = recipe(tmp_path, tiny_model, "http://127.0.0.1:9/v1", talk(), **sections)
        return dict(hashed_value(make_inputs(given, Done({}, STAGE.reads))))

    text = parts(train={"objective": "sft", "control": "none"})
    assert parts() == text | {"logprobs": 4} and text["logprobs"] is None
    assert parts(teacher={"model": str(tiny_model)})["logprobs"] is None


# ---- llama.cpp ----


@dataclass(frozen=True)
class Served:
    """A run whose teacher was a small model in llama.cpp, and that model's weights."""

    done: RunResult
    weights: Path
    chat: ChatFormat
    rows: list[Row]
    said: dict[str, list[AnswerToken]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    pytest.importorskip("xllamacpp")
    from potstill.components.conversion.convert import convert_checkpoint
    from potstill.components.runtimes.gguf import GGUFServer

    folder = tmp_path_factory.mktemp("served")
    base, rows = make_model(folder / "base", layers=2), [*talk(), *talk("please ")]
    tune = {"rows": write_jsonl(folder / "rows.jsonl", rows), "epochs": 30, "batch_tokens": 512, "learning_rate": 3e-3}
    local = recipe(folder, base, "", rows, teacher={"model": str(base), "finetune": tune}, train={})
    run_stage(finetune.STAGE, local, {}, folder)
    convert_checkpoint(folder / "model", folder / "teacher.gguf", quantization="F32")
    with GGUFServer(folder / "teacher.gguf", context=512, parallel=2) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVED_KEY", server.api_key)
        api = {"kind": "api", "model": "m", "base_url": f"{server.address}/v1", "max_concurrency": 2}
        given = recipe(
            folder,
            base,
            "",
            rows,
            teacher=api | {"api_key_env": "SERVED_KEY"},
            generate={"max_new_tokens": 48, "temperature": 1.0},
            train=TOP_K
            | {
                "objective": {"targets": {"kind": "top_k", "k": 20}, "hard_label_weight": 0.1},
                "epochs": 12,
                "learning_rate": 1e-3,
            },
        )
        done = pipeline.run(given, folder / "runs", until="train")
    lines = (done.folder("generate") / "train.logprobs.jsonl").read_text().splitlines()
    said = {entry["row_id"]: unpack_tokens(entry["logprobs"]) for entry in map(json.loads, lines)}
    answered = generated_rows(done)
    return Served(done, folder / "model", load_chat(base), answered, said)


def aligned(served: Served) -> list[tuple[Example, list[AnswerToken]]]:
    """Rows in which llama.cpp and the tokenizer give the same ids; at temperature 1 a text may have other tokens."""
    pairs = [(served.chat.example(row), served.said[row.row_id]) for row in served.rows]
    return [(e, said) for e, said in pairs if [t.token.id for t in said] == list(e.ids[e.n_prompt :])]


def test_llama_cpp_gives_the_log_probabilities_of_the_weights(served: Served) -> None:
    from potstill.components.runtimes.load import load_causal_lm

    model, compared = load_causal_lm(served.weights).eval(), 0
    for example, said in aligned(served):
        with torch.no_grad():
            log_probs_NV = model(torch.tensor([example.ids])).logits[0, example.n_prompt - 1 : -1].log_softmax(-1)
        for token, expected_V in zip(said, log_probs_NV, strict=True):
            for candidate in (token.token, *token.top):
                assert candidate.id is not None
                assert candidate.log_prob == pytest.approx(float(expected_V[candidate.id]), abs=0.03)
                compared += 1
    assert compared > 5000


def test_targets_from_llama_cpp_are_those_of_the_weights(served: Served, tmp_path: Path) -> None:
    from potstill.components.runtimes.load import load_causal_lm
    from potstill.stages.targets.scoring import write_targets

    examples = [example for example, _ in aligned(served)]
    counts = StoredTargets.read(served.done.folder("targets")).rows
    assert counts is not None and counts.distributions == len(examples) >= 20
    assert sum(counts.model_dump().values()) == len(served.rows)
    ours = TargetsReader(served.done.folder("targets") / "store")
    wanted = ours.meta.model_copy(update={"teacher_hash": "weights"})
    with TargetsWriter(tmp_path / "store", wanted) as writer:
        write_targets(load_causal_lm(served.weights), examples, writer, 512)
    keys = [sequence_key(e.ids, e.n_prompt) for e in examples]
    left, right = ours.lookup(keys), TargetsReader(tmp_path / "store", wanted).lookup(keys)
    assert left.tail is not None and right.tail is not None
    for place in range(len(left.tail)):
        entries = slice(20 * place, 20 * place + 20)
        one, other = (dict(zip(s.token_ids[entries], s.probs[entries], strict=True)) for s in (left, right))
        common = one.keys() & other.keys()
        # the last of twenty may differ if two are nearly equal; stored values are on a grid of 1/8 nat
        assert len(common) >= 19
        gaps = [abs(math.log(one[number] / other[number])) for number in common]
        assert max(gaps) < 0.16 and sum(gaps) / len(gaps) < 0.03
    np.testing.assert_allclose(left.tail, right.tail, rtol=0.25, atol=1e-4)


def test_a_student_learns_from_llama_cpp(served: Served) -> None:
    folder = served.done.folder("train")
    log = [json.loads(line) for line in (folder / "student.log.jsonl").read_text().splitlines()]
    assert log[-1]["divergence"] < 0.8 * log[0]["divergence"]
    assert (folder / "student" / "model.safetensors").is_file() and (folder / "control" / "model.safetensors").is_file()
