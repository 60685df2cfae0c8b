"""The command group `plugins`, which lists plugins, shows their components, and writes new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pggan_kit.cli.base import PATH, json_option, main, new_plugin_option, no_plugin_option, out, print_json
from pggan_kit.scaffold import KINDS_TO_WRITE


@main.group("plugins")
def plugins_group() -> None:
    """List plugins, show a component, or start a plugin of your own."""


@plugins_group.command("list")
@json_option
@new_plugin_option
@no_plugin_option
def plugins_list(plugins: tuple[str, ...], as_json: bool) -> None:
    """List plugins, where they come from, their components, and the hooks that they implement."""
    from pggan_kit.plugin_host import catalogue
    from pggan_kit.plugin_host.loading import load_plugins

    loaded = load_plugins(plugins, accept_broken=True)
    rows = catalogue.list_plugins(loaded)
    if as_json:
        blocked = [row["plugin"] for row in rows if row["blocked"]]
        print_json({"plugins": rows, "blocked": blocked})
    else:
        out.print(_build_table(rows))
        for row in rows:
            if row["broken"] is not None:
                out.print(Text(row["broken"]), soft_wrap=True)


def _build_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("plugin", "distribution", "version", "components", "hooks")
    for row in rows:
        components = "\n".join(row["parts"]) or "hooks only"
        hooks = "\n".join(_format_hook(hook, who) for hook, who in row["hooks"].items())
        if row["blocked"] or row["broken"]:
            components = "blocked" if row["blocked"] else "broken"
            hooks = ""
        cells = (row["plugin"], row["distribution"] or row["origin"], row["version"] or "", components, hooks)
        table.add_row(*cells)
    return table


def _format_hook(hook: str, selectors: list[str]) -> str:
    """Return a hook and who implements it: of a component its name without the kind, of a plugin its own name."""
    names = [selector.partition(".")[2] or selector for selector in selectors]
    return f"{hook} ({', '.join(names)})"


@plugins_group.command("show")
@click.argument("component", metavar="KIND.NAME")
@json_option
@new_plugin_option
@no_plugin_option
def plugins_show(component: str, plugins: tuple[str, ...], as_json: bool) -> None:
    """Show a component: its signature, docstring, defaults and source."""
    from pggan_kit.plugin_host import catalogue
    from pggan_kit.plugin_host.loading import load_plugins

    description = catalogue.describe_component(load_plugins(plugins), component)
    if as_json:
        print_json(description)
    else:
        _print_description(description)


def _print_description(description: dict[str, Any]) -> None:
    from rich.syntax import Syntax

    out.print(Text(description["signature"] or description["part"], style="bold"))
    out.print(Text(f"of plugin {description['plugin']} ({description['origin']})\n"))
    out.print(Text(f"{description['docstring'] or 'It has no docstring.'}\n"))

    if description["parameters"]:
        table = Table("parameter", "type", "default", "in configs")
        for row in description["parameters"]:
            table.add_row(*[Text(row[key] or "") for key in ("name", "type", "default", "default_gin")])
        out.print(table)
    if description["hooks"]:
        out.print(Text(f"hooks: {', '.join(description['hooks'])}"))

    # Python cannot find the source of everything, for example of a built-in class.
    if description["source"]:
        out.print(Text(f"\n{description['file']}:{description['line']}"), soft_wrap=True)
        out.print(Syntax(description["source"], "python", background_color="default"))


@plugins_group.command("new")
@click.argument("name")
@click.option("--kind", required=True, help=f"What the plugin provides: {', '.join(KINDS_TO_WRITE)}.")
@click.option("--single-file", is_flag=True, help="Write one file for --plugin instead of a package to install.")
@click.option("--into", type=PATH, default=Path(), help="Folder to write to; default: the current one.")
def plugins_new(name: str, kind: str, single_file: bool, into: Path) -> None:
    """Write a plugin that works: a component of your own, its tests, and an experiment that uses it."""
    from pggan_kit import scaffold

    written, commands = scaffold.write_plugin(name, kind, into, single_file)
    for path in written:
        out.print(Text(f"wrote {path}"), soft_wrap=True)
    out.print("\nNow:")
    for command in commands:
        out.print(Text(f"    {command}"), soft_wrap=True)
