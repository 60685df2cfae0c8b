"""The base of all commands: how errors end them, where they print, and the options that several of them have."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TextIO, TypeVar

import click
from rich.console import Console
from rich.progress import Progress

from pggan_kit.errors import LARGEST_WHOLE_NUMBER, Interrupted, TrainingError, UserError
from pggan_kit.system.signals import StoppedAtOnce, exit_in_order_on_sigterm
from pggan_kit.version import __version__

Command = TypeVar("Command", bound=Callable[..., Any])

FAILED = 1
"""Exit code of a command that started and then failed."""

WRONG_INPUT = 2
"""Exit code of a command whose input was wrong."""

WIDTH_WITHOUT_TERMINAL = 160
"""Characters of a line in a file or pipe, where tables would else be cut to 80."""

SEED = click.IntRange(min=0, max=LARGEST_WHOLE_NUMBER)
"""Type of arguments and options that are seeds, with the range of `train.seed`."""

out = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
err = Console(stderr=True)


class Group(click.Group):
    """A group of commands that turns errors into one short message and an exit code; `--debug` shows the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            with exit_in_order_on_sigterm(), warnings.catch_warnings():
                warnings.showwarning = _print_warning
                return super().invoke(ctx)
        except (UserError, TrainingError, Interrupted) as error:
            if ctx.params.get("debug"):
                raise
            _exit_with_error(error)
        except StoppedAtOnce as error:
            sys.exit(error.exit_code)
        except KeyboardInterrupt:  # no run has started: there is nothing to resume
            sys.exit(128 + signal.SIGINT)


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as errors are printed, without the line of code that it came from."""
    err.print(f"[bold yellow]warning[/]: {escape_text(str(message))}", soft_wrap=True, highlight=False)


def _exit_with_error(error: Exception) -> NoReturn:
    err.print(f"[bold red]error[/]: {escape_text(str(error))}", soft_wrap=True, highlight=False)
    if isinstance(error, Interrupted):
        sys.exit(error.exit_code)
    if isinstance(error, UserError):
        sys.exit(WRONG_INPUT)
    sys.exit(FAILED)


def escape_text(text: str) -> str:
    """Return a text without rich's markup and without characters that control a terminal.

    A message may quote a file from somebody else.
    """
    printable = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return printable.replace("[", "\\[")


def print_message(line: str) -> None:
    """Print one line for people to stderr, beside the output of a command."""
    err.print(escape_text(line), highlight=False, soft_wrap=True)


def _block_plugins(ctx: click.Context, _: click.Parameter, names: tuple[str, ...]) -> None:
    """Block plugins while one command runs, by an environment variable: processes that it starts block them too."""
    from pggan_kit.plugin_host.loading import BLOCK_VARIABLE, read_blocked_plugins, require_installed

    if not names:
        return
    require_installed(names)
    before = os.environ.get(BLOCK_VARIABLE)
    os.environ[BLOCK_VARIABLE] = ",".join([*read_blocked_plugins(), *names])
    ctx.call_on_close(lambda: _restore_variable(BLOCK_VARIABLE, before))


def _restore_variable(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value


no_plugin_option = click.option(
    "--no-plugin",
    multiple=True,
    metavar="NAME",
    expose_value=False,
    callback=_block_plugins,
    help="Leave out an installed plugin; DISTRIBUTION:NAME if two have the same name.",
)
"""Option of every command that loads plugins; the command itself need not know about it."""

new_plugin_option = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE", help="Load a plugin from a Python file."
)
"""Option of commands that begin from a config or from nothing."""

recorded_plugin_option = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE", help="Use this instead of the plugin files that the run used."
)
"""Option of commands that begin from a run."""

stage_option = click.option(
    "--stage", metavar="STAGE", help="Use the end of this stage: its number from 0, or its size."
)
"""Option of commands that use a run's averaged generator."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""Option of commands whose output programs may read."""

_bindings_option = click.option(
    "-b", "bindings", multiple=True, metavar="BINDING", help="Override, e.g. -b 'train.seed = 1'."
)


def add_experiment_options(command: Command) -> Command:
    """Add the options of commands that build an experiment: bindings, and plugins to load or to leave out."""
    for add_option in (_bindings_option, new_plugin_option, no_plugin_option):
        command = add_option(command)
    return command


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Compose, train and compare progressively growing GANs."""


class DataProgress:
    """A progress bar for resized copies of the data, on a terminal only; none if the copies exist already."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def __enter__(self) -> DataProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show how many images of a copy are done.

        Args:
            done: Number of images that are done.
            total: Number of all images.
            what: Name of the copy, for people.
        """
        if not err.is_terminal:  # in a file, a bar that erases itself leaves an empty line
            return
        if self.bar is None:
            self.bar = Progress(console=err, transient=True)
            self.bar.start()
            self.task = self.bar.add_task(what, total=total)
        self.bar.update(self.task, completed=done, total=total, description=what)
        if done >= total:
            self.stop()

    def stop(self) -> None:
        """Remove the bar, if there is one."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
