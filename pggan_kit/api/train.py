"""Train an experiment, and resume a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import Prepared, prepare, prepare_run
from pggan_kit.data.sampler import Data
from pggan_kit.errors import RunError, UserError, require_list, require_path
from pggan_kit.growth.averages import list_names
from pggan_kit.layers.value_maps import ValueMap
from pggan_kit.plugin_host.contracts import find_marked_hooks
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import GIVEN, list_changed_plugins, list_distributions, list_missing_plugins
from pggan_kit.runs.average import list_average_ages
from pggan_kit.runs.branches import (
    BranchPoint,
    check_data,
    copy_average_snapshots,
    describe_branch,
    describe_stem,
    find_branch_point,
    keep_states_of_same_classes,
    load_branch_point,
    load_stem,
    put_stem_under,
)
from pggan_kit.runs.checkpoint_identity import (
    Change,
    Identity,
    Settings,
    are_below,
    describe_changes,
    identify_experiment,
    list_changes,
    require_same,
)
from pggan_kit.runs.checkpoints import Say
from pggan_kit.runs.directory import RunDirectory, describe_start, read_command_line
from pggan_kit.runs.processes import ProcessRecord
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.snapshot_loading import list_average_notes
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Schedule
from pggan_kit.system import distributed
from pggan_kit.training import loop as training
from pggan_kit.training.measures import list_directions

PLACES_OF_OPTIMIZERS = (
    "train.generator_optimizer",
    "train.discriminator_optimizer",
    "train.encoder_optimizer",
    "train.update",
)
"""Places whose settings decide with which rates optimizers are built."""


def train(
    config: str | Path,
    bindings: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    start_from: str | Path | Run | None = None,
    stem: str | Path | Run | None = None,
    say: Say | None = None,
) -> Run:
    """Train an experiment to its end.

    Args:
        config, bindings, plugins, parts: see `prepare`.
        run_dir: the run's folder; None: the next number under `runs/`.
        start_from: another run or its folder, from whose last checkpoint this run goes on, under its own config; or
            `RUN@STAGE` for the end of a stage, by its number from 0 or its size (`runs/00007-mnist@14x14`).
        stem: another run or its folder, or `RUN@STAGE`, whose pieces of the stages up to its own take the place of this
            run's. Alone, this run begins at the end of that stage by its own schedule; with `start_from`, later pieces,
            optimizers and the clock are those of that run.
        say: the receiver of a line that says where a run with `start_from` or `stem` begins.

    Returns:
        The finished run.

    Raises:
        UserError: the input was wrong; nothing was started and no run directory is left.
        TrainingError: the run failed.
        Interrupted: a signal or `train.time_limit` stopped it; it can be resumed.
    """
    require_list("bindings", bindings)
    if run_dir is not None:
        run_dir = require_path("run_dir", run_dir)
    # The log of the run has the beginning and the end of this process, and why it failed if it did.
    with ProcessRecord(bindings) as record:
        return _train(
            record,
            require_path("config", config),
            bindings,
            run_dir,
            plugins,
            parts,
            _name_origin("start_from", start_from),
            _name_origin("stem", stem),
            say,
        )


def _name_origin(name: str, origin: str | Path | Run | None) -> str | Path | None:
    """Return a run to begin from as a text or path."""
    if isinstance(origin, Run):
        return origin.directory
    if origin is not None:
        require_path(name, origin)
    return origin


def _train(
    record: ProcessRecord,
    config: str | Path,
    bindings: Sequence[str],
    run_dir: str | Path | None,
    plugins: Sequence[Any],
    parts: Mapping[str, object] | None,
    start_from: str | Path | None,
    stem: str | Path | None,
    say: Say | None,
) -> Run:
    """Train a new run, which is added to the record of this process."""
    distributed.join_group()
    prepared = prepare(config, bindings, plugins, parts, absolute_paths=True)
    origins = _find_origins(start_from, stem)
    prepared = replace(prepared, values=origins.values)
    run, data, saved = _begin_run(prepared, run_dir, origins)
    record.attach(run.files, list_distributions(prepared.plugins))
    record.follow(run)
    if start_from is not None:
        run.files.log_and_say(describe_branch(start_from, run), say)
    if stem is not None and origins.stem is not None:
        run.files.log_and_say(describe_stem(stem, origins.stem, run), say)
    _log_average_ages(run)

    first_step = run.state.steps
    try:
        training.train(run, data, saved)
    except UserError:
        # A component may find only in `before_run` that it does not fit: then nothing was trained, and nothing is left.
        if run.state.steps == first_step and distributed.rank() == 0:
            run.files.discard()
        raise
    return run


@dataclass(frozen=True)
class _Origins:
    """The places of other runs that a new run begins from.

    Attributes:
        point: the place that a branch goes on from; None for other runs.
        stem: the place that a stem is taken from; None for other runs.
        warnings: sentences about their damaged checkpoints.
    """

    point: BranchPoint | None
    stem: BranchPoint | None
    warnings: list[str]

    @property
    def values(self) -> ValueMap | None:
        """Map of the numbers of the data that the networks learned from; None where there are no origins."""
        if self.point is not None:
            return self.point.values
        return None if self.stem is None else self.stem.values

    def check_data(self, prepared: Prepared, data: Data) -> list[str]:
        """Check that the new run's data suit them, and return what differs; see `check_data`."""
        nets = prepared.built.experiment.nets
        conditional = any(prepared.built.experiment.find_architecture(net).conditional for net in nets)
        notes = []
        for place in (self.point, self.stem):
            if place is not None:
                notes += check_data(place, data, conditional)
        return notes

    def load(self, own: Identity, state: TrainState, hooks: Hooks) -> tuple[Snapshot | None, list[str]]:
        """Load them into a new state; return the snapshot that the run goes on from, and what was not loaded."""
        if self.point is not None:
            loaded = load_branch_point(self.point, own, state, hooks)
            if self.stem is not None:
                put_stem_under(self.stem, self.point, own, state)
            return loaded
        if self.stem is not None:
            return load_stem(self.stem, own, state)
        return None, []

    def describe(self, images: int) -> dict[str, dict[str, Any]]:
        """Return what `run.json` records of them.

        Args:
            images: the clock at which the new run begins.
        """
        described = {}
        if self.point is not None:
            described["from"] = self.point.origin
        if self.stem is not None:
            described["stem"] = {**self.stem.origin, "begins": images}
        return described


