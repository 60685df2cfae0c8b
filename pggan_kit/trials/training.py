"""Train the run of a trial, from wherever an earlier process stopped, up to the end of a stage."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import resume, train
from pggan_kit.config.gin_files import Config, parse_text
from pggan_kit.config.path_settings import make_paths_absolute
from pggan_kit.errors import Interrupted, RunError
from pggan_kit.hookspecs import hookimpl
from pggan_kit.runs.directory import RunDirectory, remove_content
from pggan_kit.runs.targets import FILES_OF_A_RUN
from pggan_kit.schedule import Stage
from pggan_kit.system.files import is_unfinished
from pggan_kit.system.locks import RunLock
from pggan_kit.trials.plan_files import describe_change


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
        RunError: The folder holds files that no run wrote, or a run of another experiment; or the content cannot be
            removed.
    """
    if folder.exists():
        with RunLock(folder):
            has_trained = RunDirectory(folder).has_trained()
            if not has_trained:
                _remove_beginning(folder)
        if has_trained:
            _require_same_experiment(folder, config, bindings, plugins)
            resume(folder, plugins=plugins)
            return
    train(config, bindings, run_dir=folder, plugins=plugins, start_from=start_from)


def _remove_beginning(folder: Path) -> None:
    """Remove what a run has left that has saved nothing.

    Raises:
        RunError: There is no run, and the folder holds files that none has left; or something cannot be removed.
    """
    # Observers add files of any name to a run, and to nothing else.
    names = {entry.name for entry in folder.iterdir()}
    foreign = sorted(name for name in names if name not in FILES_OF_A_RUN and not is_unfinished(name))
    if foreign and "run.json" not in names:
        raise RunError(f"{folder} holds {', '.join(foreign)} and no run: move it away, and the trial is trained there")
    try:
        remove_content(folder)
    except OSError as error:
        raise RunError(f"cannot remove {error.filename}: {error.strerror}") from error


def _require_same_experiment(folder: Path, config: Path, bindings: Sequence[str], plugins: Sequence[Any]) -> None:
    """Check that the run of a folder was begun with the config of a trial.

    Raises:
        RunError: It was not; the message says what differs.
    """
    prepared = prepare(config, bindings, plugins)
    expected = prepared.built.config
    files = RunDirectory.open(folder)
    recorded = parse_text(files.read_config(), str(folder / "config.gin"))

    # Relative paths are of the folder in which the run was begun, which may have been moved since.
    absolute = make_paths_absolute(expected, prepared.plugins)
    pairs = zip(expected.bindings, absolute.bindings, strict=True)
    relative = {binding.key for binding, resolved in pairs if binding.value != resolved.value}
    old = _list_lines(recorded, relative)
    new = _list_lines(expected, relative)
    if old != new:
        change = describe_change("\n".join(["", *old]), "\n".join(["", *new]))
        raise RunError(
            f"{folder} holds a run of another experiment (its config {change}): move it away, and the trial is trained "
            "from scratch"
        )


def _list_lines(config: Config, left_out: Collection[tuple[str, str, str]]) -> list[str]:
    return sorted(binding.text() for binding in config.bindings if binding.key not in left_out)
