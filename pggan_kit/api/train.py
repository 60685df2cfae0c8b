"""Train an experiment, and resume a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import DataProgress, Prepared, prepare, recorded
from pggan_kit.data.sampler import Data
from pggan_kit.errors import UserError
from pggan_kit.runs import branches as branching
from pggan_kit.runs.average import ages_of_average
from pggan_kit.runs.checkpoints import Say
from pggan_kit.runs.directory import RunDirectory, environment_command
from pggan_kit.runs.identity import identity, require_same
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
        data_progress: told `(done, total, what)` while resized copies of the data are made.
        start_from: another run's folder, from whose last checkpoint this run goes on, under its own config; or
            `RUN@STAGE` for the end of a stage, by its number from 0 or its size (`runs/00007-mnist@14x14`).
        say: told in one line where a run with `start_from` begins.

    Returns:
        The finished run.

    Raises:
        UserError: the input was wrong; nothing was started and no run directory is left.
        TrainingError: the run failed.
        Interrupted: a signal or `train.time_limit` stopped it; it can be resumed.
    """
    distributed.start()
    run, data, saved = _begun(prepare(config, bindings, plugins, parts), run_dir, start_from, data_progress)
    if start_from is not None:
        run.files.tell(branching.beginning(start_from, run), say)
    _tell_age_of_average(run)
    begun = run.state.steps
    try:
        training.train(run, data, saved)
    except UserError:
        # A part may learn only in `before_run` that it does not fit: then nothing was trained, and nothing is left.
        if run.state.steps == begun and distributed.rank() == 0:
            shutil.rmtree(run.directory)
        raise
    finally:
        run.files.unlock()
    return run


def _begun(
    prepared: Prepared, run_dir: str | Path | None, start_from: str | Path | None, progress: DataProgress | None
) -> tuple[Run, Data, Snapshot | None]:
    """A new run in its directory, its data, and the checkpoint that a branch goes on from."""
    schedule, hooks = prepared.schedule(), prepared.hooks()
    trunk = branching.find(start_from) if start_from is not None else None
    data = prepared.data(schedule, progress)
    state, own = prepared.state(schedule), identity(prepared.built.experiment, schedule, data)
    evaluator = prepared.evaluator(schedule.stages, state.device, data)
    saved: Snapshot | None = None
    left: list[str] = []
    if trunk is not None:
        saved, left = branching.take(trunk, own, state, hooks)
    path = Path(run_dir) if run_dir is not None else None
    files = _new_directory(prepared, path, trunk.origin if trunk else None)
    run = Run(files, prepared.built.experiment, schedule, state, hooks)
    run.identity, run.evaluator = own, evaluator
    for line in [*left, *prepared.batch_warnings(schedule)]:
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
        plugins: instead of the plugin files that the run used, which must not have changed since.
        parts: where the run was begun with objects: such objects again, made with the same arguments.
        data_progress: see `train`.
        say: told in one line where the run was complete already.

    Returns:
        The finished run.

    Raises:
        RunError: there is no run, no checkpoint, or one that does not fit; or another process trains there.
    """
    distributed.start()
    prepared, files = recorded(run_dir, plugins, parts)
    distributed.on_rank_0(files.lock)
    try:
        return _resumed(prepared, files, data_progress, say)
    finally:
        files.unlock()


def _resumed(prepared: Prepared, files: RunDirectory, data_progress: DataProgress | None, say: Say | None) -> Run:
    schedule, hooks = prepared.schedule(), prepared.hooks()
    saved = _last(files)
    data = prepared.data(schedule, data_progress)
    own = identity(prepared.built.experiment, schedule, data)
    state = prepared.state(schedule)
    if saved is not None:
        require_same(saved.identity, own)
        state.load_snapshot(saved)
    run = Run(files, prepared.built.experiment, schedule, state, hooks)
    run.identity, run.resumed = own, True
    run.evaluator = prepared.evaluator(schedule.stages, state.device, data)
    if distributed.rank() == 0:
        files.cut_stats(state.images)
        files.log(f"resumed at images {state.images}")
    if state.images >= schedule.total:
        files.tell(f"{files.path} was complete already, at images {state.images:,}", say)
    # Again, as the number of processes may be another one now.
    for line in prepared.batch_warnings(schedule, state.stage.index):
        files.warn(line)
    training.train(run, data, saved)
    return run


def _last(files: RunDirectory) -> Snapshot | None:
    """The last whole checkpoint; None where a run was killed before its first, so that it goes on from its start."""
    checkpoints = files.checkpoints()
    untouched = not checkpoints.has_files() and not files.stats()
    if untouched and "from" not in files.about():
        return None
    return checkpoints.load_last(files.warn)


def _new_directory(prepared: Prepared, path: Path | None, origin: dict[str, Any] | None) -> RunDirectory:
    """Made on rank 0, known to all."""
    made: list[RunDirectory] = []

    def make() -> str:
        files = RunDirectory.create(path, prepared.config.name)
        made.append(files)
        described = [{"name": p.name, "origin": p.origin, "sha256": p.sha256} for p in prepared.plugins.loaded]
        config = prepared.built.config.text()
        files.record(
            described,
            config,
            prepared.built.operative,
            environment_command(),
            origin,
            blocked=[plugin.key for plugin in prepared.plugins.blocked],
            objects=prepared.objects,
        )
        return str(files.path)

    folder = distributed.on_rank_0(make)
    return made[0] if made else RunDirectory(Path(folder))


def _tell_age_of_average(run: Run) -> None:
    """Log how old the average of G will be at each stage's end, and warn where that is too old."""
    ages = ages_of_average(run.experiment, run.schedule, run.state.starts)
    run.files.tell(f"the generator's average at each stage's end: {'; '.join(age.text for age in ages)}", None)
    for age in ages:
        if age.warning is not None:
            run.files.warn(age.warning)
