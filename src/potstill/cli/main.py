"""The `potstill` command. Nothing heavy is imported until a command runs.

Exit codes: 0 done, or gates pass; 1 an error; 2 wrong usage or an invalid recipe; 3 a gate FAILED; 4 a gate is
INCONCLUSIVE.
"""

from __future__ import annotations

import os
import sys

import click

from potstill import __version__
from potstill.cli.bench import bench
from potstill.cli.data import data, targets
from potstill.cli.evaluate import evaluate
from potstill.cli.group import PotstillGroup
from potstill.cli.init import init
from potstill.cli.package import sign, update, verify
from potstill.cli.plan import calibrate_device, devices, fit, licences, plan, search
from potstill.cli.release import bisect, compare, gate, history, release
from potstill.cli.run import check, run
from potstill.cli.serve import calibrate, drift, serve
from potstill.cli.suite import suite
from potstill.core.environment import is_first_process

__all__ = ["main"]


@click.group(cls=PotstillGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="potstill")
def main() -> None:
    """Distil a large language model into a small one, and prove it on the file that is shipped.

    Exit codes: 0 done or all gates pass, 1 error, 2 wrong usage or invalid recipe, 3 a gate failed, 4 a gate is
    inconclusive.
    """
    if not is_first_process():  # of several processes under `accelerate launch`, only the first prints
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


_COMMANDS = (
    *(devices, fit, search, plan, licences, calibrate_device),
    *(init, data, check, run),
    *(suite, evaluate, release, gate, compare, history, bisect),
    *(targets, verify, sign, update, bench),
    *(calibrate, serve, drift),
)
for command in _COMMANDS:
    main.add_command(command)
