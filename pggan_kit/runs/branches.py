"""Start branches: new runs that go on from another run's state, at the end of a stage or at its last checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggan_kit.errors import RunError
from pggan_kit.growth.fade import NETS, Fade
from pggan_kit.plugin_host.hooks import list_implementing_classes
from pggan_kit.runs.checkpoint_identity import Identity, require_branch_fits
from pggan_kit.runs.checkpoints import Say
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import load_stage_end
from pggan_kit.runs.snapshot import SavedMeans, Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, STABLE, Schedule

if TYPE_CHECKING:
    from pggan_kit.plugin_host.hooks import Hooks
    from pggan_kit.runs.run import Run


@dataclass(frozen=True)
class BranchPoint:
    """The checkpoint of another run that a branch goes on from.

    Attributes:
        saved: the checkpoint's content.
        origin: what the new run's `run.json` records: `run`, `checkpoint`, `sha256`, `images`, `size`.
    """

    saved: Snapshot
    origin: dict[str, Any]


def find_branch_point(text: str | Path, say: Say) -> BranchPoint:
    """Return the checkpoint that `RUN` (its last) or `RUN@STAGE` (the stage's end) names.

    Args:
        text: the run's folder, and after an @ the stage's number from 0, or its size: `2` or `28x28`.
        say: the receiver of one sentence for each of its checkpoints that is damaged. Nothing is written there.

    Raises:
        RunError: no such run, stage or checkpoint.
    """
    folder, stage = _split_start(str(text))
    files = RunDirectory.open(folder)
    checkpoints = files.checkpoints(say=say)
    if stage is None:
        entry, saved = checkpoints.find_last()
    else:
        try:
            entry, saved = load_stage_end(checkpoints, stage)
        except RunError as error:
            raise RunError(f"--from {folder}@{stage}: {error}") from None

    # All that identifies the checkpoint: the branch does not read the other run again.
    origin = {
        "run": str(folder.resolve()),
        "checkpoint": entry.file,
        "sha256": entry.sha256,
        "images": saved.images,
        "size": saved.size,
    }
    return BranchPoint(saved, origin)


def find_trunk(files: RunDirectory) -> tuple[RunDirectory, int] | None:
    """Return the run that a branch began from, and the clock of the beginning.

    None for a run from scratch, and where that run is not there any more.

    Raises:
        RunError: `run.json` is damaged.
    """
    origin = files.about().get("from")
    if not isinstance(origin, dict):
        return None
    run = origin.get("run")
    images = origin.get("images")
    if not isinstance(run, str) or type(images) is not int:
        return None
    path = Path(run)
    if not path.is_absolute():
        raise RunError(
            f"{files.path / 'run.json'} is damaged: it names the run that it began from by a relative path, {path}"
        )
    if not (path / "run.json").is_file():
        return None
    return RunDirectory.open(path), images


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
        say(f"{lineage[0][0].path}: the run that it began from is not there any more, and its stages are left out")
    return lineage


def _split_start(text: str) -> tuple[Path, str | None]:
    """Return the folder and the stage that `RUN` or `RUN@STAGE` names; a folder's own name may contain an @."""
    if "@" not in text or Path(text).is_dir():
        return Path(text), None
    folder, _, stage = text.rpartition("@")
    if not folder or not stage:
        raise RunError(f"--from {text}: write RUN, or RUN@STAGE with the stage's number from 0 or its size, as 28x28")
    return Path(folder), stage


def _require_fit(saved: Snapshot, own: Identity, schedule: Schedule) -> None:
    """Check that a checkpoint's networks and sizes are those of this config up to the branch."""
    noted_channels = saved.identity["data"]["channels"]
    own_channels = own["data"]["channels"]
    if noted_channels != own_channels:
        raise RunError(
            f"--from: images have {noted_channels} channels there, and {own_channels} in this config's data set"
        )

    grown = len(saved.starts)
    noted_sizes = saved.sizes[:grown]
    own_sizes = [stage.size for stage in schedule.stages[:grown]]
    if own_sizes != noted_sizes:
        raise RunError(
            f"--from: stages up to the branch have the sizes {', '.join(noted_sizes)} there, and "
            f"{', '.join(own_sizes)} in this config: bind schedule.sizes so that it begins like that"
        )

    try:
        require_branch_fits(saved.identity, own, saved.stage, any(saved.bridged.values()))
    except RunError as error:
        raise RunError(f"--from: {error}") from None


def _require_room(saved: Snapshot, schedule: Schedule) -> None:
    """Check that this config's schedule goes on where a checkpoint ends."""
    stage = schedule.stages[saved.stage]
    if saved.images >= schedule.total:
        raise RunError(
            f"--from: the branch begins at images {saved.images}, where this config's schedule (total "
            f"{schedule.total}) has ended: raise schedule.stable_images or schedule.total_images"
        )
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
        RunError: another architecture, other sizes before the branch, no images left, or a fade that cannot go on.
    """
    _require_fit(point.saved, own, state.schedule)
    _require_room(point.saved, state.schedule)

    # The branch counts its own failures and warnings, and its tick begins with it.
    saved = replace(
        point.saved, dropped=0, rewinds=0, warned_stage=-1, last_tick=point.saved.images, means=SavedMeans()
    )
    reset_optimizers = state.load_snapshot(saved, other_optimizers=True, own_settings=True)
    try:
        require_bridges(state, hooks)
    except RunError as error:
        raise RunError(f"--from: {error}") from None
    notes = [f"the optimizer {name} starts from scratch: {why}" for name, why in reset_optimizers.items()]
    components, left_out = keep_states_of_same_classes(saved, hooks)
    return replace(saved, components=components), [*notes, *left_out]


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
        else:
            notes.append(f"the state that {name} ({noted_class}) saved is not loaded: {name} is {own_class} now")
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


def require_bridges(state: TrainState, hooks: Hooks) -> None:
    """Check that networks amid a fade have the old paths that another switch fades from.

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
