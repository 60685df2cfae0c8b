"""Measure how long observers take at a tick, in a temporary folder.

Only those that have `estimate_bytes` are asked: what they do is done in the run's folder. Others may send something
elsewhere, or show it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pggan_kit.api.prepare import Prepared
from pggan_kit.benchmarking.rig import Rig
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import Plugins
from pggan_kit.runs.run import Run
from pggan_kit.ticks import Tick

TIMED = 3
"""Number of ticks whose median counts, after one to warm up."""


@dataclass(frozen=True)
class ObserverTime:
    """The seconds of an observer at a tick of a stage.

    Attributes:
        observer: The observer.
        due: Seconds where its interval says that it is due.
        idle: Seconds elsewhere.
    """

    observer: Any
    due: float
    idle: float

    @property
    def name(self) -> str:
        """Return the name of its class."""
        return type(self.observer).__name__

    def scale(self, operations: float) -> ObserverTime:
        """Return the time at a stage with `operations` times as many operations an image."""
        return replace(self, due=self.due * operations)

    def sum_seconds(self, ticks: Sequence[Tick]) -> float:
        """Return the seconds at the ticks of a stage; what has no `every` does the same at each of them."""
        due = len(ticks)
        if hasattr(self.observer, "every"):
            due = sum(tick.is_early or tick.is_due(self.observer.every) for tick in ticks)
        return due * self.due + (len(ticks) - due) * self.idle


def is_measurable(observer: Any) -> bool:
    """Return whether `plan` may call an observer: it writes to the run's folder alone."""
    return hasattr(observer, "estimate_bytes")


def list_unmeasured(observers: Sequence[Any]) -> list[str]:
    """Return the names of the observers whose time is not known."""
    return list(dict.fromkeys(type(observer).__name__ for observer in observers if not is_measurable(observer)))


def measure_observers(rig: Rig, prepared: Prepared) -> list[ObserverTime]:
    """Return the seconds of each measurable observer.

    A file that is written again at each tick, as an animation is, is as short here as at the first.

    Args:
        rig: The stage, after its first iteration.
        prepared: Its experiment.
    """
    times = []
    for path, (row, component) in prepared.built.components.items():
        if row.component.kind == "observers" and is_measurable(component):
            # Nobody else is called at these ticks.
            hooks = Hooks(Plugins(), {path: (row, component)})
            with rig.open_run() as run:
                times.append(_measure_observer(component, rig, run, hooks))
    return times


def _measure_observer(observer: Any, rig: Rig, run: Run, hooks: Hooks) -> ObserverTime:
    """Return the seconds of an observer, whose hooks are given."""
    place = {"stage": rig.stage, "state": rig.state}
    stats = {name: float(loss) for name, loss in rig.losses.items()}
    clock = rig.state.images
    idle = Tick(clock, clock, rig.schedule.total, rig.stage)
    seconds = []
    hooks.call("before_run", run=run)
    try:
        hooks.call("before_stage", run=run, continues=False, **place)
        for tick in (idle, replace(idle, ends_phase=True)):
            taken = []
            for _ in range(1 + TIMED):
                began = time.perf_counter()
                hooks.call("after_tick", run=run, stats=stats, tick=tick, **place)
                taken.append(time.perf_counter() - began)
            seconds.append(statistics.median(taken[1:]))
    finally:
        # It closes its files.
        result = {"images": clock, "steps": rig.state.steps, "seconds": 0.0, "update_seconds": 0.0}
        hooks.call_all("after_run", run=run, result=result)
    return ObserverTime(observer, idle=seconds[0], due=seconds[1])
