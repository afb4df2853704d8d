"""`python -m potstill`."""

from potstill.cli.main import main

main(prog_name="potstill")
