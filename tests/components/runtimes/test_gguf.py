"""A GGUF in llama.cpp answers as its checkpoint does in transformers, and its process leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from fixtures import TOOLS
from potstill.components.chat.format import load_chat
from potstill.components.chat.tool_calls import ParsedAnswer, parse_answer
from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.conversion.file_template import file_template
from potstill.components.runtimes import Answer, Sampling
from potstill.components.runtimes.chat_reply import ChatReply
from potstill.components.runtimes.gguf import GGUFServer, RefusedRequest
from potstill.components.runtimes.gguf_runtime import GGUFRuntime
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.runtimes.load import load_causal_lm
from potstill.core.errors import ParityError, StepError
from potstill.core.records import Call, Message, Row

SAMPLING = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module")
def chain_server(chain_model: Path) -> Iterator[GGUFServer]:
    with GGUFServer(chain_model.with_suffix(".gguf"), context=1024, parallel=3) as server:
        yield server


@pytest.fixture(scope="module")
def plain_server(chain_model: Path) -> Iterator[GGUFServer]:
    with GGUFServer(chain_model.with_suffix(".plain.gguf"), context=1024, parallel=3) as server:
        yield server


def user(text: str) -> Row:
    return Row(messages=(Message(role="user", content=text),))


ASKED = ["<ask-call>", "<ask-bytes>", "<ask-endless>", "hello <ask-bytes>", "<ask-call>" * 5]


@pytest.fixture(scope="module")
def trusted(chain_model: Path) -> HFRuntime:
    return HFRuntime(load_causal_lm(chain_model), load_chat(chain_model, "plain"), context=256)


def told(answer: Answer) -> tuple[str, str, int, int]:
    return answer.text, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens


def test_answers_are_those_of_the_checkpoint(plain_server: GGUFServer, trusted: HFRuntime, call: str) -> None:
    rows = [user(text) for text in ASKED]
    runtime = GGUFRuntime(plain_server, trusted.chat, context=256, parallel=3)
    heard: dict[int, Answer] = {}
    answers = runtime.answer(rows, SAMPLING, "test", lambda pairs: heard.update(pairs))
    assert [told(a) for a in answers] == [told(a) for a in trusted.answer(rows, SAMPLING, "test")]
    assert heard == dict(enumerate(answers))
    assert [a.text for a in answers] == [call, "é<word>", "<again>" * 12, "é<word>", call]
    assert [a.finish_reason for a in answers] == ["stop", "stop", "length", "stop", "stop"]


def test_end_of_text_that_only_llama_cpp_knows_ends_an_answer_and_is_not_in_it(
    plain_server: GGUFServer, trusted: HFRuntime
) -> None:
    (answer,) = GGUFRuntime(plain_server, trusted.chat, 256).answer([user("<ask-end-of-text>")], SAMPLING, "test")
    assert told(answer)[:2] == ("<bye>", "stop")
    assert answer.completion_tokens == 1


def test_sampling_follows_seed_temperature_and_row(plain_server: GGUFServer, trusted: HFRuntime) -> None:
    runtime = GGUFRuntime(plain_server, trusted.chat, 256)
    hot = Sampling(8, temperature=50.0, seed=1)

    def texts(sampling: Sampling) -> list[str]:
        return [a.text for a in runtime.answer([user("<ask-endless>"), user("x<ask-endless>")], sampling, "test")]

    assert texts(hot) == texts(hot)
    assert texts(hot)[0] != texts(hot)[1]
    assert texts(hot) != texts(Sampling(8, temperature=50.0, seed=2))
    # the nucleus is cut from the tempered distribution, as transformers and HFRuntime do: flat, but for the likeliest
    assert texts(Sampling(8, temperature=50.0, top_p=0.9)) != ["<again>" * 8] * 2
    assert texts(Sampling(8, temperature=50.0, top_p=0.001)) == ["<again>" * 8] * 2


@pytest.mark.parametrize("spare", [0, 3])
def test_an_answer_stops_where_the_context_ends(plain_server: GGUFServer, trusted: HFRuntime, spare: int) -> None:
    row = user("<ask-endless>" * 20)
    runtime = GGUFRuntime(plain_server, trusted.chat, context=20 + spare)
    trusted_there = HFRuntime(trusted.model, trusted.chat, context=20 + spare)
    (answer,), (expected,) = (r.answer([row], SAMPLING, "test") for r in (runtime, trusted_there))
    assert told(answer) == told(expected) == ("<again>" * spare, "length", 20, spare)


def test_log_probs_are_the_checkpoints_untempered_and_by_id(random_model: Path) -> None:
    chat = load_chat(random_model)
    trusted = HFRuntime(load_causal_lm(random_model), chat, context=256)
    ids = chat.encode("<|im_start|>user\nturn on the light in the attic<|im_end|>\nÄé <tool_call>\n")
    for exact, atol in ((True, 1e-4), (False, 0.1)):
        with GGUFServer(random_model.with_suffix(".gguf"), context=256, exact=exact) as server:
            runtime = GGUFRuntime(server, chat, 256)
            found_SV, expected_SV = runtime.log_probs(ids, 1), trusted.log_probs(ids, 1).numpy()
            assert found_SV.shape == expected_SV.shape == (len(ids) - 1, chat.vocab_size)
            np.testing.assert_allclose(found_SV, expected_SV, rtol=0, atol=atol)
            whole_SV = server.log_probs(ids, len(ids) - 2)
            assert whole_SV.shape == (2, chat.vocab_size + 20)  # padding
            np.testing.assert_allclose(np.exp(whole_SV).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.exp(found_SV).sum(axis=1), 1, atol=1e-5)


def test_log_probs_do_not_depend_on_the_token_drawn(chain_server: GGUFServer, trusted: HFRuntime) -> None:
    """The likeliest token is half a letter here, and an end token there: llama.cpp alone would leave answers out."""
    for text in ("<ask-bytes>", "</tool_call>", "<word>"):
        ids = [*trusted.chat.encode(text), 0]
        expected_SV = trusted.log_probs(ids, len(ids) - 1).numpy()
        np.testing.assert_allclose(chain_server.log_probs(ids, len(ids) - 1), expected_SV, rtol=0, atol=0.02)


@pytest.mark.parametrize("first", [0, 3])
def test_log_probs_refuse_a_position_outside_the_text(chain_server: GGUFServer, first: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 2"):
        chain_server.log_probs([1, 2], first)


def test_text_becomes_the_tokenizers_ids(chain_server: GGUFServer, trusted: HFRuntime) -> None:
    text = "Ünï 12 <|im_end|> <tool_call>\n"
    assert chain_server.tokenize(text) == trusted.chat.encode(text)


def test_template_of_the_file_is_the_folders(chain_server: GGUFServer, chain_model: Path) -> None:
    messages = (Message(role="user", content="lights 'off' <é>"),)
    expected = load_chat(chain_model).render(messages, tuple(TOOLS), generate=True)
    assert chain_server.apply_template(messages, TOOLS) == expected
    assert "set_light" in expected


def test_which_tokens_end_an_answer(chain_server: GGUFServer, trusted: HFRuntime) -> None:
    ends = {t: chain_server.ends_generation(trusted.chat.encode(t)[0]) for t in ("<|im_end|>", "<tool_call>", "x")}
    assert ends == {"<|im_end|>": True, "<tool_call>": False, "x": False}


def test_a_refused_request_names_llama_cpps_reason(chain_server: GGUFServer) -> None:
    with pytest.raises(StepError, match=r"chain.gguf, refused /completion \(400\): .*context size"):
        chain_server.post("/completion", {"prompt": [1] * 2000, "n_predict": 1})


def test_the_server_wants_its_key(chain_server: GGUFServer) -> None:
    import httpx

    assert httpx.get(f"{chain_server.address}/props", trust_env=False).status_code == 401


# ---- the chat endpoint ----


def test_calls_are_those_that_the_chat_endpoint_reads(chain_server: GGUFServer, chain_model: Path, call: str) -> None:
    row = user("lights").model_copy(update={"tools": tuple(TOOLS)})
    (answer,) = GGUFRuntime(chain_server, load_chat(chain_model), 512).answer([row], Sampling(40), "test")
    assert answer.text == call
    assert answer.finish_reason == "stop"
    wanted = Call(name="set_light", arguments={"room": "kitchen", "state": "on"})
    assert answer.parsed == ParsedAnswer((wanted,), "")


def test_tags_of_calls_that_are_special_tokens_stay_in_the_text_and_are_read(
    chain_model: Path, call: str, tmp_path: Path
) -> None:
    """As in MiniCPM and Mistral; llama.cpp leaves special tokens out of the text of other models."""
    folder = tmp_path / "special"
    shutil.copytree(chain_model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["special"] |= token["content"] in ("<tool_call>", "</tool_call>")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    row = user("lights").model_copy(update={"tools": tuple(TOOLS)})
    chat = load_chat(folder)
    convert_checkpoint(folder, tmp_path / "special.gguf", quantization="F32", chat_template=chat.template)
    with GGUFServer(tmp_path / "special.gguf", context=512) as server:
        (answer,) = GGUFRuntime(server, chat, 512).answer([row], Sampling(40), "test")
    assert answer.text == call
    assert answer.parsed and [c.name for c in answer.parsed.calls] == ["set_light"]


def test_calls_as_mistral_writes_them_are_read_by_the_endpoint(
    chain_model: Path, shared_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mistral"
    shutil.copytree(chain_model, folder)
    spelt = {
        "<ask-call>": "[/INST]",
        "<tool_call>": "[TOOL_CALLS]",
        '\n{"name": "set_light", "arguments": ': '[{"name": "set_light", "arguments": ',
        '{"room": "kitchen", "state": "on"}}\n': '{"room": "kitchen", "state": "on"}',
        "</tool_call>": ', "id": "abcdefgh1"}]',
    }
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["content"] = spelt.get(token["content"], token["content"])
        token["special"] |= token["content"] in ("[/INST]", "[TOOL_CALLS]")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    template = shared_data / "chat_templates" / "mistralai-Mistral-Nemo-Instruct-2407.jinja"
    (folder / "chat_template.jinja").write_text(template.read_text())
    chat = load_chat(folder)
    convert_checkpoint(folder, tmp_path / "mistral.gguf", quantization="F32", chat_template=file_template(chat))
    row = user("lights").model_copy(update={"tools": tuple(TOOLS)})
    with GGUFServer(tmp_path / "mistral.gguf", context=512) as server:
        (answer,) = GGUFRuntime(server, chat, 512).answer([row], Sampling(40), "test")
    written = {"name": "set_light", "arguments": {"room": "kitchen", "state": "on"}, "id": "abcdefgh1"}
    assert answer.text == "[TOOL_CALLS]" + json.dumps([written])
    wanted = Call(name="set_light", arguments={"room": "kitchen", "state": "on"})
    assert answer.parsed == ParsedAnswer((wanted,), "") == parse_answer(answer.text, "mistral")


def test_without_tools_the_chat_endpoint_leaves_the_call_in_the_words(
    chain_server: GGUFServer, chain_model: Path, call: str
) -> None:
    (answer,) = GGUFRuntime(chain_server, load_chat(chain_model), 512).answer([user("lights")], Sampling(40), "test")
    assert answer.parsed == ParsedAnswer((), call)


def test_another_prompt_than_training_had_is_refused(chain_server: GGUFServer, chain_model: Path) -> None:
    runtime = GGUFRuntime(chain_server, load_chat(chain_model, "plain"), 512)
    row = user("<ask-call>").model_copy(update={"where": "test.jsonl:7"})
    with pytest.raises(ParityError, match=r"chain\.gguf: .*For test\.jsonl:7 it has \d\d? tokens, and 1 in training"):
        runtime.answer([row], SAMPLING, "test")


def test_an_answer_that_llama_cpp_cannot_read_is_malformed(
    chain_server: GGUFServer, chain_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = GGUFRuntime(chain_server, load_chat(chain_model), 512)
    reasons = {500: "The model produced output that does not match the expected peg-native format", 503: "busy"}

    def refuse(path: str, body: object) -> dict[str, object]:
        raise RefusedRequest("refused", status, reasons[status])

    monkeypatch.setattr(chain_server, "post", refuse)
    status = 500
    (answer,) = runtime.answer([user("lights")], SAMPLING, "test")
    assert (answer.text, answer.finish_reason) == ("", "stop")
    assert answer.parsed == ParsedAnswer((), "", reasons[500])
    status = 503
    with pytest.raises(RefusedRequest):
        runtime.answer([user("lights")], SAMPLING, "test")


def reply(**message: object) -> ChatReply:
    verbose = {"tokens": [1], "stop_type": "eos"}
    choice = {"message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return ChatReply.model_validate({"choices": [choice], "__verbose": verbose, "usage": {"prompt_tokens": 3}})


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"n": 5, "m": 5.0, "s": "5", "on": true, "x": null}', {"n": 5, "m": 5.0, "s": "5", "on": True, "x": None}),
        ("", {}),
        (" {} ", {}),
        ('{"n": ', None),
        ("[1]", None),
        ('{"n": NaN}', None),
        ('{"n": 1, "n": 2}', None),
        ("{} {}", None),
        ('{"s": "\\ud800"}', None),
        ("[" * 100_000, None),
    ],
)  # fmt: skip
def test_arguments_keep_their_types_or_cannot_be_read(arguments: str, read: dict[str, object] | None) -> None:
    calls = [{"id": "x", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    found = reply(content=None, tool_calls=calls).parsed
    assert (found.parse_error is None) == (read is not None)
    if read is not None:
        assert [repr(c.arguments) for c in found.calls] == [repr(read)]


def test_reasoning_that_the_endpoint_separates_is_no_part_of_the_answer() -> None:
    assert reply(content="Yes.", reasoning_content="Is it? No.").parsed == ParsedAnswer((), "Yes.")


# ---- speed and memory ----


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_the_childs_own(chain_server: GGUFServer) -> None:
    ballast = bytearray(300_000_000)  # in this process: must not show in the child's peak
    ballast[::4096] = b"x" * len(ballast[::4096])
    status = Path(f"/proc/{chain_server.pid}/status").read_text()
    expected = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert chain_server.peak_rss_mb() == pytest.approx(expected * 1024 / 1e6, rel=0.02)
    assert chain_server.peak_rss_mb() < 200


# ---- the process ----


def test_a_broken_file_is_told_in_llama_cpps_words(chain_model: Path, tmp_path: Path) -> None:
    whole = chain_model.with_suffix(".gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    with (
        pytest.raises(StepError, match=r"cannot serve .*cut\.gguf.*code 1.*not within the file bounds"),
        GGUFServer(cut, context=64),
    ):
        pass


def test_a_server_that_dies_is_told(chain_model: Path) -> None:
    with GGUFServer(chain_model.with_suffix(".gguf"), context=64) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert _closes(server.address)
        with pytest.raises(StepError, match=r"chain\.gguf, does not answer"):
            server.tokenize("a")
        with pytest.raises(StepError, match="stopped while serving"):
            server.peak_rss_mb()


def _listens(address: str) -> bool:
    place = urlsplit(address)
    with socket.socket() as probe:
        return probe.connect_ex((place.hostname, place.port)) == 0


def _closes(address: str) -> bool:
    return _in_time(lambda: not _listens(address), 10)


def test_the_server_ends_with_its_block(chain_model: Path) -> None:
    with GGUFServer(chain_model.with_suffix(".gguf"), context=64) as server:
        assert _listens(server.address)
    assert _closes(server.address)


def test_the_server_dies_with_its_parent(chain_model: Path) -> None:
    """Also when the parent is killed with -9 and can do nothing about it."""
    code = f"""
        import sys, time
        from pathlib import Path
        from potstill.components.runtimes.gguf import GGUFServer
        with GGUFServer(Path({str(chain_model.with_suffix(".gguf"))!r}), context=64) as server:
            print(server.address, flush=True)
            time.sleep(60)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    address = parent.stdout.readline().strip()
    assert _listens(address)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert _closes(address)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2, 0.5, 1.0])  # from its first moment to where the file is opened
def test_the_server_dies_with_a_parent_that_is_killed_while_it_loads(tmp_path: Path, seconds: float) -> None:
    """The file is a pipe without a writer, so that loading never ends."""
    code = """
        import sys
        from pathlib import Path
        from potstill.components.runtimes.gguf import GGUFServer
        GGUFServer(Path(sys.argv[1]), context=64).__enter__()
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    file = tmp_path / "endless.gguf"
    os.mkfifo(file)
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(file)], env=environment)
    assert _in_time(lambda: len(_processes_with(file) - {parent.pid}) > 0, 30)
    time.sleep(seconds)
    parent.kill()
    parent.wait()
    ended = _in_time(lambda: not _processes_with(file), 10)
    for pid in _processes_with(file):
        os.kill(pid, signal.SIGKILL)
    assert ended


def _processes_with(argument: Path) -> set[int]:
    """Processes that were started with this argument."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(argument).encode() in (process / "cmdline").read_bytes().split(b"\0"):
                found.add(int(process.name))
    return found


def _in_time(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()
