"""The base of all commands: how errors end them, where they print, and the options that several of them have."""

from __future__ import annotations

import io
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import click
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.table import Table
from rich.text import Text

from pggan_kit.cli.activity_display import show_activities
from pggan_kit.cli.plugin_commands import list_plugin_commands
from pggan_kit.errors import (
    FORESEEN,
    LARGEST_WHOLE_NUMBER,
    Interrupted,
    UnforeseenError,
    UserError,
    did_you_mean,
    first_line,
    suggest,
)
from pggan_kit.system.json_text import json_text
from pggan_kit.system.signals import StoppedAtOnce, exit_in_order_on_signals
from pggan_kit.version import __version__

Command = TypeVar("Command", bound=Callable[..., Any])

FAILED = 1
"""Exit code of a command that started and then failed."""

WRONG_INPUT = 2
"""Exit code of a command whose input was wrong."""

WIDTH_WITHOUT_TERMINAL = 160
"""Characters of a line in a file or pipe, where tables would else be cut to 80."""

SPINS = 10_000
"""Turns of the loop in which a thread waits for the others of its process before it sleeps.

GNU OpenMP's own number is thirty times as high. Two threads on two cores, beside two other busy processes, then have a
seventh of their quiet speed; with this number a third, and a twentieth less at most when the machine is quiet.
"""

SEED = click.IntRange(min=0, max=LARGEST_WHOLE_NUMBER)
"""Type of arguments and options that are seeds, with the range of `train.seed`."""

NO_CONFIG = "-"
"""Value of `--debug-info` where no config is named."""

STDOUT = "pggan_kit.stdout"
"""Key of click's context under which the stream for JSON is kept while stdout is redirected."""


class OutputConsole(Console):
    """A console that goes silent where nobody reads it any more: what a command does is not lost with its output."""

    def on_broken_pipe(self) -> None:
        """Print nothing more, and let Python flush at its exit what is left."""
        self.quiet = True
        with suppress(OSError, ValueError):  # a stream without a file has nothing left to flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def _choose_width() -> int | None:
    """Return the width of lines on stdout: that of its terminal (None), or a fixed one. A closed stdout is None."""
    if sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty():
        return None
    return WIDTH_WITHOUT_TERMINAL


# Text is printed as it is: a path or a message may hold brackets, which are markup to rich.
out = OutputConsole(width=_choose_width(), markup=False, highlight=False)
err = OutputConsole(stderr=True, markup=False, highlight=False)


def print_table(table: Table) -> None:
    """Print a table, and its caption as whole lines below it: in the table's width they would break within a value."""
    caption = table.caption
    table.caption = None
    out.print(table)
    if caption:
        out.print(caption, soft_wrap=True)


