"""How far the run is: a live line in a terminal, else a plain line a tick."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pggan_kit import Run, Schedule, TrainState, hookimpl
from pggan_plugins.observers.shared import phase_shown

REFRESH_SECONDS = 0.25
WINDOW_SECONDS = 10.0
"""The rate is that of about the last so many seconds."""


class Progress:
    """Stage, phase, alpha, images of the total, images per second and the time left, on stderr.

    In a terminal a display that is renewed four times a second, with the last tick's losses; elsewhere one plain line
    a tick. At the end it says what there is to look at.
    """

    critical = False

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._pace = Pace()
        self._losses = ""
        self._started = self._next = 0.0

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Name the run's directory; start the display."""
        self._pace, self._losses = Pace(), ""
        self._started, self._next = time.perf_counter(), math.inf
        verb = "going on with" if run.resumed else "training"
        self._say(f"{verb} {run.directory}")
        if self._console.is_interactive:
            self._next = self._started
            # stdout stays what the program prints for machines; a thread that refreshes would compete with the step.
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
            self._live.start()

    @hookimpl
    def before_stage(self, state: TrainState) -> None:
        """Forget the pace: the new stage has its own."""
        self._pace = Pace()
        self._pace.mark(time.perf_counter(), state.images)

    @hookimpl
    def before_compile(self, run: Run, net: str) -> None:
        """Say what takes so long."""
        told = f"compiling the {net}'s step, once for this size ..."
        if self._live is not None:
            self._live.update(display(run, self._pace, self._started, told), refresh=True)
        else:
            self._say(f"{where(run)}  {told}")

    @hookimpl
    def after_step(self, run: Run, state: TrainState) -> None:
        """Renew the display where it is due; costs a look at the clock where it is not."""
        now = time.perf_counter()
        if now < self._next:
            return
        self._next = now + REFRESH_SECONDS
        self._pace.mark(now, state.images)
        self._refresh(run)

    @hookimpl
    def after_tick(self, run: Run, state: TrainState, stats: Mapping[str, float]) -> None:
        """Show the tick's losses, or print its line."""
        self._losses = losses(stats)
        self._pace.mark(time.perf_counter(), state.images)
        if self._live is not None:
            self._refresh(run)
        else:
            self._say("  ".join([where(run), how_far(run, self._pace, self._started), self._losses]).rstrip())

    @hookimpl
    def after_run(self, run: Run, result: Mapping[str, Any]) -> None:
        """Say what there is to see."""
        self._stop()
        took = duration(time.perf_counter() - self._started)
        self._say(f"{result['images']:,} images, {took}. What there is to see:")
        for line in worth_opening(run):
            self._say(f"  {line}")

    @hookimpl
    def on_error(self) -> None:
        """Give the terminal back; the last display stays."""
        self._stop()

    def _refresh(self, run: Run) -> None:
        assert self._live is not None, "only a terminal is refreshed"
        self._live.update(display(run, self._pace, self._started, self._losses), refresh=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._next = math.inf

    def _say(self, line: str) -> None:
        # Paths must stay whole, so that they can be copied.
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Pace:
    """How fast the clock moves: marks of (seconds, images), the last `WINDOW_SECONDS` of them."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, seconds: float, images: int) -> None:
        """Note that the clock stood at `images` at this time."""
        self._marks.append((seconds, images))
        while len(self._marks) > 2 and seconds - self._marks[1][0] > WINDOW_SECONDS:
            self._marks.popleft()

    @property
    def images_per_second(self) -> float:
        """0 while nothing is known."""
        if not self._marks:
            return 0.0
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        return (last - first) / (ended - began) if ended > began else 0.0


def images_left(schedule: Schedule, starts: Sequence[int], images: int) -> float:
    """What is left to train, in images of the current stage: an image of a later stage counts as many times as it is
    larger in height. That lies between equal costs and costs as the pixels, since larger stages have fewer channels."""
    current, clock = schedule.stages[len(starts) - 1], schedule.end(starts)
    left = float(clock - images)
    for stage in schedule.stages[len(starts) :]:
        room = schedule.total - clock
        spent = room if stage is schedule.stages[-1] else min(stage.budget, room)
        left += spent * stage.height / current.height
        clock += spent
    return left


def where(run: Run) -> str:
    """`stage 2/3 14x14  fade  alpha 0.43`."""
    state = run.state
    place = f"stage {state.stage.index + 1}/{len(run.schedule.stages)} {state.stage.size}"
    return f"{place}  {phase_shown(state)}  alpha {run.alpha['generator']:.2f}"


def how_far(run: Run, pace: Pace, started: float) -> str:
    """`12,800 of 100,000 images  812 images/s  elapsed 0:16  about 1:47 left`."""
    parts = [f"{run.state.images:,} of {run.schedule.total:,} images"]
    rate = pace.images_per_second
    if rate > 0:
        parts.append(f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.1f} images/s")
    parts.append(f"elapsed {duration(time.perf_counter() - started)}")
    if rate > 0:
        left = images_left(run.schedule, run.state.starts, run.state.images) / rate
        parts.append(f"about {duration(left)} left")
    return "  ".join(parts)


def display(run: Run, pace: Pace, started: float, told: str) -> RenderableType:
    """Four lines: where the run is, a bar with how far, the numbers, and the last tick's losses."""
    lines = Table.grid()
    lines.add_row(Text(where(run), "bold", no_wrap=True, overflow="ellipsis"))
    lines.add_row(ProgressBar(run.schedule.total, run.state.images))
    lines.add_row(Text(how_far(run, pace, started), no_wrap=True, overflow="ellipsis"))
    lines.add_row(Text(told, "dim", no_wrap=True, overflow="ellipsis"))
    return lines


def duration(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:00`."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def worth_opening(run: Run) -> list[str]:
    """Of the files that observers leave, those that are there."""
    folder = run.directory
    found = [str(path) for path in (folder / "growth.gif", folder / "samples") if path.exists()]
    if any(folder.glob("events.out.tfevents.*")):
        found.append(f"tensorboard --logdir {folder}")
    return found or [str(folder)]


def losses(stats: Mapping[str, float]) -> str:
    """`generator/logistic 0.886  discriminator/R1 0.512`."""
    prefix = "Loss/"
    named = {tag[len(prefix) :]: value for tag, value in stats.items() if tag.startswith(prefix)}
    return "  ".join(f"{name} {value:.3f}" for name, value in named.items())
