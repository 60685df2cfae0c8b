"""Commands that look at plugins, and begin new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pggan_kit.cli.base import main, no_plugin_option, out
from pggan_kit.scaffold import KINDS_TO_WRITE
from pggan_kit.system.json_text import json_text


@main.group()
def plugins() -> None:
    """Look at plugins, or begin one of your own."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@click.option("--plugin", "files", multiple=True, metavar="FILE", help="Load a plugin from a Python file.")
@no_plugin_option
def plugins_list(files: tuple[str, ...], as_json: bool) -> None:
    """List plugins, where they come from, the parts they bring, and the hooks they implement."""
    from pggan_kit.plugin_host import catalogue as describing
    from pggan_kit.plugin_host.loading import load

    loaded = load(files)
    rows = describing.listing(loaded)
    if as_json:
        blocked = [row["plugin"] for row in rows if row["blocked"]]
        click.echo(json_text({"plugins": rows, "blocked": blocked}, indent=1))
        return
    table = Table("plugin", "distribution", "version", "parts", "hooks")
    for row in rows:
        origin = (row["distribution"] or row["origin"], row["version"] or "")
        table.add_row(*map(Text, (row["plugin"], *origin, *_parts_and_hooks(row))))
    out.print(table)


def _parts_and_hooks(row: dict[str, Any]) -> tuple[str, str]:
    if row["blocked"]:
        return "blocked", ""
    hooks = [f"{hook} ({', '.join(map(_short, who))})" for hook, who in row["hooks"].items()]
    return "\n".join(row["parts"]) or "hooks only", "\n".join(hooks)


def _short(selector: str) -> str:
    """`Hinge` of `losses.Hinge`; a plugin's own name as it is."""
    return selector.partition(".")[2] or selector


@plugins.command("show")
@click.argument("part", metavar="KIND.NAME")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@click.option("--plugin", "files", multiple=True, metavar="FILE", help="Load a plugin from a Python file.")
@no_plugin_option
def plugins_show(part: str, files: tuple[str, ...], as_json: bool) -> None:
    """Show a part: its signature, what it says of itself, its defaults, and its source."""
    from rich.syntax import Syntax

    from pggan_kit.plugin_host import catalogue as describing
    from pggan_kit.plugin_host.loading import load

    found = describing.part(load(files), part)
    if as_json:
        click.echo(json_text(found, indent=1))
        return
    out.print(Text(found["signature"] or found["part"], style="bold"))
    out.print(Text(f"of plugin {found['plugin']} ({found['origin']})\n"))
    out.print(Text(f"{found['docstring'] or 'It says nothing of itself.'}\n"))
    if found["parameters"]:
        table = Table("parameter", "type", "default", "in configs")
        for row in found["parameters"]:
            table.add_row(*(Text(row[key] or "") for key in ("name", "type", "default", "default_gin")))
        out.print(table)
    if found["hooks"]:
        out.print(Text(f"hooks: {', '.join(found['hooks'])}"))
    if found["source"]:
        out.print(Text(f"\n{found['file']}:{found['line']}"), soft_wrap=True)
        out.print(Syntax(found["source"], "python", background_color="default"))


@plugins.command("new")
@click.argument("name")
@click.option("--kind", required=True, help=f"What it brings: {', '.join(KINDS_TO_WRITE)}.")
@click.option("--single-file", is_flag=True, help="One file for --plugin, instead of a package to install.")
@click.option("--into", type=click.Path(path_type=Path), default=Path(), help="Where to put it; default: here.")
def plugins_new(name: str, kind: str, single_file: bool, into: Path) -> None:
    """Write a plugin that works: a part of your own, its tests, and an experiment that trains with it."""
    from pggan_kit import scaffold

    written, commands = scaffold.write(name, kind, into, single_file)
    for path in written:
        out.print(Text(f"wrote {path}"), soft_wrap=True)
    out.print("\nNow:")
    for command in commands:
        out.print(Text(f"    {command}"), soft_wrap=True)
