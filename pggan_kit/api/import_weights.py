"""Make a run of networks that another project has trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import Prepared
from pggan_kit.components import ForeignNetworks
from pggan_kit.config import gin_files as configs
from pggan_kit.config.builder import build_from_config
from pggan_kit.config.gin_files import Config
from pggan_kit.config.object_components import components_from_objects
from pggan_kit.config.path_settings import make_paths_absolute
from pggan_kit.data.recorded import RecordedDataset
from pggan_kit.data.sampler import Data
from pggan_kit.errors import RunError, UnforeseenError, quote_path, require_list, require_path
from pggan_kit.plugin_host.failures import explain_unforeseen
from pggan_kit.plugin_host.loading import Plugins, load_plugins
from pggan_kit.runs.checkpoint_identity import Identity, identify_experiment, identify_networks, merge_other_settings
from pggan_kit.runs.checkpoints import Say
from pggan_kit.runs.directory import RunDirectory, describe_start, read_command_line
from pggan_kit.runs.foreign_networks import load_foreign_networks
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Schedule

DATASET = ("", "train", "dataset")
"""Key of the binding of the data set."""


def import_weights(
    file: str | Path,
    bindings: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    plugins: Sequence[Any] = (),
    say: Say | None = None,
) -> Path:
    """Make a run of the networks in a file of another project.

    Args:
        file: a file that an importer of a plugin reads.
        bindings: overrides of the experiment that the importer describes. With `train.dataset` the run has these data;
            without it, it can be sampled, and evaluated with `evaluation.dataset`, and a run that begins from it brings
            its own.
        run_dir: the run's folder; None: the next number under `runs/`.
        plugins: see `prepare`.
        say: the receiver of sentences on what was imported, and on what could not be.

    Returns:
        The run's folder.

    Raises:
        UserError: no importer knows the file, its networks cannot be expressed here, or the bindings are wrong.
    """
    require_list("bindings", bindings)
    loaded = load_plugins(plugins)
    path = require_path("file", file)
    project, foreign = read_foreign_networks(loaded, path)

    # The experiment; its data set only where one is bound.
    prepared, has_data = _prepare_foreign(path, project, foreign, bindings, loaded)
    schedule = prepared.schedule()
    _require_channels(path, foreign, schedule)

    # Everything that can be wrong is tried before the folder is made.
    state = prepared.state(schedule)
    load_foreign_networks(state, foreign)
    data = prepared.data(schedule) if has_data else None
    snapshot = _take_foreign_snapshot(state, foreign, _identify(prepared, schedule, data))
    record = {"images": 0, "channels": foreign.image_channels, "classes": 0} if data is None else data.record()
    size = schedule.stages[foreign.stage].size
    origin = {"file": str(path.resolve()), "project": project, "images": snapshot.images, "size": size}
    files = _make_directory(prepared, run_dir, origin, record, schedule)
    try:
        files.checkpoints().save(snapshot, forever=snapshot.stage_over)
    except BaseException:
        files.discard()
        raise

    # What was imported, what differs from that project, and how to see it.
    files.log_and_say(
        f"imported {path} of {project}: networks of {size}, alpha {foreign.alpha:g}, in {files.path}", say
    )
    for note in foreign.notes:
        files.log_and_say(note, say)
    files.log_and_say(f"to see its images: pggan-kit sample {quote_path(files.path)} --out images.png", say)
    files.unlock()
    return files.path


def read_foreign_networks(plugins: Plugins, path: Path) -> tuple[str, ForeignNetworks]:
    """Return the project that a file is of, and its networks.

    Raises:
        RunError: there is no such file, or no importer reads it.
        UnforeseenError: an importer failed in a way that nobody foresaw, and no other one reads the file.
    """
    if path.is_dir():
        raise RunError(f"{path}: is a folder: name the file of another project's networks")
    if not path.is_file():
        raise RunError(f"{path}: there is no such file")

    # The first importer that knows the file reads it; another project may have files of the same suffix.
    importers = plugins.list_importers()
    refusals: list[RunError | UnforeseenError] = []
    for importer in importers:
        try:
            with explain_unforeseen(f"reading {path} by the importer of {importer.name}", {}):
                foreign = importer.read(path)
        except (RunError, UnforeseenError) as error:
            refusals.append(error)
            continue
        if foreign is not None:
            return importer.name, foreign

    # An importer that refused the file says more than that none knows it.
    if refusals:
        raise refusals[0]
    names = ", ".join(importer.name for importer in importers) or "none"
    raise RunError(f"{path} is no file that an importer reads; there are importers of: {names}")


def _prepare_foreign(
    path: Path, project: str, foreign: ForeignNetworks, bindings: Sequence[str], loaded: Plugins
) -> tuple[Prepared, bool]:
    """Return the experiment of another project's networks, and whether a data set is bound.

    Args:
        path: the file of the networks.
        project: the project that it is of.
        foreign: its networks.
        bindings: overrides of the experiment.
        loaded: the plugins.
    """
    config = make_paths_absolute(configs.parse_text(foreign.config, f"the config of {project}", bindings), loaded)
    has_data = any(binding.key == DATASET for binding in config.bindings)
    if not has_data:
        config = _add_recorded_dataset(config, foreign, bindings, loaded)
    return Prepared(replace(config, name=path.stem), loaded, build_from_config(config, loaded)), has_data


def _add_recorded_dataset(config: Config, foreign: ForeignNetworks, bindings: Sequence[str], loaded: Plugins) -> Config:
    """Return a config whose data set knows the channels of its images, and nothing more."""
    recorded = components_from_objects({"train.dataset": RecordedDataset(0, foreign.image_channels, 0)})
    loaded.add_components(recorded.rows)
    overridden = configs.parse_text(foreign.config, config.name, [*bindings, *recorded.bindings])
    return make_paths_absolute(overridden, loaded)


def _require_channels(path: Path, foreign: ForeignNetworks, schedule: Schedule) -> None:
    """Check that networks are for images with the channels of the data.

    Raises:
        RunError: They are not.
    """
    channels = schedule.stages[0].image_channels
    if foreign.image_channels != channels:
        raise RunError(
            f"{path} is of networks for images of {foreign.image_channels} channels, and train.dataset has images of "
            f"{channels}"
        )


def _take_foreign_snapshot(state: TrainState, foreign: ForeignNetworks, identity: Identity) -> Snapshot:
    """Return the checkpoint of networks that another project trained; where nothing fades, it is of a stage's end."""
    return replace(
        state.take_snapshot(),
        identity=identity,
        alpha=foreign.alpha,
        stage_over=not any(foreign.bridged.values()),
    )


