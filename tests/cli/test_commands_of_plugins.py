"""Commands that plugins add: listed without an import, run like any other, and their faults named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

SOURCE = """
import click
from pggan_kit import ConfigError

@click.command()
@click.argument("name")
@click.option("--loud", is_flag=True)
def hello(name, loud):
    '''Greet somebody.'''
    if name == "nobody":
        raise ConfigError("there is nobody to greet")
    if name == "crash":
        raise RuntimeError("crashed")
    click.echo(f"hello {name}{'!' if loud else ''}")

number = 3
"""

ENTRIES = """
[pggan_kit_commands]
hello = acme_commands:hello
number = acme_commands:number
train = acme_commands:hello
missing = acme_commands_missing:hello
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution with commands."""
    monkeypatch.delitem(sys.modules, "acme_commands", raising=False)
    info = tmp_path / "site" / "acme_commands-2.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-commands\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "site" / "acme_commands.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.usefixtures("acme")
def test_commands_of_plugins_are_listed_without_an_import(cli: Callable[..., Result]) -> None:
    shown = cli("--help").stdout
    assert "hello" in shown and "A command of acme-commands 2.1." in shown
    assert shown.index("evaluate") < shown.index("hello") < shown.index("plan ")
    assert "acme_commands" not in sys.modules


@pytest.mark.usefixtures("acme")
def test_a_command_of_a_plugin_runs_like_any_other(cli: Callable[..., Result]) -> None:
    assert cli("hello", "you", "--loud").stdout == "hello you!\n"
    assert "Greet somebody." in cli("hello", "--help").stdout

    # Its errors end like those of the others.
    refused = cli("hello", "nobody")
    assert (refused.exit_code, refused.stderr) == (2, "error: there is nobody to greet\n")
    crashed = cli("hello", "crash")
    assert crashed.exit_code == 1 and "hello failed" in crashed.stderr and "RuntimeError: crashed" in crashed.stderr
    usage = cli("hello")
    assert usage.exit_code == 2 and "Missing argument 'NAME'" in usage.stderr


@pytest.mark.usefixtures("acme")
def test_faults_of_a_plugins_commands_name_it(cli: Callable[..., Result]) -> None:
    number = cli("number")
    assert number.exit_code == 2
    assert "the command number of acme-commands 2.1 (acme_commands:number) is a int, and must" in number.stderr
    missing = cli("missing")
    assert missing.exit_code == 2
    assert "cannot be imported: ModuleNotFoundError: No module named 'acme_commands_missing'" in missing.stderr
    assert "update or uninstall acme-commands 2.1" in missing.stderr


@pytest.mark.usefixtures("acme")
def test_a_plugin_cannot_replace_a_command(cli: Callable[..., Result]) -> None:
    assert "CONFIG" in cli("train", "--help").stdout
    assert "acme_commands" not in sys.modules
