"""`potstill serve`, `potstill calibrate`, `potstill drift`: a package in use, and when it may not answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from potstill.cli.options import PlainFloat, json_option

if TYPE_CHECKING:
    from potstill.apps.serve.service import Service
    from potstill.apps.serve.settings import Settings

__all__ = ["calibrate", "drift", "serve"]

_FILE = click.Path(path_type=Path)
package_argument = click.argument("package", metavar="PACKAGE", type=_FILE)


@click.command()
@package_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 for a free one.")
@click.option("--keys", metavar="FILE", type=_FILE, help="File with one API key per line.")
@click.option("--context", type=click.IntRange(min=16), metavar="N", help="Tokens per request. Default: the recipe's.")
@click.option("--parallel", type=click.IntRange(1, 256), default=2, show_default=True, help="Requests at once.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads of llama.cpp.")
@click.option("--waiting", type=click.IntRange(min=0), default=16, show_default=True, help="Requests that may wait.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Tokens of an answer.")
@click.option("--body-kb", type=click.IntRange(min=1), default=1024, show_default=True, help="Size of a request.")
@click.option("--seconds", type=PlainFloat(min=0.1), default=120, show_default=True, help="Limit per request.")
@click.option("--policy", metavar="FILE", type=_FILE, help="Policy that `potstill calibrate` has written.")
@click.option("--larger", metavar="URL", help="Endpoint of a larger model, for answers that the policy escalates.")
@click.option("--larger-model", metavar="NAME", help="Name of the larger model at its endpoint.")
@click.option(
    "--audit", type=PlainFloat(0, 1), default=0.02, show_default=True, metavar="SHARE",
    help="Share of answers that the larger model is asked for too.",
)  # fmt: skip
@click.option("--withhold-on-drift", is_flag=True, help="Give no answer after a drift alarm.")
@click.option(
    "--state", metavar="DIR", type=_FILE,
    help="Folder of traces and drift counts. Default: potstill/serve/NAME-PORT in $XDG_STATE_HOME.",
)  # fmt: skip
@json_option
def serve(package: Path, as_json: bool, **options: Any) -> None:
    """Serve a package's file behind OpenAI's API.

    The package is verified before it is loaded, and again when one of its files changes. Only this machine can reach
    the server, unless --host says otherwise; API keys are then required. They come from --keys and from the environment
    variable POTSTILL_API_KEYS. The key of the larger model's endpoint comes from POTSTILL_LARGER_API_KEY.
    """
    from potstill.apps.serve.server import serve as run
    from potstill.cli.render.page import print_json, say

    def ready(service: Service, address: str) -> None:
        if as_json:
            print_json({"url": f"{address}/v1", "model": service.package.name})
        say(f"Serving {service.package.name} on {address}/v1. Its status page is {address}/", err=True)
        say(_promise_line(service), err=True)
        say("Press Ctrl-C to stop.", err=True)

    run(_settings(package, options), ready, lambda text: say(text, err=True))


def _promise_line(service: Service) -> str:
    rules = service.rules
    if rules.policy is None:
        return "There is no policy: every answer that fits its request is given, without a promise."
    if rules.void:
        return f"The policy is void, and no answer is given: {', '.join(rules.void)} differ from what it was made for."
    if rules.policy.threshold is None:
        return "The policy has no threshold, and no answer is given: no threshold keeps its promise."
    return f"Answers whose score {rules.policy.score} is below {rules.policy.threshold:.6g} are withheld."


def _settings(package: Path, options: dict[str, Any]) -> Settings:
    from potstill.apps.serve.settings import Larger, Limits, Settings, read_keys

    url, model = options["larger"], options["larger_model"]
    if (url is None) != (model is None):
        raise click.UsageError("--larger and --larger-model belong together: an endpoint, and a model's name there.")
    limits = Limits(
        body_bytes=1024 * options["body_kb"],
        max_tokens=options["max_tokens"],
        request_seconds=options["seconds"],
        waiting=options["waiting"],
    )
    return Settings(
        package=package,
        host=options["host"],
        port=options["port"],
        context=options["context"],
        parallel=options["parallel"],
        threads=options["threads"],
        keys=read_keys(os.environ.get("POTSTILL_API_KEYS", ""), options["keys"]),
        limits=limits,
        policy=options["policy"],
        larger=Larger(url, model, os.environ.get("POTSTILL_LARGER_API_KEY", "unused")) if url else None,
        audit_share=options["audit"],
        withhold_on_drift=options["withhold_on_drift"],
        state=options["state"],
    )


@click.command()
@package_argument
@click.option("--suite", metavar="SUITE", type=_FILE, help="Suite whose items are asked.")
@click.option("--rows", metavar="FILE", type=_FILE, help="JSONL file of rows that say what is right, in place of it.")
@click.option(
    "--promise", type=click.Choice(["selective", "marginal"]), default="selective", show_default=True,
    help="selective: on the answers that are given; marginal: on all requests.",
)  # fmt: skip
@click.option("--alpha", type=PlainFloat(0, 1, True, True), default=0.05, show_default=True, help="Risk allowed.")
@click.option(
    "--delta", type=PlainFloat(0, 1, True, True), default=0.05, show_default=True,
    help="Chance that a selective promise is wrong.",
)  # fmt: skip
@click.option(
    "--below", type=click.Choice(["clarify", "defer", "escalate", "abstain"]), default="defer", show_default=True,
    help="What is done with an answer below the threshold.",
)  # fmt: skip
@click.option(
    "--offline", type=click.Choice(["clarify", "defer", "abstain"]), default="defer", show_default=True,
    help="What is done where the larger model cannot be reached.",
)  # fmt: skip
@click.option("--policy", "out", metavar="FILE", type=_FILE, help="File to write. Default: NAME.policy.json.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Tokens of an answer.")
@click.option("--parallel", type=click.IntRange(1, 256), default=2, show_default=True, help="Requests at once.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads of llama.cpp.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the split of the rows.")
@json_option
def calibrate(
    package: Path, suite: Path | None, rows: Path | None, out: Path | None, max_tokens: int, parallel: int,
    threads: int, as_json: bool, **wanted: Any,
) -> None:  # fmt: skip
    """Find the confidence below which a package must not answer.

    The package is asked all items of a suite, or all rows of a file, as the server asks it. A threshold with a
    guarantee is written into a policy file, which is bound to the model, its template and the runtime.
    """
    from potstill.apps.serve.calibrate import Calibration, calibrate_package, read_cases
    from potstill.apps.serve.package import load_package
    from potstill.cli.render.deferral import render_policy
    from potstill.cli.render.page import print_json, print_page, say
    from potstill.core.files import write_json
    from potstill.core.progress import progress_bar

    if (suite is None) == (rows is None):
        raise click.UsageError("Give the right answers: either --suite SUITE or --rows FILE.")
    found = load_package(package)
    tools = package / "tools.json"
    cases = read_cases(suite, rows, tools if tools.is_file() else None)
    with progress_bar("calibrate", len(cases)) as ticker:
        policy = calibrate_package(
            found, cases, Calibration(**wanted), max_tokens=max_tokens, parallel=parallel, threads=threads,
            progress=ticker.advance,
        )  # fmt: skip
    file = out or Path(f"{found.name}.policy.json")
    write_json(file, policy.to_json())
    if as_json:
        print_json(policy.to_json() | {"file": str(file)})
        return
    print_page(render_policy(policy))
    say(f"\n{file} is written. Serve with it: potstill serve {package} --policy {file}")


@click.group()
def drift() -> None:
    """Look at the counts that tell whether requests are still like the calibration rows."""


@drift.command()
@click.argument("counts", metavar="DRIFT.JSON", type=_FILE)
@json_option
def show(counts: Path, as_json: bool) -> None:
    """Print counts and alarms of a server.

    The exit code is 3 if there was an alarm.
    """
    import sys

    from potstill.cli.render.deferral import render_drift
    from potstill.cli.render.page import print_json, print_page
    from potstill.core.artifacts.drift import DriftCounts

    found = DriftCounts.read_file(counts, "give the drift.json of a server")
    print_json(found.to_json()) if as_json else print_page(render_drift(found))
    sys.exit(3 if found.alarms else 0)


@drift.command()
@click.argument("counts", metavar="DRIFT.JSON...", nargs=-1, required=True, type=_FILE)
@click.option("--out", required=True, metavar="FILE", type=_FILE, help="File for the sums.")
@click.option(
    "--noise", type=PlainFloat(0, min_open=True), metavar="EPSILON",
    help="Add Laplace noise of scale 1/EPSILON to every count.",
)  # fmt: skip
def merge(counts: tuple[Path, ...], out: Path, noise: float | None) -> None:
    """Add up the counts of several servers or devices that have the same policy."""
    from potstill.cli.render.page import say
    from potstill.components.deferral.drift import merge_counts, with_noise
    from potstill.core.artifacts.drift import DriftCounts
    from potstill.core.files import write_json

    merged = merge_counts([DriftCounts.read_file(path, "give the drift.json of a server") for path in counts])
    write_json(out, (with_noise(merged, noise) if noise else merged).to_json())
    say(f"{out}: {merged.requests:,} requests of {merged.merged} servers.")