def _find_origins(start_from: str | Path | None, stem: str | Path | None) -> _Origins:
    """Find the places that `start_from` and `stem` name."""
    warnings: list[str] = []
    point: BranchPoint | None = None
    stem_point: BranchPoint | None = None
    if start_from is not None:
        point = find_branch_point(start_from, warnings.append)
    if stem is not None:
        stem_point = find_branch_point(stem, warnings.append, "--stem")
    return _Origins(point, stem_point, warnings)


def _begin_run(prepared: Prepared, run_dir: str | Path | None, origins: _Origins) -> tuple[Run, Data, Snapshot | None]:
    """Make a new run; return it, its data, and the checkpoint that it goes on from where it begins with others."""
    # Everything that can be wrong is tried before the folder is made.
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    hooks = prepared.hooks()
    data = prepared.data(schedule)
    state = prepared.state(schedule)
    own = identify_experiment(prepared.built.settings, schedule, data)
    evaluator = prepared.evaluator(schedule.stages, state.device, data)
    saved, notes = origins.load(own, state, hooks)
    notes = [*origins.check_data(prepared, data), *notes]

    # From here on there is a folder, whose log has what was noticed before.
    files = _make_directory(prepared, run_dir, origins.describe(state.images), data, schedule)
    if origins.point is not None and distributed.rank() == 0:
        try:
            copy_average_snapshots(origins.point, origins.stem, files)
        except BaseException:
            # Without its first checkpoint the run could not be resumed.
            files.discard()
            raise
    run = Run(files, experiment, schedule, state, hooks)
    run.identity = own
    run.evaluator = evaluator
    run.data = data
    for line in [*origins.warnings, *notes, *prepared.list_warnings(schedule, data=data)]:
        files.warn(line)
    return run, data, saved


