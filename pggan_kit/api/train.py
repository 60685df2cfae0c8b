"""Train an experiment, and resume a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import DataProgress, Prepared, prepare, prepare_run
from pggan_kit.data.sampler import Data
from pggan_kit.errors import UserError
from pggan_kit.runs.average import list_average_ages
from pggan_kit.runs.branches import BranchPoint, describe_branch, find_branch_point, load_branch_point
from pggan_kit.runs.checkpoint_identity import identify_experiment, require_same
from pggan_kit.runs.checkpoints import Say
from pggan_kit.runs.directory import RunDirectory, read_command_line
from pggan_kit.runs.processes import ProcessRecord
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.system import distributed
from pggan_kit.training import loop as training


def train(
    config: str | Path,
    bindings: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    data_progress: DataProgress | None = None,
    start_from: str | Path | None = None,
    say: Say | None = None,
) -> Run:
    """Train an experiment to its end.

    Args:
        config, bindings, plugins, parts: see `prepare`.
        run_dir: the run's folder; None: the next number under `runs/`.
        data_progress: the receiver of `(done, total, what)` while resized copies of the data are made.
        start_from: another run's folder, from whose last checkpoint this run goes on, under its own config; or
            `RUN@STAGE` for the end of a stage, by its number from 0 or its size (`runs/00007-mnist@14x14`).
        say: the receiver of one line that says where a run with `start_from` begins.

    Returns:
        The finished run.

    Raises:
        UserError: the input was wrong; nothing was started and no run directory is left.
        TrainingError: the run failed.
        Interrupted: a signal or `train.time_limit` stopped it; it can be resumed.
    """
    with ProcessRecord(bindings) as record:
        return _train(record, config, bindings, run_dir, plugins, parts, data_progress, start_from, say)


def _train(
    record: ProcessRecord,
    config: str | Path,
    bindings: Sequence[str],
    run_dir: str | Path | None,
    plugins: Sequence[Any],
    parts: Mapping[str, object] | None,
    data_progress: DataProgress | None,
    start_from: str | Path | None,
    say: Say | None,
) -> Run:
    """Train a new run, which is added to the record of this process."""
    distributed.join_group()
    prepared = prepare(config, bindings, plugins, parts)
    run, data, saved = _begin_run(prepared, run_dir, start_from, data_progress)
    record.attach(run.files)
    record.follow(run)
    if start_from is not None:
        run.files.log_and_say(describe_branch(start_from, run), say)
    _log_average_ages(run)

    first_step = run.state.steps
    try:
        training.train(run, data, saved)
    except UserError:
        # A component may find only in `before_run` that it does not fit: then nothing was trained, and nothing is left.
        if run.state.steps == first_step and distributed.rank() == 0:
            shutil.rmtree(run.directory)
        raise
    return run


def _begin_run(
    prepared: Prepared, run_dir: str | Path | None, start_from: str | Path | None, progress: DataProgress | None
) -> tuple[Run, Data, Snapshot | None]:
    """Make a new run; return it, its data, and the checkpoint that a branch goes on from."""
    # Everything that can be wrong is tried before the folder is made.
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    hooks = prepared.hooks()
    point: BranchPoint | None = None
    if start_from is not None:
        point = find_branch_point(start_from)
    data = prepared.data(schedule, progress)
    state = prepared.state(schedule)
    own = identify_experiment(experiment, schedule, data)
    evaluator = prepared.evaluator(schedule.stages, state.device, data)
    saved: Snapshot | None = None
    warnings: list[str] = []
    if point is not None:
        saved, warnings = load_branch_point(point, own, state, hooks)

    files = _make_directory(prepared, run_dir, point)
    run = Run(files, experiment, schedule, state, hooks)
    run.identity = own
    run.evaluator = evaluator
    for line in [*warnings, *prepared.list_warnings(schedule)]:
        files.warn(line)
    return run, data, saved


def resume(
    run_dir: str | Path,
    *,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    data_progress: DataProgress | None = None,
    say: Say | None = None,
) -> Run:
    """Go on with a run from its last whole checkpoint, as if it had never stopped.

    Args:
        run_dir: the run's folder.
        plugins: plugins instead of the plugin files that the run used, which must not have changed since.
        parts: new objects for those that the run was begun with, made with the same arguments.
        data_progress: see `train`.
        say: the receiver of one line where the run was complete already.

    Returns:
        The finished run.

    Raises:
        RunError: there is no run, no checkpoint, or one that does not fit; or another process trains there.
    """
    with ProcessRecord() as record:
        return _resume(record, run_dir, plugins, parts, data_progress, say)


def _resume(
    record: ProcessRecord,
    run_dir: str | Path,
    plugins: Sequence[Any],
    parts: Mapping[str, object] | None,
    data_progress: DataProgress | None,
    say: Say | None,
) -> Run:
    """Go on with a run, which is added to the record of this process."""
    distributed.join_group()
    prepared, files = prepare_run(run_dir, plugins, parts)

    # Locked before anything is read that another process may still write.
    distributed.run_on_rank_0(files.lock)
    record.attach(files)
    return _resume_locked(record, prepared, files, data_progress, say)


def _resume_locked(
    record: ProcessRecord,
    prepared: Prepared,
    files: RunDirectory,
    data_progress: DataProgress | None,
    say: Say | None,
) -> Run:
    # The experiment, at its last checkpoint.
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    hooks = prepared.hooks()
    saved = _load_last(files)
    data = prepared.data(schedule, data_progress)
    own = identify_experiment(experiment, schedule, data)
    state = prepared.state(schedule)
    if saved is not None:
        require_same(saved.identity, own)
        state.load_snapshot(saved)

    run = Run(files, experiment, schedule, state, hooks)
    record.follow(run)
    run.identity = own
    run.resumed = True
    run.evaluator = prepared.evaluator(schedule.stages, state.device, data)

    # The files, back at the checkpoint; the warnings again, as the number of processes may be another one now.
    if distributed.rank() == 0:
        files.cut_stats(state.images)
        files.log(f"resumed at images {state.images}")
    if state.images >= schedule.total:
        files.log_and_say(f"{files.path} was complete already, at images {state.images:,}", say)
    for line in prepared.list_warnings(schedule, state.stage.index):
        files.warn(line)

    training.train(run, data, saved)
    return run


def _load_last(files: RunDirectory) -> Snapshot | None:
    """Return the last whole checkpoint; None where a run was killed before its first, so that it starts again."""
    checkpoints = files.checkpoints()
    is_untouched = not checkpoints.has_files() and not files.stats()
    # A branch has the weights of its first checkpoint from another run: it cannot start again without them.
    if is_untouched and "from" not in files.about():
        return None
    return checkpoints.load_last(files.warn)


def _make_directory(prepared: Prepared, run_dir: str | Path | None, point: BranchPoint | None) -> RunDirectory:
    """Make a run's directory on rank 0, and return it on all ranks."""
    path = None
    if run_dir is not None:
        path = Path(run_dir)
    origin = None
    if point is not None:
        origin = point.origin
    made: list[RunDirectory] = []

    def make() -> str:
        files = RunDirectory.create(path, prepared.config.name)
        made.append(files)
        plugins = [
            {"name": plugin.name, "origin": plugin.origin, "sha256": plugin.sha256}
            for plugin in prepared.plugins.loaded
        ]
        files.record(
            plugins,
            prepared.built.config.text(),
            prepared.built.operative,
            read_command_line(),
            origin,
            blocked=[plugin.key for plugin in prepared.plugins.blocked],
            objects=prepared.objects,
        )
        return str(files.path)

    # Rank 0 goes on with the object that holds the lock.
    folder = distributed.run_on_rank_0(make)
    if made:
        return made[0]
    return RunDirectory(Path(folder))


def _log_average_ages(run: Run) -> None:
    """Log the age of the generator's average at each stage's end, and warn where it is too old."""
    ages = list_average_ages(run.experiment, run.schedule, run.state.starts)
    run.files.log_and_say(f"the generator's average at each stage's end: {'; '.join(age.text for age in ages)}", None)
    for age in ages:
        if age.warning is not None:
            run.files.warn(age.warning)
