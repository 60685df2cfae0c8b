"""The command line: thin commands over the Python API."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import pggan_kit
from pggan_kit.errors import Interrupted, TrainingError, UserError
from pggan_kit.signals import StoppedAtOnce, leaving_in_order

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
    err.print(f"[bold yellow]warning[/]: {_escaped(str(message))}", soft_wrap=True, highlight=False)


def _fail(error: Exception) -> NoReturn:
    err.print(f"[bold red]error[/]: {_escaped(str(error))}", soft_wrap=True, highlight=False)
    if isinstance(error, Interrupted):
        sys.exit(error.exit_code)
    sys.exit(WRONG_INPUT if isinstance(error, UserError) else FAILED)


def _escaped(text: str) -> str:
    """Neither rich's markup, nor what would steer a terminal: a message may quote a file from somebody else."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text).replace("[", "\\[")


def _options(command: Any) -> Any:
    for option in (
        click.option("-b", "bindings", multiple=True, metavar="BINDING", help="Override, e.g. -b 'train.seed = 1'."),
        click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="Load a plugin from a Python file."),
    ):
        command = option(command)
    return command


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pggan_kit.__version__)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Compose, train and compare progressively grown GANs."""


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run's folder; default: the next under runs/.")
@click.option(
    "--from",
    "start_from",
    metavar="RUN[@STAGE]",
    help="Go on from another run's last checkpoint, or from a stage's end: its number from 0, or its size.",
)
@_options
def train(
    config: Path,
    run_dir: Path | None,
    start_from: str | None,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Train the experiment of a gin file."""
    from pggan_kit import api

    with _DataProgress() as progress:
        api.train(
            config, bindings, run_dir=run_dir, plugins=plugins, data_progress=progress, start_from=start_from
        )


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="Instead of the plugin files the run used.")
def resume(run: Path, plugins: tuple[str, ...]) -> None:
    """Go on with a run from its last checkpoint."""
    from pggan_kit import api

    with _DataProgress() as progress:
        api.resume(run, plugins=plugins, data_progress=progress)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--count", default=64, show_default=True, type=click.IntRange(min=1), help="How many images.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the latents.")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="FILE.npz, FILE.png or a folder.")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="Instead of the plugin files the run used.")
def sample(run: Path, count: int, seed: int, target: Path, plugins: tuple[str, ...]) -> None:
    """Draw images from a run's averaged generator.

    An .npz file holds one array `images`, uint8, N x H x W x C; a .png file shows a grid; anything else is a folder of
    PNGs.
    """
    from pggan_kit import sampling

    sampling.sample(run, count, seed, target, plugins)
    err.print(f"wrote {count} images to {target}")


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@_options
def plan(config: Path, as_json: bool, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Show stages, parameters, images, memory and time of an experiment; train nothing."""
    from pggan_kit import planning

    rows = planning.plan(config, bindings, plugins)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        out.print(planning.table(rows))


@main.group()
def data() -> None:
    """Look after resized copies of data sets."""


@data.command("build")
@click.argument("config", type=click.Path(path_type=Path))
@_options
def data_build(config: Path, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Make the data set's copies at all of an experiment's sizes ahead of time."""
    from pggan_kit import api

    prepared = api.prepare(config, bindings, plugins)
    schedule = prepared.schedule()
    with _DataProgress() as progress:
        made = prepared.data(schedule, progress)
    sizes = ", ".join(stage.size for stage in schedule.stages)
    skipped = f"; {made.skipped:,} broken ones left out" if made.skipped else ""
    folder = prepared.built.experiment.data.cache_folder()
    out.print(f"{len(made):,} images at {sizes} in {folder}{skipped}", highlight=False, soft_wrap=True)


@main.group()
def config() -> None:
    """Look at gin files."""


@config.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@_options
def config_check(file: Path, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Build the experiment of a gin file, and say what is wrong or idle in it."""
    from pggan_kit import api

    prepared = api.prepare(file, bindings, plugins)
    schedule = prepared.schedule()
    prepared.hooks()
    prepared.state(schedule)
    for binding in prepared.built.idle:
        out.print(f"idle: {_escaped(binding.text())}  ({binding.place})", highlight=False, soft_wrap=True)
    sizes = " -> ".join(stage.size for stage in schedule.stages)
    out.print(f"{file}: good; {sizes}, {schedule.total:,} images, {len(prepared.built.parts)} parts", highlight=False)


@config.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--operative", is_flag=True, help="All parameters in effect, defaults included, as gin text.")
@_options
def config_show(file: Path, operative: bool, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Show the bindings in effect and where each stands, includes and overrides resolved."""
    from pggan_kit import api
    from pggan_kit import config as configs

    prepared = api.prepare(file, bindings, plugins)
    click.echo(prepared.built.operative if operative else "\n".join(configs.describe(prepared.config)))


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


class _DataProgress:
    """A bar on stderr while resized copies of the data are made; nothing where they are there already."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def __enter__(self) -> _DataProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, done: int, total: int, what: str) -> None:
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


if __name__ == "__main__":
    main()
