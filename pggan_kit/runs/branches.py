"""Start runs from others: branches, which go on from another run's state, and runs on the stem of another.

A branch continues a checkpoint: its networks, its optimizers, its clock. A stem is what another run has learned of the
stages up to one, under whatever settings: a new run takes its pieces, and has a clock of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggan_kit.errors import RunError
from pggan_kit.growth.fade import NETS, Fade
from pggan_kit.layers.value_maps import ValueMap
from pggan_kit.plugin_host.hooks import list_implementing_classes
from pggan_kit.runs.checkpoint_identity import Identity, read_discriminator_size, require_branch_fits
from pggan_kit.runs.checkpoints import Say
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import load_stage_end
from pggan_kit.runs.snapshot import AVERAGE, STATE, Snapshot
from pggan_kit.runs.snapshot_loading import list_average_notes
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, STABLE, Schedule

if TYPE_CHECKING:
    from pggan_kit.data.sampler import Data
    from pggan_kit.plugin_host.hooks import Hooks
    from pggan_kit.runs.run import Run


@dataclass(frozen=True)
class BranchPoint:
    """The checkpoint of another run that a branch goes on from, or that a stem is taken from.

    Attributes:
        option: the option that names it, `--from` or `--stem`, for errors.
        saved: the checkpoint's content.
        origin: what the new run's `run.json` records: `run`, `checkpoint`, `sha256`, `images`, `size`, and
            `started`, when that run began, by which it is known again.
        class_names: names of the classes of that run's data; none without names.
        values: map of its data's numbers to [-1, 1].
    """

    option: str
    saved: Snapshot
    origin: dict[str, Any]
    class_names: list[str]
    values: ValueMap


def find_branch_point(text: str | Path, say: Say, option: str = "--from") -> BranchPoint:
    """Return the checkpoint that `RUN` (its last) or `RUN@STAGE` (the stage's end) names.

    Args:
        text: the run's folder, and after an @ the stage's number from 0, or its size: `2` or `28x28`.
        say: the receiver of one sentence for each of its checkpoints that is damaged. Nothing is written there.
        option: see `BranchPoint`.

    Raises:
        RunError: no such run, stage or checkpoint.
    """
    folder, stage = _split_start(str(text), option)
    files = RunDirectory.open(folder)
    checkpoints = files.checkpoints(say=say)
    if stage is None:
        entry, saved = checkpoints.find_last()
    else:
        try:
            entry, saved = load_stage_end(checkpoints, stage)
        except RunError as error:
            raise RunError(f"{option} {folder}@{stage}: {error}") from None
        _require_content(saved, option, f"{folder}@{stage}")

    # All that identifies the checkpoint: the branch does not read the other run again.
    origin = {
        "run": str(folder.resolve()),
        "checkpoint": entry.file,
        "sha256": entry.sha256,
        "images": saved.images,
        "size": saved.size,
        "started": files.about().get("started"),
    }
    return BranchPoint(option, saved, origin, files.read_class_names(), files.read_values())


def _require_content(saved: Snapshot, option: str, place: str) -> None:
    """Check that what a run kept of a stage's end is enough to begin another run from."""
    kept = f"that run kept its {saved.holds} alone (train.keep_stages)"
    if option == "--from" and saved.holds != STATE:
        raise RunError(
            f"{option} {place}: {kept}, and a branch goes on with the optimizers as well: train the run again with "
            "train.keep_stages = 'state', or branch from its last checkpoint, RUN"
        )
    if saved.holds == AVERAGE:
        raise RunError(
            f"{option} {place}: {kept}, and a stem has the weights of both networks: train the run again with "
            "train.keep_stages = 'weights'"
        )


def find_trunk(files: RunDirectory) -> tuple[RunDirectory, int] | None:
    """Return the run that a branch began from, and the clock of the beginning.

    None for a run from scratch, and where that run is not there any more, or another one lies at its path. Where both
    were moved together, or a folder above them was renamed, it is found at the same place relative to the branch.

    Raises:
        RunError: `run.json` is damaged.
    """
    # A run from scratch has no such entry.
    origin = files.about().get("from")
    if not isinstance(origin, dict):
        return None
    run = origin.get("run")
    images = origin.get("images")
    if not isinstance(run, str) or type(images) is not int:
        return None

    # A relative path would name another run in another working folder.
    path = Path(run)
    if not path.is_absolute():
        raise RunError(
            f"{files.path / 'run.json'} is damaged: it names the run that it began from by a relative path, {path}"
        )
    started = origin.get("started")
    places = [path]
    if started is not None:
        places += _list_places_after_a_move(path, files.path.resolve())
    for place in places:
        if (place / "run.json").is_file():
            trunk = RunDirectory.open(place)
            if trunk.about().get("started") == started:
                return trunk, images
    return None


def _list_places_after_a_move(trunk: Path, branch: Path) -> Iterator[Path]:
    """Yield where a run may lie now that a branch began from, by the end of its old path: the longest ends first.

    Args:
        trunk: The old path of the run.
        branch: The path of the branch now.
    """
    parts = trunk.parts[1:]
    for begin in range(len(parts)):
        for above in branch.parents:
            place = above.joinpath(*parts[begin:])
            if place != branch:
                yield place


def list_lineage(files: RunDirectory, say: Say) -> list[tuple[RunDirectory, float]]:
    """Return a run and those that it began from, oldest first, each with the clock up to which it counts.

    Args:
        files: The run's directory, which is the last.
        say: Receiver of one sentence where a run is not there any more.

    Raises:
        RunError: A `run.json` is damaged.
    """
    lineage: list[tuple[RunDirectory, float]] = [(files, math.inf)]
    seen = {files.path.resolve()}
    while True:
        youngest = lineage[0][0]
        trunk = find_trunk(youngest)
        # A damaged run.json may name a run that began from this one.
        if trunk is None or trunk[0].path.resolve() in seen:
            break
        seen.add(trunk[0].path.resolve())
        # A branch may have begun before the place where the next one began.
        lineage.insert(0, (trunk[0], min(trunk[1], lineage[0][1])))
    if lineage[0][0].about().get("from"):
        say(
            f"{lineage[0][0].path}: the run that it began from is not there any more (or another one is in its place), "
            "and its stages are left out"
        )
    return lineage


def _split_start(text: str, option: str) -> tuple[Path, str | None]:
    """Return the folder and the stage that `RUN` or `RUN@STAGE` names; a folder's own name may contain an @."""
    if "@" not in text or Path(text).is_dir():
        return Path(text), None
    folder, _, stage = text.rpartition("@")
    if not folder or not stage:
        raise RunError(f"{option} {text}: write RUN, or RUN@STAGE with the stage's number from 0 or its size, as 28x28")
    return Path(folder), stage


def _require_fit(point: BranchPoint, own: Identity, schedule: Schedule) -> None:
    """Check that a checkpoint's networks and sizes are those of this config up to its stage."""
    saved = point.saved
    noted_channels = saved.identity["data"]["channels"]
    own_channels = own["data"]["channels"]
    if noted_channels != own_channels:
        raise RunError(
            f"{point.option}: images have {noted_channels} channels there, and {own_channels} in this config's data set"
        )

    # Sizes first: their messages name the setting to bind, and those about networks would name weights.
    grown = len(saved.starts)
    noted_sizes = saved.sizes[:grown]
    own_sizes = [stage.size for stage in schedule.stages[:grown]]
    if own_sizes != noted_sizes:
        raise RunError(
            f"{point.option}: the stages up to there have the sizes {', '.join(noted_sizes)} there, and "
            f"{', '.join(own_sizes)} in this config: bind schedule.sizes so that it begins like that"
        )

    noted_discriminator = read_discriminator_size(saved.identity, saved.stage)
    own_discriminator = read_discriminator_size(own, saved.stage)
    if own_discriminator != noted_discriminator:
        raise RunError(
            f"{point.option}: at {saved.size} the discriminator has the size {noted_discriminator} there, and "
            f"{own_discriminator} in this config: bind schedule.discriminator_height to the value that it has there"
        )

    try:
        require_branch_fits(saved.identity, own, saved.stage, any(saved.bridged.values()))
    except RunError as error:
        raise RunError(f"{point.option}: {error}") from None


def check_data(point: BranchPoint, data: Data, conditional: bool) -> list[str]:
    """Check that classes have the numbers that they have in another run, and return what else differs.

    Args:
        point: the place of the other run.
        data: the new run's data.
        conditional: whether its networks look at labels.

    Returns:
        A sentence where numbers of the data mean something else; none where they mean the same.

    Raises:
        RunError: a class has another number, and the networks look at labels.
    """
    if conditional:
        # Weights of other numbers of classes do not fit, as loading them says.
        for number, (before, now) in enumerate(zip(point.class_names, data.class_names, strict=False)):
            if before != now:
                raise RunError(
                    f"{point.option}: class {number} is {before!r} there, and {now!r} in this config's data set, so "
                    "that the networks would draw one for the other: give the data set the classes of that run, in "
                    "their order"
                )
    if data.values == point.values:
        return []
    return [
        f"{point.option}: [-1, 1] stands for {point.values} there, and for {data.values} in this config, so that the "
        "networks have to learn other units: bind data.value_range to that of the other run to keep them"
    ]


def _require_room(saved: Snapshot, schedule: Schedule) -> None:
    """Check that this config's schedule goes on where a checkpoint ends."""
    # There are images left.
    stage = schedule.stages[saved.stage]
    if saved.images >= schedule.total:
        raise RunError(
            f"--from: the branch begins at images {saved.images}, where this config's schedule (total "
            f"{schedule.total}) has ended: raise schedule.stable_images or schedule.total_images; or begin with --stem "
            "instead, which has a clock of its own"
        )

    # A fade that is over there is over in this schedule, too.
    spent = saved.images - saved.starts[-1]
    if saved.phase == STABLE and spent < stage.fade_images:
        raise RunError(
            f"--from: the fade of stage {stage.size} is over there after {spent} images of the stage, and takes "
            f"{stage.fade_images} in this config: bind schedule.fade_images to at most {spent} for this stage"
        )


def load_branch_point(point: BranchPoint, own: Identity, state: TrainState, hooks: Hooks) -> tuple[Snapshot, list[str]]:
    """Load a checkpoint of another run into a new state.

    Clock, starts, weights, average and bridges are loaded; the state of optimizers where they are of the same classes,
    under the new config's settings; and what components saved, where the same place holds the same class. Counters and
    the running tick start from zero.

    Args:
        point: the place where the branch begins.
        own: the new experiment's identity.
        state: the new experiment's state, not yet trained.
        hooks: the new experiment's hooks.

    Returns:
        The snapshot that the run goes on from, without what was not loaded; and sentences that say what was not.

    Raises:
        RunError: another architecture, other sizes before the branch, no images left, or a fade that is longer here.
    """
    _require_fit(point, own, state.schedule)
    _require_room(point.saved, state.schedule)

    saved = point.saved.as_beginning()
    reset_optimizers = state.load_snapshot(saved, other_optimizers=True, own_settings=True)
    notes = list_average_notes(state.experiment.averages, saved)
    notes += [f"the optimizer {name} starts from scratch: {why}" for name, why in reset_optimizers.items()]
    components, left_out = keep_states_of_same_classes(saved, hooks)
    return replace(saved, components=components), [*notes, *left_out]


def copy_average_snapshots(point: BranchPoint, stem: BranchPoint | None, files: RunDirectory) -> None:
    """Copy what the other run has kept of its averages until the branch, since the branch's averages go on from it.

    Args:
        point: the place where the branch begins.
        stem: the place of the pieces that were put under it, which are not those that the other run averaged.
        files: the branch's directory.
    """
    other = RunDirectory(Path(point.origin["run"]))
    replaced = None
    if stem is not None:
        replaced = stem.saved.stage
    count = files.average_snapshots().copy_from(other.average_snapshots(), point.saved.images, replaced)
    if count:
        files.log(f"copied {count} snapshots of averages from {other.path}")


def load_stem(stem: BranchPoint, own: Identity, state: TrainState) -> tuple[Snapshot, list[str]]:
    """Load the stem that another run has trained into a new state, which then stands at the end of the stem's stage.

    The clock is where this config's schedule ends that stage, whatever the other run has spent. Weights, and the state
    of optimizers where they are of the same classes, are loaded; what components saved is not.

    Args:
        stem: the place that the stem is taken from.
        own: the new experiment's identity.
        state: the new experiment's state, not yet trained.

    Returns:
        The snapshot that the run goes on from; and sentences that say what was not loaded.

    Raises:
        RunError: another architecture, other sizes up to the stage, no stage after it, or a stem within a fade.
    """
    schedule = state.schedule
    _require_fit(stem, own, schedule)
    _require_no_fade(stem)

    # Where this config would be, had it trained the stem itself.
    starts = schedule.planned_starts()[: len(stem.saved.starts)]
    images = schedule.end(starts)
    if images >= schedule.total:
        stage = schedule.stages[stem.saved.stage]
        raise RunError(
            f"--stem: after stage {stage.size} this config's schedule has nothing to train: add sizes or images, or "
            "name the end of an earlier stage, RUN@STAGE"
        )

    # The networks are the stem's; clocks and counts are those of a run that begins there.
    saved = replace(
        stem.saved,
        images=images,
        steps=0,
        starts=tuple(starts),
        discriminator_updates=0,
        generator_updates=0,
        phase=STABLE,
        stage_over=True,
        ended=False,
        components={},
        component_classes={},
        compiled={},
    ).as_beginning()
    reset_optimizers = state.load_snapshot(saved, other_optimizers=True, own_settings=True)
    return saved, [f"the optimizer {name} starts from scratch: {why}" for name, why in reset_optimizers.items()]


def put_stem_under(stem: BranchPoint, point: BranchPoint, own: Identity, state: TrainState) -> None:
    """Replace the pieces of the stages up to a stem's by the stem's, in a state that a branch has been loaded into.

    Args:
        stem: the place that the stem is taken from.
        point: the place where the branch begins, at the stem's stage or a later one.
        own: the new experiment's identity.
        state: the state, at the branch.

    Raises:
        RunError: another architecture, other sizes up to the stem's stage, or one of the two is within a fade.
    """
    # Both have the same networks up to the stem's stage, and stand at the end of a stage.
    _require_fit(stem, own, state.schedule)
    for place in (stem, point):
        _require_no_fade(place)

    # Later pieces of the stem would have no place.
    if stem.saved.stage > point.saved.stage:
        raise RunError(
            f"--stem: it has grown to {stem.saved.size}, and the run that it is put under to {point.saved.size} alone: "
            "name the end of an earlier stage, RUN@STAGE"
        )
    state.replace_pieces(stem.saved)


def _require_no_fade(point: BranchPoint) -> None:
    """Check that a checkpoint has no old path beside the new one."""
    if any(point.saved.bridged.values()):
        raise RunError(
            f"{point.option} {point.origin['run']}: its checkpoint is within the fade of stage {point.saved.size}, and "
            "a stem is taken, or put, between stages: name the end of a stage, RUN@STAGE"
        )


def keep_states_of_same_classes(saved: Snapshot, hooks: Hooks) -> tuple[dict[str, Any], list[str]]:
    """Return what components saved, where the same place holds the same class now, and sentences about the others."""
    own_classes = list_implementing_classes(hooks, "load_state")
    components = {}
    notes = []
    for name, value in saved.components.items():
        noted_class = saved.component_classes.get(name)
        own_class = own_classes.get(name)
        if own_class == noted_class:
            components[name] = value
            continue
        reason = f"{name} is {own_class} now"
        if own_class is None:
            reason = "this config has nothing there that loads one"
        notes.append(f"the state that {name} ({noted_class}) saved is not loaded: {reason}")
    return components, notes


def describe_branch(text: str | Path, run: Run) -> str:
    """Return one line that says where a branch begins and what comes next.

    The line names no end where a hook may decide when the stage is over.

    Args:
        text: the text that `find_branch_point` was called with.
        run: the branch, before it is trained.
    """
    state = run.state
    stages = run.schedule.stages
    begin = f"from {text} at images {state.images:,} of stage {state.stage.size}"

    # The last stage ends by its budget alone.
    is_last = len(state.starts) == len(stages)
    if not is_last and run.hooks.list_implementations("should_advance"):
        return begin
    end = run.schedule.end(state.starts)
    if state.images < end:
        return f"{begin}, which goes on until images {end:,}"
    return f"{begin}, which is over; stage {stages[len(state.starts)].size} is next"


def describe_stem(text: str | Path, stem: BranchPoint, run: Run) -> str:
    """Return one line that says which pieces a run has from a stem.

    Args:
        text: the text that `find_branch_point` was called with.
        stem: the place that it names.
        run: the run, before it is trained.
    """
    return f"the pieces of the stages up to {stem.saved.size} are those of {text}; the clock is at {run.state.images:,}"


def require_bridges(state: TrainState, hooks: Hooks) -> None:
    """Check that networks amid a fade have the old paths that another switch fades from.

    The switch is asked: it must have the state that it saved, as it has it in the run alone.

    Raises:
        RunError: they began the stage without an old path.
    """
    if state.phase != FADE:
        return
    fade = Fade(hooks, state.experiment.fade_reals)
    for net in NETS:
        alpha = fade.compute_alpha(state.stage, state.starts[-1], state.images, net)
        if alpha != 1.0 and state.network(net).bridge is None:
            raise RunError(
                f"stage {state.stage.size} began with a hard switch there, and this config's train.switch is amid a "
                "fade: choose the same switch, or another one when the stage is over"
            )
