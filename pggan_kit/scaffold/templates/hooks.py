"""A plugin of hooks alone: where it is installed, every run keeps a diary. It brings no part and needs no config."""

from collections.abc import Mapping
from typing import Any

from pggan_kit import Run, Stage, hookimpl


@hookimpl
def before_run(run: Run) -> None:
    """Any hook of `pggan_kit.hookspecs` may be here; take the arguments that you want."""
    _write(run, "resumed" if run.resumed else "begun")


@hookimpl
def before_stage(run: Run, stage: Stage) -> None:
    """The networks have the stage's size."""
    _write(run, f"stage {stage.size}")


@hookimpl
def after_run(run: Run, result: Mapping[str, Any]) -> None:
    """The run has ended well."""
    _write(run, f"done after {result['images']} images")


def _write(run: Run, line: str) -> None:
    with (run.directory / "mine.txt").open("a") as file:
        file.write(f"{line}\n")
