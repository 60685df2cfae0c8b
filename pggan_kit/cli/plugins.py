"""Commands that look at plugins."""

from __future__ import annotations

import json

import click
from rich.table import Table

from pggan_kit.cli.base import main, out


@main.group()
def plugins() -> None:
    """Look at plugins."""


@plugins.command("list")
@click.option("--plugin", "files", multiple=True, metavar="FILE", help="Load a plugin from a Python file.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def plugins_list(files: tuple[str, ...], as_json: bool) -> None:
    """List plugins, where they come from, and the parts they bring."""
    from pggan_kit.plugins import load

    loaded = load(files)
    rows = [
        {
            "plugin": plugin.name,
            "origin": plugin.origin,
            "parts": [selector for selector, row in loaded.rows.items() if row.plugin is plugin],
        }
        for plugin in loaded.loaded
    ]
    if as_json:
        click.echo(json.dumps({"plugins": rows, "blocked": loaded.blocked}, indent=1))
        return
    table = Table("plugin", "from", "parts")
    for row in rows:
        table.add_row(str(row["plugin"]), str(row["origin"]), "\n".join(row["parts"]) or "hooks only")
    out.print(table)
    for name in loaded.blocked:
        out.print(f"blocked: {name}")
