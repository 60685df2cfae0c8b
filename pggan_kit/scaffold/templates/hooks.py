"""A plugin of hooks alone: where it is installed, every run keeps a diary. It has no components and needs no config."""

from collections.abc import Mapping
from typing import Any

from pggan_kit import JsonLines, Run, Stage, hookimpl, rank


@hookimpl
def before_run(run: Run) -> None:
    """Drop the lines from the checkpoint of a resumed run on, which will be written again.

    A plugin may have any hook of `pggan_kit.hookspecs`, with the arguments that it needs.
    """
    if run.resumed and rank() == 0:
        _open_diary(run).cut(run.state.images - 1, run.files.warn)


@hookimpl
def after_stage(run: Run, stage: Stage) -> None:
    """Write the size of a stage that has ended."""
    _write_line(run, f"stage {stage.size}")


@hookimpl
def after_run(run: Run, result: Mapping[str, Any]) -> None:
    """Write the last line, if the run did not fail."""
    _write_line(run, f"done after {result['steps']} steps")


def _write_line(run: Run, line: str) -> None:
    # A plugin's hooks are called on every rank, and one of them writes.
    if rank() == 0:
        _open_diary(run).append({"images": run.state.images, "line": line})


def _open_diary(run: Run) -> JsonLines:
    return JsonLines(run.directory / "mine.jsonl")
