"""Branches: a new run that begins from another run's state, at the end of a stage or at its last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggan_kit.errors import RunError
from pggan_kit.growth.fade import NETS, Fade
from pggan_kit.plugin_host.hooks import part_classes
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import stage_end
from pggan_kit.runs.identity import Identity
from pggan_kit.runs.snapshot import SavedMeans, Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, STABLE, Schedule

if TYPE_CHECKING:
    from pggan_kit.plugin_host.hooks import Hooks
    from pggan_kit.runs.run import Run

ARCHITECTURE = "train.architecture"


@dataclass(frozen=True)
class Trunk:
    """Where a branch begins.

    Attributes:
        saved: the checkpoint's content.
        origin: what the new run's `run.json` records: `run`, `checkpoint`, `sha256`, `images`, `size`.
    """

    saved: Snapshot
    origin: dict[str, Any]


def find(text: str | Path) -> Trunk:
    """The checkpoint that `RUN` (its last) or `RUN@STAGE` (the stage's end) names.

    Args:
        text: the run's folder, and after an @ the stage's number from 0, or its size: `2` or `28x28`.

    Raises:
        RunError: no such run, stage or checkpoint.
    """
    folder, stage = _parted(str(text))
    files = RunDirectory.open(folder)
    checkpoints = files.checkpoints()
    if stage is None:
        entry, saved = checkpoints.find_last(files.warn)
    else:
        try:
            entry, saved = stage_end(checkpoints, stage, files.warn)
        except RunError as error:
            raise RunError(f"--from {folder}@{stage}: {error}") from None
    origin = {
        "run": str(folder.resolve()),
        "checkpoint": entry.file,
        "sha256": entry.sha256,
        "images": saved.images,
        "size": saved.size,
    }
    return Trunk(saved, origin)


def _parted(text: str) -> tuple[Path, str | None]:
    if "@" not in text or Path(text).is_dir():
        return Path(text), None
    folder, _, stage = text.rpartition("@")
    if not folder or not stage:
        raise RunError(f"--from {text}: write RUN, or RUN@STAGE with the stage's number from 0 or its size, as 28x28")
    return Path(folder), stage


def _require_fit(saved: Snapshot, own: Identity, schedule: Schedule) -> None:
    there = saved.identity
    grown = len(saved.starts)
    for name in (ARCHITECTURE, "train.latent_size"):
        if there["architecture"].get(name) != own["architecture"].get(name):
            raise RunError(
                f"--from: {name} is {there['architecture'].get(name)} there, and {own['architecture'].get(name)} in "
                "this config"
            )
    if there["dataset"]["channels"] != own["dataset"]["channels"]:
        raise RunError(
            f"--from: images have {there['dataset']['channels']} channels there, and {own['dataset']['channels']} in "
            "this config's data set"
        )
    before, now = saved.sizes[:grown], [stage.size for stage in schedule.stages]
    if now[:grown] != before:
        raise RunError(
            f"--from: stages up to the branch have the sizes {', '.join(before)} there, and {', '.join(now[:grown])} "
            "in this config: bind schedule.sizes so that it begins like that"
        )
    _require_room(saved, schedule)


def _require_room(saved: Snapshot, schedule: Schedule) -> None:
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


def take(trunk: Trunk, own: Identity, state: TrainState, hooks: Hooks) -> tuple[Snapshot, list[str]]:
    """Let a new state go on from a checkpoint.

    Clock, starts, weights, average and bridges are taken. So is what optimizers remember, where they are of the same
    classes, under the new config's settings; and what parts saved, where the same place holds the same class. Counters
    and the running tick begin anew.

    Args:
        trunk: where the branch begins.
        own: the new experiment's identity.
        state: of the new experiment, not yet trained.
        hooks: the new experiment's.

    Returns:
        What the run goes on from: the checkpoint without what was not taken; and in words what that is.

    Raises:
        RunError: another architecture, other sizes before the branch, no images left, or a fade that cannot go on.
    """
    _require_fit(trunk.saved, own, state.schedule)
    saved = replace(
        trunk.saved, dropped=0, rewinds=0, warned_stage=-1, last_tick=trunk.saved.images, means=SavedMeans()
    )
    anew = state.load_snapshot(saved, other_optimizers=True)
    _require_bridges(state, hooks)
    left = [f"the optimizer {name} begins anew: {why}" for name, why in anew.items()]

    now = part_classes(hooks, "load_state")
    there = saved.component_classes
    taken = {}
    for name, value in saved.components.items():
        if now.get(name) == there.get(name):
            taken[name] = value
        else:
            left.append(f"what {name} ({there.get(name)}) had saved is not taken: it is {now.get(name)} now")
    return replace(saved, components=taken), left


def beginning(text: str | Path, run: Run) -> str:
    """Where a branch begins and what comes next, in one line: of what `find` was given, and the run before its start.

    The line names no end where a hook may say when the stage is over.
    """
    state, schedule = run.state, run.schedule
    begun = f"from {text} at images {state.images:,} of stage {state.stage.size}"
    last = len(state.starts) == len(schedule.stages)
    if not last and run.hooks.implementations("should_advance"):
        return begun
    end = schedule.end(state.starts)
    if state.images < end:
        return f"{begun}, which goes on until images {end:,}"
    return f"{begun}, which is over; stage {schedule.stages[len(state.starts)].size} is next"


def _require_bridges(state: TrainState, hooks: Hooks) -> None:
    """A branch amid a fade must have the old paths that its switch fades from."""
    if state.phase != FADE:
        return
    fade = Fade(hooks, state.experiment.fade_reals)
    for net in NETS:
        alpha = fade.alpha_at(state.stage, state.starts[-1], state.images, net)
        if alpha != 1.0 and state.network(net).bridge is None:
            raise RunError(
                f"--from: stage {state.stage.size} began with a hard switch there, and this config's train.switch is "
                "amid a fade: choose the same switch, or begin at the stage's end"
            )
