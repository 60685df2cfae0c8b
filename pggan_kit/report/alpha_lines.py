"""Alpha over the clock as a run's switch gives it: ticks show neither the drop where a stage begins nor the ramp."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pggan_kit.errors import RunError
from pggan_kit.growth.fade import Fade
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.report.run_record import Curve, RunRecord, StageRecord
from pggan_kit.schedule import Schedule, Stage

POINTS = 80
"""Maximum of intervals that a fade is drawn in; eighths of a fade are among their ends."""

Trained = Sequence[tuple[Schedule, Hooks]]


def draw_alpha_lines(run: RunRecord, trained: Trained) -> list[Curve]:
    """Return the generator's alpha through each stage, from its beginning to its last tick.

    Args:
        run: The run.
        trained: Schedule and hooks that each run of its lineage was trained with, the eldest first.

    Raises:
        RunError: The switch does not give the alphas that it gave in training, or the run's trunk no longer exists.
        TrainingError: The switch fails without a run.
    """
    chain = list(run.lineage())
    if chain[0].about.get("from"):
        raise RunError("the run that it began from no longer exists, so its switch is not known")
    # Nothing is drawn unless the ticks confirm it.
    switch = _Switch(trained, [heir.about["from"]["images"] for heir in chain[1:]])
    _require_same_answers(run, switch)

    lines = []
    for stage in run.stages:
        clocks = _list_clocks(stage, switch.longest_fade(stage))
        lines.append([(clock, switch.alpha(stage, clock)) for clock in clocks])
    return lines


def _list_clocks(stage: StageRecord, fade_images: int) -> list[int]:
    """Return clocks at equal distances through a stage's fade, and that of the stage's last tick."""
    spent = min(fade_images, stage.end - stage.start)
    clocks = {stage.start + round(i * spent / POINTS) for i in range(POINTS + 1)}
    return sorted(clocks | {stage.end})


@dataclass(frozen=True)
class _Switch:
    """The switches of a run and of those that it began from, each asked about its own share of the clock.

    Attributes:
        trained: See `draw_alpha_lines`.
        branched: Clock at which each run but the first took over.
    """

    trained: Trained
    branched: Sequence[int]

    def longest_fade(self, stage: StageRecord) -> int:
        """Return the images of a stage's fade, the most that a schedule of the lineage has for it."""
        longest = 0
        for schedule, _ in self.trained:
            for planned in schedule.stages:
                if planned.index == stage.index:
                    longest = max(longest, planned.fade_images)
        return longest

    def find_stage(self, stage: StageRecord, clock: int) -> tuple[Stage, Hooks]:
        """Return the stage as the run in charge at a clock planned it, and that run's hooks."""
        # The end of a stage still belongs to the run that trained the stage.
        schedule, hooks = self.trained[bisect_right(self.branched, min(clock, stage.end - 1))]
        return schedule.stages[stage.index], hooks

    def alpha(self, stage: StageRecord, clock: int) -> float:
        """Return the generator's alpha of a step that begins at this clock."""
        planned, hooks = self.find_stage(stage, clock)
        return Fade(hooks).compute_alpha(planned, stage.start, clock, "generator")


def _require_same_answers(run: RunRecord, switch: _Switch) -> None:
    """Check that the switch gives the alphas of the run's ticks.

    A switch that remembers or measures something would now draw a line that never was.
    """
    stages = {stage.index: stage for stage in run.stages}
    previous = 0
    for row in run.rows:
        stage = stages[int(row["Progress/stage"])]
        clock = row["images"]
        recorded = row["Progress/alpha"]
        alphas = _alphas_between(switch, stage, previous, clock)

        # One of the steps before the tick gave it.
        if not any(math.isclose(alpha, recorded, abs_tol=1e-9) for alpha in alphas):
            raise RunError(f"the switch does not give the alpha that it gave before images {clock:,}")
        previous = clock


def _alphas_between(switch: _Switch, stage: StageRecord, previous: int, clock: int) -> Iterator[float]:
    """Yield the alphas of the steps between two ticks, the last step's first.

    A tick has the alpha of the last step before it, which began one batch earlier, or several where an update draws
    more than one.
    """
    batch_size = switch.find_stage(stage, clock - 1)[0].batch_size
    for begin in range(clock - batch_size, previous - 1, -batch_size):
        yield switch.alpha(stage, begin)
