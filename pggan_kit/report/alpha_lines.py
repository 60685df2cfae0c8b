"""Alpha over the clock as a run's switch gives it: ticks show neither the drop where a stage begins nor the ramp."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from pggan_kit.errors import RunError
from pggan_kit.growth.fade import Fade
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.report.records import Curve, RunRecord, StageRecord
from pggan_kit.schedule import Schedule, Stage

POINTS = 50
"""The parts that a fade is drawn in, at most."""

Trained = Sequence[tuple[Schedule, Hooks]]


def alpha_lines(run: RunRecord, trained: Trained) -> list[Curve]:
    """The generator's alpha through each stage, from its begin to its last tick.

    Args:
        run: the run.
        trained: what each of its lineage was trained with, the eldest first.

    Raises:
        RunError: the switch does not say again what it said in training, or is gone with the run's trunk.
        TrainingError: the switch fails without a run.
    """
    chain = list(run.lineage())
    if chain[0].about.get("from"):
        raise RunError("the run that it began from is gone, and its switch is not known")
    switch = _Switch(trained, [heir.about["from"]["images"] for heir in chain[1:]])
    _require_same_answers(run, switch)
    lines = []
    for stage in run.stages:
        plans = [planned for schedule, _ in trained for planned in schedule.stages if planned.index == stage.index]
        spent = min(max(planned.fade_images for planned in plans), stage.end - stage.start)
        clocks = {stage.start + round(i * spent / POINTS) for i in range(POINTS + 1)} | {stage.end}
        lines.append([(clock, switch.alpha(stage, clock)) for clock in sorted(clocks)])
    return lines


@dataclass(frozen=True)
class _Switch:
    """The switches of a run and of those that it began from, each asked about its own part of the clock.

    Attributes:
        trained: see `alpha_lines`.
        branched: the clock at which each but the first took over.
    """

    trained: Trained
    branched: Sequence[int]

    def planned(self, stage: StageRecord, clock: int) -> tuple[Stage, Hooks]:
        # The end of a stage is still of the run that trained the stage.
        schedule, hooks = self.trained[bisect_right(self.branched, min(clock, stage.end - 1))]
        return schedule.stages[stage.index], hooks

    def alpha(self, stage: StageRecord, clock: int) -> float:
        """Return the generator's alpha of a step that begins at this clock."""
        planned, hooks = self.planned(stage, clock)
        return Fade(hooks).alpha_at(planned, stage.start, clock, "generator")


def _require_same_answers(run: RunRecord, switch: _Switch) -> None:
    """A switch that remembers or measures something would now draw a line that never was.

    A tick tells the alpha of the last step before it, which began one batch earlier, or some where updates draw more.
    """
    stages, since = {stage.index: stage for stage in run.stages}, 0
    for row in run.rows:
        stage, clock = stages[int(row["Progress/stage"])], row["images"]
        batch = switch.planned(stage, clock - 1)[0].batch_size
        begins = range(clock - batch, since - 1, -batch)
        if not any(math.isclose(switch.alpha(stage, at), row["Progress/alpha"], abs_tol=1e-9) for at in begins):
            raise RunError(f"the switch answers otherwise than it did before images {clock:,}")
        since = clock
