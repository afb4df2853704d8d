"""The policy in force: what is withheld, escalated, counted and traced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from endpoints import Endpoint, Script, reply
from fixtures import TOOLS, light_row, write_jsonl
from potstill.cli.main import main
from potstill.components.deferral.drift import Observation, add_observation, reference_of
from potstill.components.deferral.policy import bound_to
from potstill.core.artifacts.drift import DriftCounts
from potstill.core.artifacts.policy import Policy, policy_digest
from potstill.core.hashing import hash_file
from served import NAME, Server, serving

MESSAGES = [{"role": "user", "content": "pelargonium light on in the kitchen"}]
SURE, UNSURE = -50.0, 50.0
"""Thresholds that every answer reaches, and none."""


def make_policy(package: Path, folder: Path, **changes: Any) -> Path:
    """A policy for a package's file."""
    model = next(package.glob("*.gguf"))
    seen = [Observation(-0.1 * i, 30 + i, False, False, False, "latin") for i in range(50)]
    value = Policy(
        package=NAME, bound=bound_to(model, hash_file(model), "Q8_0"), score="mean", excess_aurc={"mean": 0.01},
        threshold=SURE, promise="selective", alpha=0.05, delta=0.05, chosen_on=20, tested_on=50, served=50, wrong=0,
        p_value=0.01, risk=0.01, abstain=0.0, below="defer", offline="abstain", reference=reference_of(seen),
    ).model_copy(update=changes)  # fmt: skip
    path = folder / "policy.json"
    path.write_text(json.dumps(value.to_json() | {"sha256": policy_digest(value.to_json())}))
    return path


def ask(server: Server, **more: Any) -> httpx.Response:
    body = {"model": NAME, "messages": MESSAGES, "tools": TOOLS} | more
    return httpx.post(f"{server.url}/chat/completions", json=body, timeout=60)


def decided(response: httpx.Response) -> tuple[str, str, str]:
    return tuple(response.headers[f"x-potstill-{name}"] for name in ("decision", "reason", "promise"))  # type: ignore[return-value]


def traces(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / "traces.jsonl").read_text().splitlines()]


def test_sure_answers_are_given_counted_and_traced(package: Path, tmp_path: Path) -> None:
    policy, state = make_policy(package, tmp_path), tmp_path / "state"
    with serving(package, f"--policy={policy}", f"--state={state}") as server:
        assert decided(ask(server)) == ("answer", "confident", "holds")
        # the promise is one on greedy answers
        assert decided(ask(server, temperature=0.5, seed=1)) == ("answer", "confident", "none")
        streamed = ask(server, stream=True)
        assert decided(streamed)[0] == "answer" and float(streamed.headers["x-potstill-score"]) < 0
        assert ask(server, messages=[]).status_code == 400
    lines = traces(state)
    assert [line["http.response.status_code"] for line in lines] == [200, 200, 200, 400]
    first = lines[0]
    assert first["gen_ai.operation.name"] == "chat" and first["gen_ai.request.model"] == NAME
    assert first["gen_ai.response.finish_reasons"] == ["tool_calls"] and first["gen_ai.usage.output_tokens"] == 5
    assert first["potstill.decision"] == "answer" and first["potstill.calls"] == 1
    assert first["potstill.assumptions"]["policy_sha256"] == json.loads(policy.read_text())["sha256"]
    assert first["potstill.input_hmac"] == lines[1]["potstill.input_hmac"] != lines[3]["potstill.input_hmac"]
    assert lines[3]["error.type"] == "invalid_request" and lines[3]["potstill.decision"] is None
    written = b"".join(path.read_bytes() for path in state.iterdir()) + server.log.read_bytes()
    assert b"pelargonium" not in written and b"set_light" not in written
    assert (state / "trace-key.json").stat().st_mode & 0o077 == 0
    counts = DriftCounts.read(state)
    assert counts.requests == 3 and counts.current["deferred"] == (3, 0)


@pytest.mark.parametrize(("below", "stream"), [("defer", False), ("clarify", True), ("abstain", False)])
def test_unsure_answers_are_withheld(package: Path, tmp_path: Path, below: str, stream: bool) -> None:
    policy = make_policy(package, tmp_path, threshold=UNSURE, below=below)
    with serving(package, f"--policy={policy}", f"--state={tmp_path / 'state'}") as server:
        response = ask(server, stream=stream)
        assert decided(response) == (below, "low_confidence", "holds")
        assert "set_light" not in response.text and response.status_code == 200
        if not stream:
            assert response.json()["potstill"]["decision"] == below


def test_unsure_answers_are_escalated(package: Path, tmp_path: Path, endpoint: Callable[[Script], Endpoint]) -> None:
    call = ("set_light", '{"room": "hall", "state": "off"}')
    larger = endpoint(lambda body: (200, reply(None, [call], finish="tool_calls")))
    policy = make_policy(package, tmp_path, threshold=UNSURE, below="escalate")
    options = (f"--policy={policy}", f"--state={tmp_path / 'state'}", f"--larger={larger.url}", "--larger-model=big")
    with serving(package, *options) as server:
        response = ask(server)
        assert decided(response) == ("escalate", "low_confidence", "holds")
        assert response.json()["model"] == "big"
        assert response.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == call[1]
        (_, asked, _), = larger.requests  # fmt: skip
        assert asked["model"] == "big" and asked["messages"] == [MESSAGES[0]] and "n_probs" not in asked
        # an answer that does not fit the request is no answer, whoever gives it
        larger.script = lambda body: (200, reply(None, [("set_light", '{"room": 7}')], finish="tool_calls"))
        assert decided(ask(server)) == ("abstain", "offline", "holds")
        larger.script = lambda body: (400, {"error": {"message": "no"}})
        assert decided(ask(server)) == ("abstain", "offline", "holds")
    assert [line["potstill.answered_by"] for line in traces(tmp_path / "state")] == ["larger", "package", "package"]


