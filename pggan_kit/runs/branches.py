"""Branches: a new run that begins from another run's state, at the end of a stage or at its last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggan_kit.errors import RunError
from pggan_kit.growth.fade import NETS, Fade
from pggan_kit.plugin_host.hooks import part_classes
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import stage_end
from pggan_kit.runs.identity import KEY, Identity, noted_sizes
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
        content: the checkpoint's.
        origin: what the new run's `run.json` records: `run`, `checkpoint`, `sha256`, `images`, `size`.
    """

    content: dict[str, Any]
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
    checkpoints = Checkpoints(files.path / "checkpoints")
    if stage is None:
        entries = checkpoints.entries(files.warn)
        content = checkpoints.load_last(files.warn)
        # The last whole one may not be the last entry; its clock and weights are what was loaded.
        entry = next(e for e in reversed(entries) if e["images"] == content.get("images"))
    else:
        try:
            entry, content = stage_end(checkpoints, stage, files.warn)
        except RunError as error:
            raise RunError(f"--from {folder}@{stage}: {error}") from None
    origin = {
        "run": str(folder.resolve()),
        "checkpoint": entry["file"],
        "sha256": entry["sha256"],
        "images": content["images"],
        "size": noted_sizes(content)[len(content["starts"]) - 1],
    }
    return Trunk(content, origin)


def _parted(text: str) -> tuple[Path, str | None]:
    if "@" not in text or Path(text).is_dir():
        return Path(text), None
    folder, _, stage = text.rpartition("@")
    if not folder or not stage:
        raise RunError(f"--from {text}: write RUN, or RUN@STAGE with the stage's number from 0 or its size, as 28x28")
    return Path(folder), stage


def _require_fit(content: Mapping[str, Any], own: Identity, schedule: Schedule) -> None:
    there, grown = content[KEY], len(content["starts"])
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
    before, now = noted_sizes(content)[:grown], [stage.size for stage in schedule.stages]
    if now[:grown] != before:
        raise RunError(
            f"--from: stages up to the branch have the sizes {', '.join(before)} there, and {', '.join(now[:grown])} "
            "in this config: bind schedule.sizes so that it begins like that"
        )
    _require_room(content, schedule)


def _require_room(content: Mapping[str, Any], schedule: Schedule) -> None:
    images, starts = content["images"], content["starts"]
    stage = schedule.stages[len(starts) - 1]
    if images >= schedule.total:
        raise RunError(
            f"--from: the branch begins at images {images}, where this config's schedule (total {schedule.total}) has "
            "ended: raise schedule.stable_images or schedule.total_images"
        )
    spent = images - starts[-1]
    if content["phase"] == STABLE and spent < stage.fade_images:
        raise RunError(
            f"--from: the fade of stage {stage.size} is over there after {spent} images of the stage, and takes "
            f"{stage.fade_images} in this config: bind schedule.fade_images to at most {spent} for this stage"
        )


def take(trunk: Trunk, own: Identity, state: TrainState, hooks: Hooks) -> list[str]:
    """Let a new state go on from a checkpoint.

    Clock, starts, weights, average and bridges are taken. So is what optimizers remember, where they are of the same
    classes, under the new config's settings; and what parts saved, where the same place holds the same class. Counters
    and the running tick begin anew.

    Args:
        trunk: its content is changed, so that the hooks `load_state` hear only what is theirs.
        own: the new experiment's identity.
        state: of the new experiment, not yet trained.
        hooks: the new experiment's.

    Returns:
        What was not taken, in words.

    Raises:
        RunError: another architecture, other sizes before the branch, no images left, or a fade that cannot go on.
    """
    content = trunk.content
    _require_fit(content, own, state.schedule)
    content.update(dropped=0, rewinds=0, warned_stage=-1, last_tick=content["images"], means={"sums": {}, "counts": {}})
    anew = state.load_state_dict(content, other_optimizers=True)
    _require_bridges(state, hooks)
    left = [f"the optimizer {name} begins anew: {why}" for name, why in anew.items()]
    now, there = part_classes(hooks, "load_state"), content["component_classes"]
    for name in list(content["components"]):
        if now.get(name) != there.get(name):
            del content["components"][name]
            left.append(f"what {name} ({there.get(name)}) had saved is not taken: it is {now.get(name)} now")
    return left


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