def _identify(prepared: Prepared, schedule: Schedule, data: Data | None) -> Identity:
    """Return the identity that the checkpoint notes; it is of no data set where there are no data."""
    settings = prepared.built.settings
    if data is not None:
        return identify_experiment(settings, schedule, data)
    others = {name: value for name, value in merge_other_settings(settings).items() if name != "train.dataset"}
    return {**identify_networks(settings, schedule), "dataset": {}, "settings": others}


def _make_directory(
    prepared: Prepared,
    run_dir: str | Path | None,
    origin: Mapping[str, Any],
    record: Mapping[str, Any],
    schedule: Schedule,
) -> RunDirectory:
    """Make the run's directory, whose config names no data set where there are no data."""
    built = prepared.built.config
    kept = tuple(binding for binding in built.bindings if binding.key != DATASET or record["images"] > 0)

    # The record of an ordinary run, with the file that it came from.
    plugins = [
        {"name": plugin.name, "origin": plugin.origin, "sha256": plugin.sha256} for plugin in prepared.plugins.loaded
    ]
    start = describe_start(
        plugins,
        replace(built, bindings=kept).text(),
        prepared.built.operative,
        read_command_line(),
        {"imported": origin},
        blocked=[plugin.key for plugin in prepared.plugins.blocked],
        data=record,
        schedule=schedule.record(),
    )
    folder = None if run_dir is None else Path(run_dir)
    return RunDirectory.create(folder, prepared.config.name, start)