class Group(click.Group):
    """A group of commands that turns errors into one short message and an exit code; `--debug` shows the traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, those of plugins among them."""
        return sorted({*super().list_commands(ctx), *list_plugin_commands()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command. Those of pggan_kit cannot be replaced by a plugin's."""
        return super().get_command(ctx, cmd_name) or list_plugin_commands().get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that arguments begin with; where there is none, suggest one of those that help shows."""
        name = args[0]
        is_command = self.get_command(ctx, name) is not None
        if not is_command and not name.startswith("-") and not ctx.resilient_parsing:
            commands = {each: self.get_command(ctx, each) for each in self.list_commands(ctx)}
            shown = [each for each, command in commands.items() if command is not None and not command.hidden]
            raise click.UsageError(f"No such command '{name}'{suggest(did_you_mean(name, shown))}.", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. This is the one place where exceptions end that nobody foresaw."""
        _escape_what_cannot_be_printed()
        limit_spinning()
        try:
            with exit_in_order_on_signals(), warnings.catch_warnings():
                warnings.showwarning = _print_warning
                with show_activities(err, print_message):
                    return super().invoke(ctx)
        except FORESEEN as error:
            if ctx.params.get("debug"):
                raise
            _exit_with_error(error, ctx.invoked_subcommand)
        except StoppedAtOnce as error:
            sys.exit(error.exit_code)
        except KeyboardInterrupt:  # no run has started: there is nothing to resume
            sys.exit(128 + signal.SIGINT)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):  # click ends these itself
            raise
        except BaseException as error:
            # A part that calls sys.exit(0) would make the command look successful; commands themselves never do.
            if ctx.params.get("debug") and not isinstance(error, SystemExit):
                raise
            command = ctx.invoked_subcommand
            _exit_with_error(UnforeseenError(f"{command} failed{_describe_unforeseen(error)}"), command)


class _ShortContext(click.Context):
    """The context of `run`, whose usage is `GROUP CONFIG`."""

    @property
    def command_path(self) -> str:
        """Return the path of the group."""
        assert self.parent is not None
        return self.parent.command_path


class DefaultGroup(click.Group):
    """A group of which `GROUP CONFIG` is short for `GROUP run CONFIG`, beside commands of other names.

    Its `run` is written nowhere: neither help, nor usage, nor completion names it.
    """

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command."""
        if (name or cmd.name) == "run":
            cmd.hidden = True
            cmd.context_class = _ShortContext
        super().add_command(cmd, name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments; those that begin with no command of the group belong to `run`."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of `run`, which are those of the group if no command is named."""
        self.commands["run"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def _escape_what_cannot_be_printed() -> None:
    """Let characters that the encoding of a stream lacks (cp1252, ASCII) be printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _describe_unforeseen(error: BaseException) -> str:
    """Return where an exception arose, as far as it is known, and its message."""
    try:
        from pggan_kit.plugin_host.failures import describe_failure
    except Exception:  # torch itself may be what cannot be imported
        return f": {type(error).__name__}: {first_line(error)}"
    return describe_failure(error)


def limit_spinning() -> None:
    """Let waiting threads sleep early, so that a busy machine slows training less; leave what the user has set.

    GNU OpenMP reads this from the environment once, when torch is loaded. Processes that a command starts inherit it.
    """
    set_by_user = "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
    if "torch" not in sys.modules and not set_by_user:
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as errors are printed, without the line of code that it came from."""
    _print_headed("warning", "bold yellow", str(message))


def _exit_with_error(error: Exception, command: str | None) -> NoReturn:
    message = str(error)
    if isinstance(error, UnforeseenError):
        kept = "" if error.log is None else f"the traceback is in {error.log}; "
        message += f" ({kept}to see it here: pggan-kit --debug {command} ...)"
    _print_headed("error", "bold red", message)
    if isinstance(error, Interrupted):
        sys.exit(error.exit_code)
    if isinstance(error, UserError):
        sys.exit(WRONG_INPUT)
    sys.exit(FAILED)


def _print_headed(head: str, style: str, message: str) -> None:
    """Print a message to stderr after a word in a style."""
    err.print(Text.assemble((head, style), f": {replace_unprintable(message)}"), soft_wrap=True)


def replace_unprintable(text: str) -> str:
    """Replace the characters of a text that control a terminal: a message may quote a file from somebody else."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_message(line: str) -> None:
    """Print one line for people to stderr, beside the output of a command."""
    # A display that has the terminal shows above itself what is written to this proxy, which `err` would go past.
    if isinstance(sys.stderr, FileProxy):
        print(replace_unprintable(line), file=sys.stderr)
        return
    err.print(replace_unprintable(line), soft_wrap=True)


def _block_plugins(ctx: click.Context, _: click.Parameter, names: tuple[str, ...]) -> None:
    """Block plugins while one command runs, by an environment variable: processes that it starts block them too."""
    from pggan_kit.plugin_host.loading import BLOCK_VARIABLE, read_blocked_plugins, require_installed

    if not names:
        return
    require_installed(names)
    before = os.environ.get(BLOCK_VARIABLE)
    os.environ[BLOCK_VARIABLE] = ",".join([*read_blocked_plugins(), *names])
    ctx.call_on_close(lambda: restore_variable(BLOCK_VARIABLE, before))


def restore_variable(variable: str, value: str | None) -> None:
    """Give a variable of the environment back an earlier value; None: it had none."""
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


class UserPath(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click
    """A path as a user writes it: not empty, and with `~` for the home folder, which shells leave in `--out=~/x`."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path.

        Raises:
            UserError: It is empty, or in the home folder of nobody.
        """
        label = "PATH"
        if param is not None:
            label = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
        text = os.fspath(value)
        if not text.strip():
            raise UserError(f"{label} is empty: name a file or a folder")
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise UserError(f"{label} {text}: nobody has this home folder; write ./{text} for a name with ~") from None


class UserPathText(UserPath):
    """The same, as text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as text."""
        return str(super().convert(value, param, ctx))


PATH = UserPath()
"""Type of every argument and option that names a file or a folder."""

PATH_TEXT = UserPathText()
"""Type of those that may name something else as well, and so stay text."""

new_plugin_option = click.option(
    "--plugin", "plugins", multiple=True, type=PATH_TEXT, metavar="FILE", help="Load a plugin from a Python file."
)
"""Option of commands that begin from a config or from nothing."""

recorded_plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=PATH_TEXT,
    metavar="FILE",
    help="Use this instead of the plugin files that the run used.",
)
"""Option of commands that begin from a run."""

trusted_plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=PATH_TEXT,
    metavar="FILE",
    help="A plugin file of the plan that you trust.",
)
"""Option of commands that work in the folder of an ablation or a sweep."""

launcher_option = click.option(
    "--launcher", metavar="NAME", help="What runs the trials: Local, or another launcher of `plugins list`."
)
"""Option of commands that run trials, see `bind_launcher`."""


def bind_launcher(bindings: tuple[str, ...], root: str, launcher: str | None) -> tuple[str, ...]:
    """Return bindings with that of a launcher, of which the option `--launcher` is a short form.

    Args:
        bindings: The bindings that the command was given.
        root: First part of the setting that holds the launcher.
        launcher: The launcher's name; None for that of the config.
    """
    if launcher is None:
        return bindings
    return (*bindings, f"{root}.launcher = @launchers.{launcher}()")


checkpoint_option = click.option(
    "--checkpoint",
    default="last",
    show_default=True,
    type=click.Choice(["last", "best", "fade"]),
    help="Use the last checkpoint, the one that train.keep_best kept, or the last within a fade (that of --stage).",
)

stage_option = click.option(
    "--stage", metavar="STAGE", help="Use the end of this stage: its number from 0, or its size."
)
"""Option of commands that use a run's averaged generator."""


class NumberRange(click.FloatRange):
    """A number from a range; Click's own lets NaN pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


SHARE = NumberRange(0, 1)
"""Type of options that are a share."""

truncation_option = click.option(
    "--truncation",
    type=SHARE,
    help="Share of the distance from the mean style that is kept, or, without styles, from the mean latent.",
)
"""Option of commands that draw images."""

alpha_option = click.option(
    "--alpha", type=SHARE, help="Share of the new path, where the checkpoint is within a fade (--checkpoint fade)."
)
"""Option of commands that draw images."""

classes_option = click.option(
    "--class",
    "classes",
    multiple=True,
    help="Class of the images, by name or by number from 0; several take turns. Default: all in turn.",
)
"""Option of commands that draw images."""

average_option = click.option(
    "--average", metavar="NAME|WIDTH|FILE", help="Use this average; default: the first of train.averages."
)
"""Option of commands that draw from a run's averaged generator."""


def add_drawing_options(command: Command) -> Command:
    """Add the options of commands that draw images of a run: the classes, how they are drawn, and which generator."""
    options = (
        no_plugin_option,
        recorded_plugin_option,
        checkpoint_option,
        average_option,
        stage_option,
        alpha_option,
        truncation_option,
        classes_option,
    )
    for add_option in options:
        command = add_option(command)
    return command


def _keep_stdout_for_json(ctx: click.Context, _: click.Parameter, as_json: bool) -> bool:
    """Keep stdout for `print_json`, so that what a plugin prints goes to stderr."""
    if as_json:
        ctx.meta[STDOUT] = sys.stdout
        ctx.with_resource(redirect_stdout(sys.stderr))
    return as_json


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_keep_stdout_for_json,
    help="Print JSON, and nothing else.",
)
"""Option of commands whose output programs may read, with `print_json`."""


def describe_choice(chosen: Mapping[str, Any]) -> str:
    """Return what a checkpoint was chosen by, as the end of a sentence; nothing where it was not chosen."""
    if not chosen:
        return ""
    return f", chosen by {chosen['metric']} = {chosen['value']:.4g} at {chosen['size']}, images {chosen['images']:,}"


def print_json(value: Any) -> None:
    """Print a value as JSON, within a command with `--json`."""
    click.echo(json_text(value, indent=1), file=click.get_current_context().meta[STDOUT])


bindings_option = click.option(
    "-b", "bindings", multiple=True, metavar="BINDING", help="Override, e.g. -b 'train.seed = 1'."
)
"""Option of commands that build an experiment, or go on with one."""


def add_experiment_options(command: Command) -> Command:
    """Add the options of commands that build an experiment: bindings, and plugins to load or to leave out."""
    for add_option in (bindings_option, new_plugin_option, no_plugin_option):
        command = add_option(command)
    return command


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    no_args_is_help=True,
)
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--debug-info",
    is_flag=False,
    flag_value=NO_CONFIG,
    metavar="[CONFIG]",
    help="Print versions, device, plugins and the identity of a config, for a report of a fault; no paths.",
)
@click.pass_context
def main(ctx: click.Context, debug: bool, debug_info: str | None) -> None:
    """Compose, train and compare progressively growing GANs."""
    if debug_info is not None:
        _print_debug_info(None if debug_info == NO_CONFIG else PATH.convert(debug_info, None, ctx))
        ctx.exit()
    if ctx.invoked_subcommand is None:
        raise click.UsageError("Missing command.", ctx)


def _print_debug_info(config: Path | None) -> None:
    """Print the description of this installation as JSON. What plugins print goes to stderr."""
    from pggan_kit.api.debug_info import describe_installation

    with redirect_stdout(sys.stderr):
        description = describe_installation(config)
    click.echo(json_text(description, indent=1))
