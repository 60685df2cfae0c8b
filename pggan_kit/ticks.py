"""The ticks of a run: where they are on the clock, and which work is due at them.

A run writes, draws and measures at ticks alone. They come every `train.tick` images, a few times before the first of
these, and at the end of each phase. Work that need not be done at each of them has an interval of its own: it is due at
the first tick at or past each multiple of the interval, and at the end of each phase. All of it follows from the clock,
so a resumed run does the same work at the same places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pggan_kit.errors import SettingError, check_at_least
from pggan_kit.schedule import PerStage, Schedule, Size, Stage, at_height, values_per_stage

PHASE = "phase"
"""The interval of what is due at the ends of phases alone."""

PARTS_OF_RUN = 100
"""Number of parts of a run's images, one of which is the interval of what has none of its own."""

Interval: TypeAlias = PerStage[int | str] | None
"""Images between two times of some work, `'phase'`, a dict of these that is keyed by image height, or None for a
hundredth of the run's images."""


def check_interval(name: str, interval: Interval, sizes: Sequence[Size] | None = None) -> None:
    """Check that a setting is an interval.

    Args:
        name: Name of the setting.
        interval: Value of the setting.
        sizes: Sizes of the stages, for each of which a dict must have a value. None where they are not known yet.

    Raises:
        SettingError: It is none.
    """
    # Each value by itself.
    values = interval.values() if isinstance(interval, Mapping) else (interval,)
    for value in values:
        if value == PHASE:
            continue
        if isinstance(value, str):
            raise SettingError(name, f"must be a number of images, or 'phase', not {value!r}")
        if value is None and isinstance(interval, Mapping):
            raise SettingError(name, "must have images or 'phase' at each height, and has None")
        check_at_least(name, value, 1, "'phase', or None for a hundredth of the run", whole=True)

    # A dict needs a value for each stage.
    if sizes is not None:
        values_per_stage(name, interval, sizes)


@dataclass(frozen=True)
class Tick:
    """A tick of a run, as the hooks at ticks get it.

    Attributes:
        images: Clock of the tick.
        before: Clock of the tick before, or of the beginning of the run.
        total: Clock at which the run ends.
        stage: Stage that the networks have grown to.
        ends_phase: Whether a fade, a stage or the run ends here.
        is_early: Whether it is one of those before the first whole `train.tick`, at which a run shows something.
    """

    images: int
    before: int
    total: int
    stage: Stage
    ends_phase: bool = False
    is_early: bool = False

    def is_due(self, interval: Interval) -> bool:
        """Return whether work of an interval is due: the clock has passed a multiple of it, or a phase ends."""
        if self.ends_phase:
            return True
        images = resolve_interval(interval, self.stage, self.total)
        if images is None:
            return False
        return self.images // images > self.before // images


def resolve_interval(interval: Interval, stage: Stage, total: int) -> int | None:
    """Return the images between two times of some work in a stage; None where it is due at the ends of phases alone.

    Args:
        interval: The interval.
        stage: The stage.
        total: Clock at which the run ends.
    """
    if interval is None:
        return max(1, total // PARTS_OF_RUN)
    value: Any = at_height(interval, stage.height)
    if value == PHASE:
        return None
    return int(value)


def list_planned_ticks(schedule: Schedule, tick: int) -> Iterator[Tick]:
    """Yield the ticks of a run whose stages spend their budgets, as if steps ended just there.

    Args:
        schedule: The stages.
        tick: Images between two ticks.
    """
    early = schedule.list_early_ticks(tick)
    starts = schedule.planned_starts()
    before = 0
    for stage, start in zip(schedule.stages, starts, strict=True):
        end = schedule.end(starts[: stage.index + 1])
        # The ends of phases have a tick; so have multiples of the interval, and early places.
        ends = {min(end, start + stage.fade_images), end}
        first = start // tick * tick + tick
        places = {place for place in (*early, *ends) if start < place <= end} | set(range(first, end + 1, tick))
        for images in sorted(places):
            yield Tick(images, before, schedule.total, stage, images in ends, images < tick)
            before = images
