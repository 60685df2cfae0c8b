"""Train the run of a trial, from wherever an earlier process stopped, up to the end of a stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.train import resume, train
from pggan_kit.errors import Interrupted, RunError
from pggan_kit.hookspecs import hookimpl
from pggan_kit.runs.directory import RunDirectory, remove_content
from pggan_kit.schedule import Stage
from pggan_kit.system.locks import RunLock


class StageReached(Interrupted):
    """The stage has ended after which a trial pauses."""

    def __init__(self) -> None:
        super().__init__(None, "the trial pauses here")


class StopAfter:
    """A plugin that ends a run after a stage: where others begin from it, or where it is measured.

    Args:
        stage: Number of the stage, from 0.
    """

    def __init__(self, stage: int) -> None:
        self.stage = stage

    @hookimpl
    def after_stage(self, stage: Stage) -> None:
        """End the run; the stage's last checkpoint has been written.

        A run that is resumed there comes here again.
        """
        if stage.index == self.stage:
            raise StageReached


def describe_early_end(folder: Path, size: str) -> str | None:
    """Return why a run that has ended has no value to compare at a size; None if it ended there.

    Values of images of different sizes cannot be compared, and a switch or another part may keep a run in a stage.

    Raises:
        RunError: There is no run, or its last checkpoint is damaged.
    """
    _, saved = RunDirectory(folder).checkpoints().find_last()
    if saved.size == size:
        return None
    return f"ended at {saved.size}, not at {size}"


def train_or_resume(
    folder: Path, config: Path, bindings: Sequence[str], plugins: Sequence[Any], start_from: str | None = None
) -> None:
    """Resume the run of a folder; if it has saved nothing yet, remove its content and train from the start.

    The folder itself stays, which may be a link to another disk.

    Raises:
        RunError: The content cannot be removed.
    """
    if folder.exists():
        with RunLock(folder):
            has_trained = RunDirectory(folder).has_trained()
            if not has_trained:
                try:
                    remove_content(folder)
                except OSError as error:
                    raise RunError(f"cannot remove {error.filename}: {error.strerror}") from error
        if has_trained:
            resume(folder, plugins=plugins)
            return
    train(config, bindings, run_dir=folder, plugins=plugins, start_from=start_from)
