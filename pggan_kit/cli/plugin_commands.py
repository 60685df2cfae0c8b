"""Commands that plugins add to `pggan-kit`, found by their entry points and loaded only when they run."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import click

from pggan_kit.errors import PluginError, first_line

COMMANDS = "pggan_kit_commands"
"""Entry-point group of commands: the name of each is the command's, its object a click command."""


class PluginCommand(click.Command):
    """A command of a plugin, whose module is imported when it runs or shows its help, and not before.

    Args:
        entry: The entry point.
    """

    def __init__(self, entry: importlib.metadata.EntryPoint) -> None:
        super().__init__(entry.name)
        self._entry = entry
        self._owner = "unknown"
        if entry.dist is not None:
            self._owner = f"{entry.dist.name} {entry.dist.version}"

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the distribution that the command is from: its own help would have to be imported."""
        return f"A command of {self._owner}."

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        """Return the context of the plugin's command, which takes this one's place.

        Raises:
            PluginError: It cannot be imported, or is no click command.
        """
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> click.Command:
        place = f"the command {self.name} of {self._owner} ({self._entry.value})"
        try:
            command = self._entry.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise PluginError(f"{place} cannot be imported: {reason}: update or uninstall {self._owner}") from error
        if not isinstance(command, click.Command):
            raise PluginError(f"{place} is a {type(command).__name__}, and must be a click command")
        return command


def list_plugin_commands() -> dict[str, PluginCommand]:
    """Return the commands of installed plugins, by name; the first of several with one name."""
    commands: dict[str, PluginCommand] = {}
    for entry in importlib.metadata.entry_points(group=COMMANDS):
        commands.setdefault(entry.name, PluginCommand(entry))
    return commands
