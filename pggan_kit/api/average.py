"""Choose one of a run's averaged generators, or make one of another width."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pggan_kit.api.prepare import Prepared, prepare_run
from pggan_kit.errors import RunError, SettingError
from pggan_kit.growth.averages import BEST
from pggan_kit.runs.checkpoint_identity import describe_difference
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import TrainedGenerator, load_place, restore_generator
from pggan_kit.runs.post_hoc import PieceFit, make_average
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.targets import require_target_outside_runs
from pggan_kit.schedule import Schedule
from pggan_kit.system.files import read_bytes, require_replaceable, write_atomically

SUFFIX = ".pt"
"""Suffix of the file of an average."""

LARGEST_ERROR = 0.05
"""Maximum error of an average's profile, as a share of its L2 norm, that is not warned of."""

Choice = str | float | Path | None
"""An average: its name, a width, a file of one, or None for the run's first."""


def write_average(
    run: str | Path | Run,
    width: float,
    target: str | Path,
    *,
    stage: str | int | None = None,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
) -> list[PieceFit]:
    """Write the averaged generator of any width, made of the power-function averages that a run has kept.

    Args:
        run: a run or its directory, trained with `averages.PowerFunction`.
        width: the standard deviation of the average's profile, as a share of the age of each piece of the generator.
        target: the file, `FILE.pt`, which `load_generator`, `sample` and `evaluate` take as `average`.
        stage, plugins, parts: see `load_generator`.

    Returns:
        How well the average was made, for the pieces of each stage.

    Raises:
        RunError: there is no run, stage or checkpoint, it has no such averages, the width is out of range, or the
            target cannot be written.
    """
    path = Path(target)
    if path.suffix != SUFFIX:
        raise RunError(f"--out {path}: name a {SUFFIX} file")
    require_target_outside_runs("--out", path)
    require_replaceable(path)

    # The average, and then the file.
    prepared, files = prepare_run(run, plugins, parts, needs_data=False)
    checkpoint = load_place(files.checkpoints(), stage, "last")
    saved, fits = _make_width("--width", prepared, files, prepared.resolve_schedule(), checkpoint, width)

    buffer = io.BytesIO()
    torch.save(saved.content(), buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {path}: cannot be written ({error.strerror})") from error
    write_atomically(path, buffer.getvalue())
    return fits


def choose_average(average: Choice) -> Choice:
    """Return an average as the command line names it: a text that is a number is a width, and `FILE.pt` a file."""
    if not isinstance(average, str):
        return average
    try:
        return float(average)
    except ValueError:
        if average.endswith(SUFFIX):
            return Path(average)
        return average


def load_average(
    prepared: Prepared,
    files: RunDirectory,
    schedule: Schedule,
    stage: str | int | None,
    average: Choice,
    checkpoint: str = "last",
) -> tuple[TrainedGenerator, Snapshot, str]:
    """Return an averaged generator of a run on the CPU, the checkpoint that it is of, and the average's name.

    Args:
        prepared, files: the run.
        schedule: its schedule.
        stage: see `load_generator`.
        average: see `load_generator`.
        checkpoint: see `load_generator`.

    Raises:
        RunError: there is no such choice of a checkpoint, no such checkpoint or average, it does not fit the run's
            config, or it is a file of a run of other data.
    """
    # The checkpoint: a file of an average has its own, any other average is one of the run.
    choice = choose_average(average)
    if isinstance(choice, Path):
        if stage is not None or checkpoint != "last":
            raise RunError(f"--average {choice}: the file is of one checkpoint; leave --stage and --checkpoint out")
        saved = read_average(choice)
        _require_same_data(choice, saved, files)
    else:
        saved = load_place(files.checkpoints(), stage, checkpoint)

    # A width is made of power functions; the checkpoint then has this average alone.
    if isinstance(choice, (int, float)):
        saved, _ = _make_width("--average", prepared, files, schedule, saved, choice)

    # The generator, with what its checkpoint does not hold: the map of values and the names of classes.
    name = choice if isinstance(choice, str) else next(iter(saved.averages))
    own = prepared.identify_networks(schedule)
    # Asked for before it is loaded, so that the message can name the option.
    try:
        saved.select_average(name)
    except RunError as error:
        hint = "; `evaluate` alone chooses the best width" if name == BEST else ""
        raise RunError(f"--average {name}: {error}{hint}") from None
    generator = restore_generator(prepared.built.experiment, schedule, prepared.hooks(), saved, own, average=name)
    if prepared.values is not None:
        generator.values = prepared.values
    generator.class_names = files.read_class_names()
    return generator, saved, name


def read_average(path: Path) -> Snapshot:
    """Return the content of a file that `write_average` wrote.

    Raises:
        RunError: it cannot be read, or is no such file.
    """
    try:
        content = torch.load(io.BytesIO(read_bytes(path)), map_location="cpu", weights_only=True)
        return Snapshot.from_content(content)
    except OSError as error:
        raise RunError(f"--average {path}: cannot be read ({error.strerror})") from error
    except RunError as error:
        raise RunError(f"--average {path}: {error}") from None
    except (Exception, RecursionError, MemoryError) as error:  # torch.load documents none of what it raises
        raise RunError(f"--average {path}: it is no file of an average ({type(error).__name__})") from error


def _require_same_data(path: Path, saved: Snapshot, files: RunDirectory) -> None:
    """Check that a file of an average is of a run of the same data, in whose units and classes it is drawn.

    Raises:
        RunError: it is of another run.
    """
    # Where the checkpoints were removed, nothing but the file says what the data were.
    if not files.checkpoints().has_files():
        return
    own = files.checkpoints().load_last().identity
    if not saved.identity or not own:
        return
    difference = describe_difference(saved.identity["dataset"], own["dataset"])
    if difference:
        raise RunError(
            f"--average {path} is of another run, with another data set ({difference}): name the run that it was made "
            "of, or a file of this one"
        )


def _make_width(
    option: str, prepared: Prepared, files: RunDirectory, schedule: Schedule, saved: Snapshot, width: float
) -> tuple[Snapshot, list[PieceFit]]:
    """Return the average of a width at a checkpoint; warn where it is far from what was asked for."""
    try:
        made, fits = make_average(prepared.built.experiment, schedule, saved, files.average_snapshots(), width)
    except SettingError as error:
        raise RunError(f"{option} {width:g}: a {error}") from None
    poor = [f"{fit.size} ({100 * fit.error:.2g} %)" for fit in fits if fit.error > LARGEST_ERROR]
    if poor:
        warnings.warn(
            f"the average of width {width:g} at images {saved.images} is far from its profile in the pieces that came "
            f"with {', '.join(poor)}: they are young, or the width is far from those that were followed",
            stacklevel=3,
        )
    return made, fits
