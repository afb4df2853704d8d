"""Writes docs/help.md from the commands' own --help."""

from __future__ import annotations

from pathlib import Path

import click

from potstill.cli import main


def help_page() -> str:
    """The whole page, as Markdown."""
    parts = ["# potstill --help\n\nMade by `make docs`; a test holds it to what the command says.\n"]
    root = click.Context(main, info_name="potstill", max_content_width=100)
    parts.append(f"```\n{main.get_help(root)}\n```\n")
    for name in main.list_commands(root):
        command = main.get_command(root, name)
        assert command is not None
        context = click.Context(command, parent=root, info_name=name, max_content_width=100)
        parts.append(f"## potstill {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    (Path(__file__).parent / "help.md").write_text(help_page())