def test_audits_count_agreement_only(package: Path, tmp_path: Path, endpoint: Callable[[Script], Endpoint]) -> None:
    rooms = iter(["kitchen", "hall"])
    larger = endpoint(
        lambda body: (200, reply(None, [("set_light", json.dumps({"room": next(rooms), "state": "on"}))], "tool_calls"))
    )
    options = (f"--larger={larger.url}", "--larger-model=big", "--audit=1", f"--state={tmp_path / 'state'}")
    with serving(package, *options) as server:
        for _ in range(2):
            assert decided(ask(server))[0] == "answer"
        root = server.url.removesuffix("/v1")
        text = ""
        for _ in range(500):
            text = httpx.get(f"{root}/metrics").text
            if 'result="agrees"} 1.0' in text and 'result="differs"} 1.0' in text:
                break
        assert 'potstill_audits_total{result="agrees"} 1.0' in text
        assert 'potstill_audits_total{result="differs"} 1.0' in text


def test_policy_of_another_file_is_void(package: Path, tmp_path: Path) -> None:
    bound = bound_to(next(package.glob("*.gguf")), "0" * 64, "Q8_0")
    policy = make_policy(package, tmp_path, bound=bound)
    with serving(package, f"--policy={policy}", f"--state={tmp_path / 'state'}") as server:
        assert decided(ask(server)) == ("defer", "policy_void", "void")
        assert "The policy is void" in server.log.read_text()


def test_drift_voids_the_promise_and_survives_a_restart(package: Path, tmp_path: Path) -> None:
    """All requests are alike, which those of the reference are not; 199 were counted before."""
    policy, state = make_policy(package, tmp_path), tmp_path / "state"
    made, counts = Policy.read_file(policy, "x"), DriftCounts(policy_sha256="")
    for _ in range(199):
        counts = add_observation(counts, made.reference, Observation(0.0, 39, False, False, False, "latin"))
    state.mkdir()
    counts.model_copy(update={"policy_sha256": made.sha256}).write(state)
    options = (f"--policy={policy}", f"--state={state}")
    with serving(package, *options) as server:
        promises = [decided(ask(server, max_tokens=1, tools=None))[2] for _ in range(2)]
        assert promises == ["holds", "void"]
        assert "Drift: score of the last requests" in server.log.read_text()
        text = httpx.get(server.url.removesuffix("/v1") + "/metrics").text
        assert "potstill_promise_holds 0.0" in text and "potstill_drift_blocks 1.0" in text
    with serving(package, *options, "--withhold-on-drift") as server:
        assert decided(ask(server)) == ("defer", "drift", "void")
    shown = CliRunner().invoke(main, ["drift", "show", str(state / "drift.json")])
    assert shown.exit_code == 3 and "202 requests, 1 block compared." in shown.output and "ALARM: score" in shown.output
    out = tmp_path / "sum.json"
    files = [str(state / "drift.json")] * 2
    merged = CliRunner().invoke(main, ["drift", "merge", *files, "--out", str(out), "--noise", "1"])
    assert merged.exit_code == 0 and "404 requests of 2 servers" in merged.output
    assert CliRunner().invoke(main, ["drift", "show", str(out)]).exit_code == 3


# ---- potstill calibrate ----


def rows_of(folder: Path, room: str, count: int = 45) -> Path:
    """Rows to which the model's only answer is right, or wrong."""
    return write_jsonl(folder / "rows.jsonl", [light_row(room, "on", f"{n} ") for n in range(count)])


def calibrate(package: Path, *options: object) -> Any:
    return CliRunner().invoke(main, ["calibrate", str(package), "--threads", "1", *map(str, options)])


def test_calibrated_policy_is_obeyed(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    rows = rows_of(tmp_path, "kitchen")
    result = calibrate(package, "--rows", rows, "--alpha", 0.2, "--delta", 0.1, "--policy", out)
    assert result.exit_code == 0, result.output
    assert "Any rule must withhold at least 0.0 % of the answers." in result.output
    policy = Policy.read_file(out, "x")
    assert policy.threshold is not None and policy.wrong == 0 and policy.served == policy.tested_on == 30
    with serving(package, f"--policy={out}", f"--state={tmp_path / 'state'}") as server:
        assert decided(ask(server, messages=[{"role": "user", "content": "3 on in the kitchen"}]))[0] == "answer"


def test_no_threshold_is_said_and_obeyed(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    result = calibrate(package, "--rows", rows_of(tmp_path, "hall"), "--policy", out, "--promise", "marginal")
    assert result.exit_code == 0, result.output
    assert "100.0 % of all answers are wrong" in result.output and "No threshold keeps this promise" in result.output
    with serving(package, f"--policy={out}", f"--state={tmp_path / 'state'}") as server:
        assert decided(ask(server)) == ("defer", "no_threshold", "none")


def test_too_few_rows_and_no_rows_are_wrong_usage(package: Path, tmp_path: Path) -> None:
    few = calibrate(package, "--rows", rows_of(tmp_path, "kitchen", 9))
    assert few.exit_code == 2 and "9 rows say what is right" in few.output
    assert calibrate(package).exit_code == 2
