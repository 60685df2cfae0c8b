"""A plugin of hooks alone: where it is installed, every run keeps a diary. It has no components and needs no config."""

from collections.abc import Mapping
from typing import Any

from pggan_kit import Run, Stage, hookimpl


@hookimpl
def before_run(run: Run) -> None:
    """Write the first line. A plugin may have any hook of `pggan_kit.hookspecs`, with the arguments that it needs."""
    _write_line(run, "resumed" if run.resumed else "begun")


@hookimpl
def before_stage(run: Run, stage: Stage) -> None:
    """Write the size of a stage; the networks already have it."""
    _write_line(run, f"stage {stage.size}")


@hookimpl
def after_run(run: Run, result: Mapping[str, Any]) -> None:
    """Write the last line, if the run did not fail."""
    _write_line(run, f"done after {result['images']} images")


def _write_line(run: Run, line: str) -> None:
    with (run.directory / "mine.txt").open("a") as file:
        file.write(f"{line}\n")
