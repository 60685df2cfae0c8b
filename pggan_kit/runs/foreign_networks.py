"""Load networks that another project has trained into the state of a run."""

from __future__ import annotations

from pggan_kit.components import ForeignNetworks
from pggan_kit.errors import RunError
from pggan_kit.growth.averages import list_names
from pggan_kit.runs.snapshot_loading import load_weights, refuse_unfit_snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import STABLE


def load_foreign_networks(state: TrainState, foreign: ForeignNetworks) -> None:
    """Grow the networks of a new state to the stage of others, and load their weights.

    The clock is where the schedule ends that stage; within a fade it is where its alpha grows to theirs.

    Args:
        state: A new state, not yet trained.
        foreign: The networks.

    Raises:
        RunError: They are of other networks than the state's, or of a stage that the schedule lacks.
    """
    schedule = state.schedule
    if foreign.stage >= len(schedule.stages):
        raise RunError(
            f"the imported networks are in stage {foreign.stage}, and schedule.sizes has {len(schedule.stages)} stages"
        )

    # Each stage begins where the schedule plans it.
    starts = schedule.planned_starts()
    for index in range(1, foreign.stage + 1):
        state.images = starts[index]
        state.grow(foreign.bridged if index == foreign.stage else {})
    state.renew_optimizers()

    # The weights
    with refuse_unfit_snapshot():
        load_weights(state.generator, foreign.generator, "generator")
        load_weights(state.discriminator, foreign.discriminator, "discriminator")
        for name in list_names(state.experiment.averages):
            load_weights(state.read_average(name), foreign.average, f"average {name}")

    # The clock
    if any(foreign.bridged.values()):
        state.images += round(state.stage.fade_images * foreign.alpha)
    else:
        state.images = schedule.end(state.starts)
        state.phase = STABLE
    state.last_tick = state.images
