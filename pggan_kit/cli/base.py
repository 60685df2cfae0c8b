"""What all commands share: how errors end them, where they print, and options."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Any, NoReturn, TextIO

import click
from rich.console import Console
from rich.progress import Progress

from pggan_kit.errors import Interrupted, TrainingError, UserError
from pggan_kit.system.signals import StoppedAtOnce, leaving_in_order
from pggan_kit.version import __version__

out = Console(width=None if sys.stdout.isatty() else 160)  # tables in a file or pipe are not cut to 80 columns
err = Console(stderr=True)

FAILED, WRONG_INPUT = 1, 2


class Group(click.Group):
    """Turns errors into one short message and an exit code; `--debug` shows the traceback instead."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            with leaving_in_order(), warnings.catch_warnings():
                warnings.showwarning = _warn
                return super().invoke(ctx)
        except (UserError, TrainingError, Interrupted) as error:
            if ctx.params.get("debug"):
                raise
            _fail(error)
        except StoppedAtOnce as error:
            sys.exit(error.exit_code)
        except KeyboardInterrupt:  # before a run has started: there is nothing to resume
            sys.exit(128 + signal.SIGINT)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as errors are shown, without the line of code that it came from."""
    err.print(f"[bold yellow]warning[/]: {escaped(str(message))}", soft_wrap=True, highlight=False)


def _fail(error: Exception) -> NoReturn:
    err.print(f"[bold red]error[/]: {escaped(str(error))}", soft_wrap=True, highlight=False)
    if isinstance(error, Interrupted):
        sys.exit(error.exit_code)
    sys.exit(WRONG_INPUT if isinstance(error, UserError) else FAILED)


def escaped(text: str) -> str:
    """Neither rich's markup, nor what would steer a terminal: a message may quote a file from somebody else."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text).replace("[", "\\[")


def experiment_options(command: Any) -> Any:
    for option in (
        click.option("-b", "bindings", multiple=True, metavar="BINDING", help="Override, e.g. -b 'train.seed = 1'."),
        click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="Load a plugin from a Python file."),
        no_plugin_option,
    ):
        command = option(command)
    return command


def _leave_out(ctx: click.Context, _: click.Parameter, names: tuple[str, ...]) -> None:
    """Block plugins for the time of one command, by the environment, so that processes which it starts block them."""
    from pggan_kit.plugin_host.loading import BLOCK_VARIABLE, blocked_by_environment, require_installed

    if names:
        require_installed(names)
        before = os.environ.get(BLOCK_VARIABLE)
        os.environ[BLOCK_VARIABLE] = ",".join([*blocked_by_environment(), *names])
        ctx.call_on_close(lambda: _put_back(BLOCK_VARIABLE, before))


def _put_back(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value


def say(line: str) -> None:
    """Tell people one line, beside what a command prints."""
    err.print(escaped(line), highlight=False, soft_wrap=True)


stage_option = click.option(
    "--stage", metavar="STAGE", help="As it was when this stage ended: its number from 0, or its size."
)

no_plugin_option = click.option(
    "--no-plugin",
    multiple=True,
    metavar="NAME",
    expose_value=False,
    callback=_leave_out,
    help="Leave out an installed plugin; DISTRIBUTION:NAME where two have one name.",
)
"""For every command that loads plugins; the command itself need not know of it."""


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Compose, train and compare progressively grown GANs."""


class DataProgress:
    """A bar on a terminal while resized copies of the data are made; nothing where they are there already."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def __enter__(self) -> DataProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, done: int, total: int, what: str) -> None:
        if not err.is_terminal:  # a bar that erases itself leaves an empty line in a file
            return
        if self.bar is None:
            self.bar = Progress(console=err, transient=True)
            self.bar.start()
            self.task = self.bar.add_task(what, total=total)
        self.bar.update(self.task, completed=done, total=total, description=what)
        if done >= total:
            self.stop()

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