def resume(
    run_dir: str | Path,
    bindings: Sequence[str] = (),
    *,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    say: Say | None = None,
) -> Run:
    """Go on with a run from its last whole checkpoint, as if it had never stopped.

    Settings that changed since that checkpoint, by hand in `config.gin` or by `bindings`, hold from there on: `log.txt`
    and `run.json` record each with the clock, and `operative.gin` is written again. The networks, the schedule and the
    images of the data set cannot change.

    Args:
        run_dir: the run's folder.
        bindings: overrides of the run's config, which they become part of: where the data are now, another rate.
        plugins: plugins instead of the plugin files that the run used, which must not have changed since.
        parts: new objects for those that the run was begun with, made with the same arguments.
        say: the receiver of one line where settings changed, or where the run was complete already.

    Returns:
        The finished run.

    Raises:
        RunError: there is no run, no checkpoint, or one that does not fit; or another process trains there.
    """
    require_list("bindings", bindings)
    # The log of the run has the beginning and the end of this process, and why it failed if it did.
    with ProcessRecord(bindings) as record:
        return _resume(record, run_dir, bindings, plugins, parts, say)


def _resume(
    record: ProcessRecord,
    run_dir: str | Path,
    bindings: Sequence[str],
    plugins: Sequence[Any],
    parts: Mapping[str, object] | None,
    say: Say | None,
) -> Run:
    """Go on with a run, which is added to the record of this process."""
    distributed.join_group()
    prepared, files = prepare_run(run_dir, plugins, parts, bindings)

    # Locked before anything is read that another process may still write.
    distributed.run_on_rank_0(files.lock)
    try:
        distributed.run_on_rank_0(files.require_no_links)
    except UserError:
        files.unlock()
        raise
    record.attach(files, list_distributions(prepared.plugins))
    return _resume_locked(record, prepared, files, bool(bindings), say)


def _resume_locked(
    record: ProcessRecord,
    prepared: Prepared,
    files: RunDirectory,
    overridden: bool,
    say: Say | None,
) -> Run:
    # The experiment, at its last checkpoint.
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    hooks = prepared.hooks()
    saved = _load_last(files)
    data = prepared.data(schedule)
    own = identify_experiment(prepared.built.settings, schedule, data)
    state = prepared.state(schedule)
    changes: dict[str, Change] = {}
    notes: list[str] = []
    earlier: list[dict[str, Any]] = []
    if saved is not None:
        require_same(saved.identity, own, overridden=overridden)
        earlier = saved.changes
        if saved.identity:
            changes = list_changes(saved.identity["settings"], own["settings"])
        saved, notes = _load_under_changes(saved, changes, prepared.built.settings, state, hooks)

    # The run, as one that was not interrupted has it.
    run = Run(files, experiment, schedule, state, hooks)
    record.follow(run)
    run.identity = own
    run.changes = earlier
    run.resumed = True
    run.evaluator = prepared.evaluator(schedule.stages, state.device, data)
    run.data = data

    # The files, back at the checkpoint; the warnings again, as the number of processes may be another one now.
    start = files.read_start()
    if distributed.rank() == 0:
        files.remove_leftovers(run.checkpoints)
        files.cut_stats(state.images)
        files.warn_of_lost_rows(state.last_tick)
        files.log(f"resumed at images {state.images}")
    if state.is_over:
        files.log_and_say(f"{files.path} was complete already, at images {state.images:,}", say)
    else:
        _record_changes(run, prepared, changes, overridden, say)
    recorded = files.about()["plugins"]
    lines = [*list_missing_plugins(recorded, prepared.plugins), *list_changed_plugins(recorded, prepared.plugins)]
    for line in [*lines, *notes, *prepared.list_warnings(schedule, state.stage.index, data)]:
        files.warn(line)

    first_step = state.steps
    try:
        training.train(run, data, saved)
    except UserError:
        # A component may find only now that it does not fit: then the run is left under the settings that it had.
        if state.steps == first_step and distributed.rank() == 0:
            files.write_start(start)
        raise
    return run


