"""`python -m potstill`."""

from potstill.cli import main

main(prog_name="potstill")