def _load_under_changes(
    saved: Snapshot, changes: Mapping[str, Change], settings: Settings, state: TrainState, hooks: Hooks
) -> tuple[Snapshot, list[str]]:
    """Load a checkpoint into the state of a run whose settings may have changed since.

    Returns:
        The snapshot that the run goes on from, without what was not loaded; and sentences that say what was not.
    """
    # What an optimizer saved would hide its new rate, here and at each return to this checkpoint.
    has_new_rates = are_below(changes, settings, PLACES_OF_OPTIMIZERS)
    state.load_snapshot(saved, own_settings=has_new_rates)
    if has_new_rates:
        saved = replace(saved, optimizers=state.save_optimizers())
    notes = list_average_notes(state.experiment.averages, saved)
    if not changes:
        return saved, notes
    components, left_out = keep_states_of_same_classes(saved, hooks)
    return replace(saved, components=components), [*notes, *left_out]


def _record_changes(
    run: Run, prepared: Prepared, changes: Mapping[str, Change], overridden: bool, say: Say | None
) -> None:
    """Record with which settings a run goes on, and say which of them changed."""
    images = run.state.images
    if changes:
        entry = {"images": images, "bindings": {name: list(values) for name, values in changes.items()}}
        run.changes = [*run.changes, entry]
        run.files.log_and_say(f"changed at images {images:,}: {describe_changes(changes)}", say)
    if distributed.rank() == 0:
        config_text = None
        if overridden:
            config_text = prepared.built.config.text()
        directions = list_directions(run.experiment)
        run.files.update_record(run.changes, prepared.built.operative, config_text, directions=directions)


def _load_last(files: RunDirectory) -> Snapshot | None:
    """Return the last whole checkpoint; None where a run was killed before its first, so that it starts again."""
    if not files.has_trained():
        about = files.about()
        if not {"from", "stem", "imported"} & about.keys():
            return None
        # Only the first checkpoint has the weights that such a run began with.
        raise RunError(
            f"{files.path} was stopped before its first checkpoint, so there is nothing to continue from: remove the "
            f"folder, and repeat the command that began it: {about['command']}"
        )
    return files.checkpoints(say=files.warn).load_last()


def _make_directory(
    prepared: Prepared,
    run_dir: str | Path | None,
    origins: Mapping[str, Mapping[str, Any]],
    data: Data,
    schedule: Schedule,
) -> RunDirectory:
    """Make a run's directory on rank 0, and return it on all ranks."""
    path = None
    if run_dir is not None:
        path = Path(run_dir)
    made: list[RunDirectory] = []

    # Only rank 0 calls this: one process writes how the run began.
    def make() -> str:
        # What the run begins with.
        plugins = [
            {
                "name": plugin.name,
                "origin": plugin.origin,
                "sha256": plugin.sha256,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "hooks": sorted(find_marked_hooks(plugin.object, plugin.name)),
            }
            for plugin in prepared.plugins.loaded
        ]
        objects = {selector for selectors in prepared.objects.values() for selector in selectors}
        given = [name for name in prepared.plugins.list_given_components() if name not in objects]
        plugins += [{"name": name, "origin": GIVEN, "hooks": []} for name in given]
        start = describe_start(
            plugins,
            prepared.built.config.text(),
            prepared.built.operative,
            read_command_line(),
            origins,
            blocked=[plugin.key for plugin in prepared.plugins.blocked],
            objects=prepared.objects,
            data=data.record(),
            schedule=schedule.record(),
            directions=list_directions(prepared.built.experiment),
        )

        # The folder, which this process holds from here on.
        files = RunDirectory.create(path, prepared.config.name, start)
        made.append(files)
        return str(files.path)

    # Rank 0 goes on with the object that holds the lock.
    folder = distributed.run_on_rank_0(make)
    if made:
        return made[0]
    return RunDirectory(Path(folder))


def _log_average_ages(run: Run) -> None:
    """Log the age of each average of the generator at each stage's end, and warn where it is too old."""
    ages = list_average_ages(run.experiment, run.schedule, run.state.starts)
    for name in list_names(run.experiment.averages):
        texts = [age.text for age in ages if age.name == name]
        run.files.log_and_say(f"the generator's average {name} at each stage's end: {'; '.join(texts)}", None)
    for age in ages:
        if age.warning is not None:
            run.files.warn(age.warning)
